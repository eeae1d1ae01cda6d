"""The command on stand-ins of clusters: what its user sees of a job there."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.masters import FlinkMaster, job_server_jar

pytestmark = pytest.mark.slow

StartBuild = Callable[..., Any]


@pytest.fixture
def flink() -> Iterator[FlinkMaster]:
    running = FlinkMaster()
    yield running
    running.close()


def options(flink: FlinkMaster, directory: Path) -> list[str]:
    jar = job_server_jar(directory / "job-server.jar")
    return [
        *("--runner", "flink", "--crawlers", "2", "--parallelism=2"),
        *(f"--flink_master={flink.url}", f"--flink_job_server_jar={jar}"),
    ]


def write_list(directory: Path) -> Path:
    path = directory / "list.txt"
    path.write_text("n01440764_1\thttp://127.0.0.1:9/1.jpg\n")
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_flink_job_and_ends_with_status_3(
    number: signal.Signals, flink: FlinkMaster, start_build: StartBuild, tmp_path: Path
) -> None:
    build = start_build(write_list(tmp_path), tmp_path / "set", *options(flink, tmp_path))
    build.wait_for(lambda: flink.states and "runs at" in build.log.read_text())
    build.process.send_signal(number)
    errors = build.end()
    assert build.process.returncode == 3
    assert errors.splitlines()[-1] == "interrupted: the same command goes on from here"
    (job,) = flink.states
    assert flink.asked.count(f"PATCH /v1/jobs/{job}?mode=cancel") == 1
    assert flink.states[job] == "CANCELED"


def test_a_job_cancelled_on_flinks_page_ends_the_driver_with_one_line(
    flink: FlinkMaster, start_build: StartBuild, tmp_path: Path
) -> None:
    flink.begun = lambda job: flink.states.update({job: "CANCELED"})
    build = start_build(write_list(tmp_path), tmp_path / "set", *options(flink, tmp_path))
    errors = build.end()
    assert build.process.returncode == 3
    (job,) = flink.states
    assert errors.splitlines()[-1] == (
        f"interrupted: job {job} at {flink.url} was cancelled from outside; the same command goes "
        "on from there"
    )


def test_a_dead_master_is_one_line_before_any_work(
    flink: FlinkMaster, start_build: StartBuild, tmp_path: Path
) -> None:
    flink.close()
    build = start_build("s3://bucket/list", "s3://bucket/set", *options(flink, tmp_path))
    errors = build.end()
    assert build.process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith(f"error: no Flink answers at {flink.url} (Connection refused): ")
