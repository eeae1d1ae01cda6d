"""Real services on this machine: a portable Beam cluster, an S3 server, a site of photos."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.dataset import s3

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagenet-superres"
POOL = "apache_beam.runners.worker.worker_pool_main"
OPTIONS = [
    *("--num-shards", "4", "--splits", "train=0.5,validation=0.25,test=0.25"),
    *("--requests-per-host", "100000", "--timeout", "300", "--allow-host", "127.0.0.1"),
]


def go_tool(name: str) -> Path:
    """A program that `go install` made; .ci/run has the commands. Without it the test is skipped,
    but not in CI."""
    path = Path(os.environ.get("GOBIN") or Path.home() / "go" / "bin") / name
    if not path.exists():
        reason = f"no {path}: the `go install` commands are in .ci/run"
        if "REQUIRE_GO_TOOLS" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def go_program() -> Callable[[str], Path]:
    """go_tool(name)."""
    return go_tool


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips the test where no network namespace can be made."""
    if os.getuid() == 0 and shutil.which("ip"):
        name = f"sr-probe-{os.getpid()}"
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        if made.returncode == 0:
            return
    pytest.skip("no network namespaces: needs root and iproute2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], what: Callable[[], str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """eventually(condition, message): waits for it."""
    return wait_for


class Service:
    """A server process in a session of its own, so that what it started ends with it."""

    def __init__(self, log: Path, port: int, command: Sequence[str | Path], **how: Any) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, start_new_session=True, **how
            )
        wait_for(lambda: self._answers(port), log.read_text)

    def _answers(self, port: int) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def worker_python() -> Iterator[Path]:
    """The Python of an environment that has what a Beam worker needs and nothing else.

    It is kept between runs, and locked: a job installs its package there.
    """
    key = hashlib.sha256((REPOSITORY / "setup.py").read_bytes() + sys.version.encode()).hexdigest()
    directory = CACHE / f"worker-{key[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    python, ready = directory / "env" / "bin" / "python", directory / "ready"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory / "env"], check=True)
            base = [
                requirement.partition(";")[0].strip()
                for requirement in requires("imagenet-superres") or ()
                if "extra ==" not in requirement or 'extra == "aws"' in requirement
            ]
            # As in Beam's images: boot installs the staged package without looking for more.
            tools = ["setuptools>=77", "build"]
            install = [python, "-m", "pip", "install", "--quiet", "--no-compile", *base, *tools]
            subprocess.run(install, check=True)
            ready.touch()
        yield python


class Cluster:
    """Prism's job service, and a pool that starts workers by Beam's boot program."""

    def __init__(self, directory: Path, python: Path) -> None:
        self._directory, self._python = directory, python
        self._job_port, self._pool_port = free_port(), free_port()
        boot = directory / "boot"
        boot.write_text(
            f'#!/bin/sh\nexec {go_tool("container")} --semi_persist_dir={directory} "$@"\n'
        )
        boot.chmod(0o755)
        self.job_service = self.start_job_service()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["PATH"] = f"{python.parent}:{environment['PATH']}"
        environment["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT"] = "1"
        self.pool = Service(
            directory / "pool.log",
            self._pool_port,
            [
                python,
                "-m",
                POOL,
                f"--service_port={self._pool_port}",
                f"--container_executable={boot}",
            ],
            env=environment,
            cwd=directory,  # not the repository: its packages must come from the staged one
        )

    def start_job_service(self) -> Service:
        ports = [f"--job_port={self._job_port}", f"--web_port={free_port()}"]
        self.job_service = Service(
            self._directory / "prism.log", self._job_port, [go_tool("prism"), *ports]
        )
        return self.job_service

    @property
    def options(self) -> list[str]:
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{self._job_port}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self._pool_port}",
            "--setup_file=./setup.py",
        ]

    def workers(self) -> list[int]:
        """The processes that run the job's code now."""
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "-s", str(self.pool.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
        return [int(pid) for pid, command in lines if "sdk_worker_main" in command]

    @property
    def bytes_through(self) -> int:
        """What the job service has read since it started: all that passes between stages, too."""
        lines = Path(f"/proc/{self.job_service.process.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])

    def close(self) -> None:
        self.pool.kill()
        self.job_service.kill()


@pytest.fixture
def cluster(worker_python: Path, tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path, worker_python)
    yield running
    running.close()


class Site:
    """A web site of real photos with a list of them; holds answers back on demand."""

    def __init__(
        self, server: Any, answer: Callable[..., bytes], photos: Sequence[Path], directory: Path
    ) -> None:
        self.server = server
        self.held: set[str] = set()
        server.before = self._hold
        self.paths = [f"/{number}.jpg" for number in range(len(photos))]
        for path, photo in zip(self.paths, photos, strict=True):
            server.routes[path] = answer(photo.read_bytes())
        names = [*self.paths, self.paths[0], "/gone.jpg"]
        lines = [f"n01440764_{number}\t{server.url(name)}" for number, name in enumerate(names)]
        self.num_lines = len(lines) + 1
        self.num_bytes = sum(photo.stat().st_size for photo in photos)
        self.list = directory / "list.txt"
        self.list.write_text("\n".join([*lines, "no line"]) + "\n")

    async def _hold(self, path: str) -> None:
        while path in self.held:  # noqa: ASYNC110  set from another thread
            await asyncio.sleep(0.02)

    @property
    def pictures_asked(self) -> Counter[str]:
        return Counter({p: n for p, n in self.server.requests.items() if p in self.paths})


@pytest.fixture(scope="session")
def photo_site(
    make_server: Callable[[], Any],
    http_answer: Callable[..., bytes],
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    server = make_server()
    photos = sorted((shared_data / "imagenet" / "photos").glob("*.jpg"))
    photos = sorted(photos, key=lambda photo: -photo.stat().st_size)[:24]
    yield Site(server, http_answer, photos, tmp_path_factory.mktemp("site"))
    server.close()


class Build:
    """python -m pipelines as a user runs it, in the background."""

    def __init__(
        self,
        log: Path,
        source: str | Path,
        output: str | Path,
        *more: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        command = [
            sys.executable,
            "-m",
            "pipelines",
            "--urls",
            str(source),
            "--output",
            str(output),
        ]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, *OPTIONS, *more], cwd=REPOSITORY, stderr=file, env=environment
            )

    def wait_for(self, condition: Callable[[], Any]) -> None:
        def go_on() -> Any:
            assert self.process.poll() is None, self.log.read_text()
            return condition()

        wait_for(go_on, self.log.read_text)

    def end(self, seconds: float = 300) -> str:
        """What it wrote to standard error, once it has ended."""
        try:
            self.process.wait(seconds)
        finally:
            self.process.kill()
        return self.log.read_text()

    def finish(self) -> str:
        """The same, of a build that must succeed."""
        errors = self.end()
        assert self.process.returncode == 0, errors
        return errors


@pytest.fixture
def start_build(tmp_path: Path) -> Iterator[Callable[..., Build]]:
    """build(list, output, *options) -> Build; what still runs is killed in the end."""
    started: list[Build] = []

    def start(source: str | Path, output: str | Path, *more: str, **how: Any) -> Build:
        log = tmp_path / f"build-{len(started)}.log"
        started.append(Build(log, source, output, *more, **how))
        return started[-1]

    yield start
    for build in started:
        build.process.kill()
        build.process.wait()


@pytest.fixture(scope="session")
def embedded(photo_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo site's dataset as the embedded runner builds it."""
    directory = tmp_path_factory.mktemp("embedded")
    output = directory / "set"
    Build(directory / "log", photo_site.list, output, "--crawlers", "1").finish()
    return output


class Store:
    """versitygw, a real S3 server; the folder ``bucket`` is its one bucket's content."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.port = directory, free_port()
        self.bucket = directory / "root" / "bucket"
        self.bucket.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        keys = {"ROOT_ACCESS_KEY": "key", "ROOT_SECRET_KEY": "secret-secret"}
        address = f"127.0.0.1:{self.port}"
        self.service = Service(
            self._directory / "versitygw.log",
            self.port,
            [go_tool("versitygw"), "--port", address, "posix", self.bucket.parent],
            env=os.environ | keys,
        )

    def put(self, name: str, path: Path) -> None:
        """Uploads a file: one that is only copied into the folder is no object."""
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="key",
            aws_secret_access_key="secret-secret",
            region_name="us-east-1",
        )
        client.upload_file(str(path), "bucket", name)

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What boto3 and tensorflow-io read of the environment."""
        address = f"127.0.0.1:{port or self.port}"
        return os.environ | {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "S3_ENDPOINT": f"http://{address}",
            "S3_USE_HTTPS": "0",
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    running = Store(tmp_path)
    yield running
    running.service.kill()
    s3.client.cache_clear()  # this process may have asked it
