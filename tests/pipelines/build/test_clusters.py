"""Whole builds on stand-ins of clusters, in this process."""

import gc
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.build import cluster
from pipelines.build.build import build
from pipelines.build.engine import Engine
from pipelines.build.watch import Event
from pipelines.command.cli import Interrupted, UsageError, WorkError
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from tests.support.masters import FlinkMaster, SparkMaster, job_server_jar

pytestmark = pytest.mark.slow

STACK = """org.apache.flink.runtime.JobException: Recovery is suppressed by NoRestartBackoff
\tat org.apache.flink.runtime.executiongraph.failover.ExecutionFailureHandler.handle(E.java:180)
Caused by: java.util.concurrent.TimeoutException: Heartbeat of TaskManager with id 10.0.0.7 is late.
\tat org.apache.flink.runtime.jobmaster.JobMaster.notifyHeartbeatTimeout(JobMaster.java:1532)
\t... 31 more
"""

# Ctrl-C in the midst of a connection's making leaves the socket to the collector.
interrupted = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves to the collector is not collected in another test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_POLL_S", 0.02)
    monkeypatch.setattr(cluster, "_APPEARS_S", 0.05)


@pytest.fixture
def flink() -> Iterator[FlinkMaster]:
    running = FlinkMaster()
    yield running
    running.close()


@pytest.fixture
def spark() -> Iterator[SparkMaster]:
    running = SparkMaster()
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "set"))


Start = Callable[[Any], None]


