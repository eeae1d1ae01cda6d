"""Stand-ins for the masters of clusters: real HTTP servers that speak what was seen of them."""

import json
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Master:
    """Answers by ``answer(method, path, body)`` with a status and JSON; None for no body.

    ``asked`` has the method and path of every request.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        master = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                master.asked.append(f"{self.command} {self.path}")
                status, values = master.answer(self.command, self.path, body)
                data = b"" if values is None else json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # a driver that is interrupted leaves
                    self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FlinkMaster(Master):
    """A JobManager. Jobs run until they are cancelled, or ``states`` says otherwise.

    ``begun`` is called with the id of each new job, whose package is in ``jars``.
    """

    def __init__(self, version: str = "1.20.5", slots: int = 2) -> None:
        self.version, self.slots = version, slots
        self.managers = ["127.0.0.1:41131-5f2a1c"]
        self.names: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.failure = ""
        self.obeys = True
        self.begun: Callable[[str], None] = lambda job: None
        self.jars: list[bytes] = []
        super().__init__()

    def add(self, name: str, state: str = "RUNNING") -> str:
        job = f"{len(self.states) + 1:032x}"
        self.names[job], self.states[job] = name, state
        return job

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        match method, path.strip("/").split("/"):
            case "GET", ["v1", "overview"]:
                running = list(self.states.values()).count("RUNNING")
                values = {"flink-version": self.version, "slots-total": self.slots}
                return 200, values | {"jobs-running": running}
            case "GET", ["v1", "config"]:
                return 200, {"flink-version": self.version}
            case "GET", ["v1", "taskmanagers"]:
                return 200, {"taskmanagers": [{"id": name} for name in self.managers]}
            case "GET", ["v1", "jobs", "overview"]:
                jobs = [
                    {"jid": job, "name": self.names[job], "state": state}
                    for job, state in self.states.items()
                ]
                return 200, {"jobs": jobs}
            case "POST", ["v1", "jars", "upload"]:
                self.jars.append(body)
                return 200, {"filename": "/tmp/flink-web/beam.jar", "status": "success"}
            case "POST", ["v1", "jars", "beam.jar", "run"]:
                job = self.add(_job_name(self.jars[-1]))
                self.begun(job)
                return 200, {"jobid": job}
            case "DELETE", ["v1", "jars", "beam.jar"]:
                return 200, {}
            case "GET", ["v1", "jobs", job] if job in self.states:
                return 200, {"jid": job, "name": self.names[job], "state": self.states[job]}
            case "GET", ["v1", "jobs", job, "exceptions"] if job in self.states:
                history = [{"exceptionName": "x", "stacktrace": self.failure, "timestamp": 1}]
                return 200, {"exceptionHistory": {"entries": history if self.failure else []}}
            case "PATCH", ["v1", "jobs", target] if target.endswith("?mode=cancel"):
                job = target.partition("?")[0]
                if self.states.get(job) == "RUNNING" and self.obeys:
                    self.states[job] = "CANCELED"
                return 202, {}
        return 404, {"errors": [f"Not found: {path}"]}


class SparkMaster(Master):
    """A standalone master's REST server."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.properties: list[dict[str, str]] = []
        self.obeys = True
        self.begun: Callable[[str], None] = lambda job: None
        super().__init__()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        version = {"serverSparkVersion": "3.5.9"}
        match method, path.strip("/").split("/"):
            case "POST", ["v1", "submissions", "create"]:
                self.properties.append(json.loads(body)["sparkProperties"])
                job = f"driver-{len(self.states):04}"
                self.states[job] = "RUNNING"
                self.begun(job)
                return 200, version | {"success": True, "submissionId": job}
            case "GET", ["v1", "submissions", "status", job]:
                found = {"driverState": self.states[job]} if job in self.states else {}
                return 200, version | found | {"success": bool(found)}
            case "POST", ["v1", "submissions", "kill", job]:
                if self.obeys:
                    self.states[job] = "KILLED"
                return 200, version | {"success": True}
        return 400, version | {"action": "ErrorResponse"}


def job_server_jar(path: Path) -> Path:
    """What a job is put into, in place of Beam's job server."""
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("spark-version-info.properties", "version=3.5.9\n")
    return path


def _job_name(upload: bytes) -> str:
    """As Flink shows it, from the jar inside a multipart upload."""
    import io

    start, end = upload.index(b"PK\x03\x04"), upload.rindex(b"PK\x05\x06") + 22
    with zipfile.ZipFile(io.BytesIO(upload[start:end])) as jar:
        options = json.loads(jar.read("BEAM-PIPELINE/pipeline/pipeline-options.json"))
    return str(options["beam:option:job_name:v1"])
