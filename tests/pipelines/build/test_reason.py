import pytest
from apache_beam.io.aws.clients.s3.messages import S3ClientError

from pipelines.build.reason import reason


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
