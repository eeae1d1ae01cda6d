from collections.abc import Iterator

import pytest

from pipelines.build.cluster import JobState, RemoteJob
from pipelines.build.engine import Engine
from pipelines.command.cli import UsageError
from tests.support.masters import SparkMaster


@pytest.fixture
def master() -> Iterator[SparkMaster]:
    running = SparkMaster()
    yield running
    running.close()


def engine(url: str) -> Engine:
    return Engine.of("SparkRunner", ["--spark_submit_uber_jar", f"--spark_rest_url={url}"])


def test_a_master_may_be_named_without_its_scheme(master: SparkMaster) -> None:
    spark = engine(f"127.0.0.1:{master.port}/").cluster
    assert spark and spark.address == master.url


def test_states_and_a_kill(master: SparkMaster) -> None:
    spark = engine(master.url).cluster
    assert spark
    for state, meant in (
        ("SUBMITTED", JobState.RUNS),
        ("RELAUNCHING", JobState.RUNS),
        ("FINISHED", JobState.DONE),
        ("ERROR", JobState.FAILED),
        ("KILLED", JobState.CANCELLED),
    ):
        master.states["driver-1"] = state
        assert spark.state(RemoteJob("", "driver-1")) is meant
    assert spark.state(RemoteJob("", "driver-2")) is JobState.UNKNOWN
    master.states["driver-1"] = "RUNNING"
    assert spark.stop(RemoteJob("", "driver-1"))
    assert master.states["driver-1"] == "KILLED"


def test_a_master_that_is_not_there_is_one_line(master: SparkMaster) -> None:
    engine(master.url).refuse_wrong_start(1)
    master.close()
    with pytest.raises(UsageError, match=r"no Spark master answers at .* \(Connection refused\)"):
        engine(master.url).refuse_wrong_start(1)
