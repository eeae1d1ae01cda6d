import logging

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf.json_format import MessageToDict

from pipelines.build import job_service, runner
from pipelines.build.engine import Engine
from pipelines.command.cli import UsageError, WorkError

STACK = "org.apache.flink.runtime.JobException: it failed\n\tat org.apache.flink.A.b(A.java:180)"


def test_a_job_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_service, "_ANSWERS_AT_FIRST_S", 0.1)
    engine = Engine.of("PortableRunner", ["--job_endpoint=127.0.0.1:1"])
    with pytest.raises(UsageError, match=r"no job service answers at 127.0.0.1:1"):
        engine.refuse_wrong_start(1)
    with pytest.raises(WorkError, match=r"no job service answers at 127.0.0.1:1"):
        runner.run(beam.Create([1]), engine, 1)


def test_a_worker_process_gets_beams_options_as_they_were_given() -> None:
    given = PipelineOptions(["--s3_disable_ssl", "--direct_num_workers=2", "--experiments=x"])
    sent = MessageToDict(runner._provision(given).provision_info.pipeline_options)
    read = PipelineOptions.from_dictionary(sent)
    assert read.get_all_options(drop_default=True) == given.get_all_options(drop_default=True)


@pytest.mark.parametrize(
    ("error", "is_logged"), [(KeyError("a bug"), True), (WorkError("told in one line"), False)]
)
def test_a_traceback_of_beams_is_logged_of_a_bug_alone(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    runner._quiet_beam()
    logging.getLogger("apache_beam.runners.common").error("it failed", exc_info=error)
    assert ("it failed" in caplog.text) is is_logged


@pytest.mark.parametrize("is_verbose", [False, True])
def test_stacks_of_a_cluster_are_logged_where_they_are_asked_for(
    is_verbose: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner._quiet_beam()
    caplog.set_level(logging.DEBUG if is_verbose else logging.INFO, "pipelines")
    record = logging.LogRecord("root", logging.ERROR, "portable_runner.py", 1, STACK, (), None)
    logging.getLogger().handle(record)
    assert ("JobException" in caplog.text) is is_verbose
