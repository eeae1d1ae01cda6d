import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pipelines.build.cluster import JobState, NoAnswerError, RemoteJob
from pipelines.build.engine import Engine
from pipelines.command.cli import UsageError
from tests.support.masters import FlinkMaster


@pytest.fixture
def master() -> Iterator[FlinkMaster]:
    running = FlinkMaster()
    yield running
    running.close()


def engine(master: str, *flags: str) -> Engine:
    return Engine.of("FlinkRunner", [f"--flink_master={master}", *flags])


def test_a_master_may_be_named_without_its_scheme(master: FlinkMaster) -> None:
    flink = engine(f"127.0.0.1:{master.port}/").cluster
    assert flink and flink.address == master.url


def test_a_cluster_that_beam_starts_itself_cannot_be_asked() -> None:
    assert engine("[auto]").cluster is None
    assert Engine.of("FlinkRunner").cluster is None


def test_a_master_that_is_not_there_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UsageError) as told:
        engine(f"127.0.0.1:{port}").refuse_wrong_start(1)
    assert str(told.value).startswith(
        f"no Flink answers at http://127.0.0.1:{port} (Connection refused): is --flink_master right"
    )


def test_what_answers_may_be_no_flink(master: FlinkMaster) -> None:
    with pytest.raises(UsageError, match=r"no Flink answers at .* \(HTTP status 404\)"):
        engine(f"{master.url}/other").refuse_wrong_start(1)


def test_more_crawlers_than_run_at_once_are_refused(master: FlinkMaster) -> None:
    with pytest.raises(UsageError, match="--crawlers 3 is more than --parallelism 2"):
        engine(master.url, "--parallelism=2").refuse_wrong_start(3)
    engine(master.url, "--parallelism=2").refuse_wrong_start(2)


@pytest.mark.parametrize(
    ("version", "jar", "said"),
    [
        ("1.18.1", "", "is Flink 1.18, and Beam runs on 1.19, "),
        ("2.0.0", "beam-runners-flink-1.20-job-server-2.77.0.jar", "is for 1.20"),
    ],
)
def test_versions_that_do_not_fit(master: FlinkMaster, version: str, jar: str, said: str) -> None:
    master.version = version
    flags = [f"--flink_job_server_jar={jar}"] if jar else []
    with pytest.raises(UsageError) as told:
        engine(master.url, *flags).refuse_wrong_start(1)
    assert said in str(told.value)


def test_what_makes_jobs_wait_is_told(
    master: FlinkMaster, caplog: pytest.LogCaptureFixture
) -> None:
    engine(master.url, "--parallelism=2").refuse_wrong_start(2)
    assert caplog.text == ""
    master.managers = ["10.0.0.7:41131-a1", "10.0.0.7:41132-b2", "10.0.0.8:41131-c3"]
    master.add("another")
    engine(master.url, "--parallelism=8").refuse_wrong_start(2)
    assert "has 2 task slots, fewer than --parallelism 8" in caplog.text
    assert "1 other job(s) run at" in caplog.text
    assert "2 TaskManagers are on 10.0.0.7: each needs a worker pool of its own" in caplog.text


@pytest.mark.parametrize(
    ("managers", "pool", "here"),
    [
        (["localhost:41131-5f2a1c"], "localhost:50000", True),
        (["localhost:41131-5f2a1c"], "10.0.0.9:50000", False),
        # The near end of a port-forward is no cluster of this machine.
        (["192.0.2.7:41131-5f2a1c"], "localhost:50000", False),
        (["localhost:41131-5f2a1c", "192.0.2.7:41131-1"], "localhost:50000", False),
        ([], "localhost:50000", False),
    ],
)
def test_local_paths_are_for_task_managers_of_this_machine(
    master: FlinkMaster, managers: list[str], pool: str, here: bool
) -> None:
    master.managers = managers
    flink = engine(master.url, "--environment_type=EXTERNAL", f"--environment_config={pool}")
    if here:
        flink.refuse_local_paths("list")
    else:
        with pytest.raises(UsageError, match="list is local"):
            flink.refuse_local_paths("list")


def test_a_job_that_appears_between_two_questions_runs() -> None:
    class Late(FlinkMaster):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            answered = super().answer(method, path, body)
            if not self.states:
                self.add("late")
            return answered

    with closing(Late()) as master:
        flink = engine(master.url).cluster
        assert flink
        assert flink.state(RemoteJob("late")) is JobState.UNKNOWN
        assert flink.state(RemoteJob("late")) is JobState.RUNS


def test_states(master: FlinkMaster) -> None:
    flink = engine(master.url).cluster
    assert flink
    for state, meant in (
        ("CREATED", JobState.RUNS),
        ("CANCELLING", JobState.RUNS),
        ("FINISHED", JobState.DONE),
        ("FAILED", JobState.FAILED),
        ("CANCELED", JobState.CANCELLED),
    ):
        job = master.add(f"job {state}", state)
        assert flink.state(RemoteJob("", job)) is meant
        assert flink.state(RemoteJob(f"job {state}")) is meant
    assert flink.state(RemoteJob("none")) is JobState.UNKNOWN
    assert flink.state(RemoteJob("", "f" * 32)) is JobState.UNKNOWN
    master.close()
    with pytest.raises(NoAnswerError):
        flink.state(RemoteJob("", job))
