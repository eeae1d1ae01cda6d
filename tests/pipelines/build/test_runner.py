import logging

import apache_beam as beam
import pytest
from apache_beam.io.aws.clients.s3.messages import S3ClientError

from pipelines.build import job_service, runner
from pipelines.build.engine import Engine
from pipelines.build.runner import reason
from pipelines.command.cli import UsageError, WorkError


def while_handling(cause: Exception, error: Exception) -> Exception:
    error.__context__ = cause
    return error


TRACEBACK = """bundle inst002 failed:Traceback (most recent call last):
  File "common.py", line 1512, in process
    yield from self.read()
pipelines.command.cli.WorkError: the decoder cannot start: status 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 310, in _execute
    response = task()
               ^^^^^^
pipelines.command.cli.WorkError: the decoder cannot start: status 1 [while running 'Crawl']
"""


FLINK = f"""org.apache.flink.runtime.JobException: Recovery is suppressed by NoRestartBackoff
\tat org.apache.flink.runtime.executiongraph.failover.ExecutionFailureHandler.handle(E.java:180)
Caused by: java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from
SDK harness for instruction 5: {TRACEBACK}
\tat java.base/java.util.concurrent.CompletableFuture.get(CompletableFuture.java:2022)
Caused by: java.lang.RuntimeException: Error received from SDK harness for 5: {TRACEBACK}
\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient$Response.handle(F.java:180)
\t... 1 more
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(FLINK), "the decoder cannot start: status 1"),
        (RuntimeError(TRACEBACK), "the decoder cannot start: status 1"),
        (
            RuntimeError(
                "Error: Traceback (most recent call last):\n  File a\n"
                "ModuleNotFoundError: No module named 'pipelines'\n\tat org.A.b(A.java:1)"
            ),
            "the workers lack the package: build their image with it (deploy/README.md, Workers), "
            "or send it with --setup_file=./setup.py",
        ),
        (RuntimeError("worker\ndisconnected"), "worker disconnected"),
        (RuntimeError("Pipeline job-1[job] failed in state FAILED: it broke"), "it broke"),
        (
            RuntimeError('<RPC that terminated with:\n\tdetails = "Socket closed"\n>'),
            'the job service lost a worker ("Socket closed")',
        ),
        (RuntimeError(), "RuntimeError()"),
        (S3ClientError("no route [while running 'Crawl']", None), "no route"),
        (while_handling(KeyError("photo"), AttributeError("a bug")), "a bug"),
    ],
)
def test_a_jobs_failure_in_one_line(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_a_job_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_service, "_ANSWERS_AT_FIRST_S", 0.1)
    engine = Engine.of("PortableRunner", ["--job_endpoint=127.0.0.1:1"])
    with pytest.raises(UsageError, match=r"no job service answers at 127.0.0.1:1"):
        engine.refuse_wrong_start(1)
    with pytest.raises(WorkError, match=r"no job service answers at 127.0.0.1:1"):
        runner.run(beam.Create([1]), engine, 1)


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
    record = logging.LogRecord("root", logging.ERROR, "portable_runner.py", 1, FLINK, (), None)
    logging.getLogger().handle(record)
    assert ("Recovery is suppressed" in caplog.text) is is_verbose
