"""Servers beside the tests: a portable Beam cluster and an S3 store, from `go install`."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.build import wait_for

POOL = "apache_beam.runners.worker.worker_pool_main"


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