@pytest.fixture
def start(folder: DatasetFolder, tmp_path: Path) -> Start:
    """Builds one picture on a stand-in."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (300, 300)).save(pictures / "a.png")
    jar = job_server_jar(tmp_path / "job-server.jar")

    def start(master: FlinkMaster | SparkMaster) -> None:
        flags = ["--environment_type=EXTERNAL", "--environment_config=localhost:1"]
        if isinstance(master, FlinkMaster):
            runner = "FlinkRunner"
            flags += ["--flink_submit_uber_jar", f"--flink_master={master.url}"]
            flags += [f"--flink_job_server_jar={jar}"]
        else:
            runner = "SparkRunner"
            flags += ["--spark_submit_uber_jar", f"--spark_rest_url={master.url}"]
            flags += [f"--spark_job_server_jar={jar}", "--storage_level=MEMORY_AND_DISK"]
        engine = Engine.of(runner, flags, silence_s=1000)
        source = Source(str(pictures), is_folder=True)
        build(folder, DatasetOptions(), CrawlOptions(crawlers=2), source, engine)

    return start


def lease(folder: DatasetFolder) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path(folder.path("lease.json")).read_text())
    return values


def interrupt(_: str) -> None:
    """Ctrl-C, once the driver waits."""
    main = threading.main_thread().ident or 0
    threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()


@interrupted
def test_interrupted_a_job_is_cancelled_as_flink_understands_it(
    flink: FlinkMaster, start: Start, folder: DatasetFolder
) -> None:
    flink.begun = interrupt
    with pytest.raises(KeyboardInterrupt):
        start(flink)
    assert list(flink.states.values()) == ["CANCELED"]
    assert not Path(folder.path("lease.json")).exists()


@interrupted
def test_interrupted_a_job_is_killed_on_spark(
    spark: SparkMaster, start: Start, folder: DatasetFolder
) -> None:
    spark.begun = interrupt
    with pytest.raises(KeyboardInterrupt):
        start(spark)
    assert list(spark.states.values()) == ["KILLED"]
    assert not Path(folder.path("lease.json")).exists()


@interrupted
def test_interrupted_while_it_is_submitted_a_job_is_found_by_its_name(
    flink: FlinkMaster, start: Start
) -> None:
    def interrupt_now(job: str) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        threading.Event().wait(0.05)

    flink.begun = interrupt_now
    with pytest.raises(KeyboardInterrupt):
        start(flink)
    assert list(flink.states.values()) == ["CANCELED"]
    assert next(iter(flink.names.values())).startswith("superres-")


@interrupted
def test_a_job_that_does_not_stop_is_told_and_no_second_one_begins_beside_it(
    flink: FlinkMaster, start: Start, folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    flink.begun, flink.obeys = interrupt, False
    with monkeypatch.context() as hasty, pytest.raises(Interrupted) as told:
        hasty.setattr(cluster, "_STOPS_S", 0.3)
        start(flink)
    (job,) = flink.states
    command = f"curl -X PATCH '{flink.url}/v1/jobs/{job}?mode=cancel'"
    assert f"job {job} was not seen to stop at {flink.url} and may still run: {command}" in str(
        told.value
    )
    assert lease(folder)["remembered"] == {
        "cluster": "flink",
        "address": flink.url,
        "name": flink.names[job],
        "id": job,
    }
    with pytest.raises(UsageError, match=f"job {job} of an earlier run still runs at {flink.url}"):
        start(flink)
    assert list(flink.states) == [job]
    # Seen to have ended, the folder is free at once.
    flink.states[job], flink.obeys = "CANCELED", True
    with pytest.raises(KeyboardInterrupt):
        start(flink)
    assert len(flink.states) == 2


def test_silence_cancels_as_well(
    flink: FlinkMaster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = Event("no worker has done anything", is_failure=True)
    tick = "pipelines.build.watch.Watch.tick"
    monkeypatch.setattr(tick, lambda *_: [silence] if flink.states else [])
    with pytest.raises(WorkError, match="no worker has done anything"):
        start(flink)
    assert list(flink.states.values()) == ["CANCELED"]


@pytest.mark.parametrize("kind", ["flink", "spark"])
def test_cancelled_from_outside_is_an_answer(
    kind: str, start: Start, request: pytest.FixtureRequest, folder: DatasetFolder
) -> None:
    master = request.getfixturevalue(kind)
    ended = "CANCELED" if kind == "flink" else "KILLED"
    master.begun = lambda job: master.states.update({job: ended})
    with pytest.raises(Interrupted, match=f"at {master.url} was cancelled from outside; the same"):
        start(master)
    assert len(master.states) == 1
    assert not Path(folder.path("lease.json")).exists()


@pytest.mark.parametrize("ended", ["FAILED", "CANCELED"])
def test_a_job_that_ends_badly_after_its_last_file_is_complete(
    flink: FlinkMaster,
    start: Start,
    folder: DatasetFolder,
    photo_dataset: Path,
    ended: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    def end(job: str) -> None:
        manifest = (photo_dataset / "dataset.json").read_bytes()
        folder.publish_bytes(folder.manifest, manifest)
        flink.states[job] = ended

    flink.begun = end
    start(flink)
    assert len(flink.states) == 1
    assert "examples: train" in caplog.text


def test_a_failed_jobs_line_has_the_root_cause_and_the_job(
    flink: FlinkMaster, start: Start
) -> None:
    flink.failure = STACK
    flink.begun = lambda job: flink.states.update({job: "FAILED"})
    with pytest.raises(WorkError) as told:
        start(flink)
    (job,) = flink.states
    assert str(told.value) == (
        "java.util.concurrent.TimeoutException: Heartbeat of TaskManager with id 10.0.0.7 is "
        f"late. (job {job} at {flink.url}); what is fetched is kept: the same command goes on from "
        "there"
    )
    assert len(f"failed: {told.value}") <= 300


@interrupted
def test_a_job_that_got_something_done_is_submitted_to_the_same_cluster_again(
    flink: FlinkMaster, start: Start, folder: DatasetFolder
) -> None:
    def fail_once(job: str) -> None:
        if len(flink.states) == 1:
            folder.publish_bytes(folder.new_attempt("train-00000-of-00016").table, b"")
            flink.states[job] = "FAILED"
        else:
            interrupt(job)

    flink.begun = fail_once
    with pytest.raises(KeyboardInterrupt):
        start(flink)
    assert list(flink.states.values()) == ["FAILED", "CANCELED"]


@interrupted
def test_a_connection_that_breaks_is_not_the_end_of_the_job(
    flink: FlinkMaster, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    answer, broken = flink.answer, []

    def break_twice(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "GET" and path.startswith("/v1/jobs/0") and len(broken) < 2:
            broken.append(path)
            return 503, None
        if len(broken) == 2:
            interrupt(path)
            broken.append("")
        return answer(method, path, body)

    flink.answer = break_twice  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        start(flink)
    assert len(flink.states) == 1
    assert f"{flink.url} does not answer (HTTP status 503): asked again" in caplog.text


@interrupted
def test_spark_gets_the_properties_that_a_build_needs(spark: SparkMaster, start: Start) -> None:
    spark.begun = interrupt
    with pytest.raises(KeyboardInterrupt):
        start(spark)
    (given,) = spark.properties
    assert given["spark.default.parallelism"] == "2"
    for of in ("driver", "executor"):
        opens = given[f"spark.{of}.extraJavaOptions"]
        assert "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED" in opens
