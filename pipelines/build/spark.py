"""A Spark cluster, by the REST interface of its master, and Beam's client of that."""

from dataclasses import dataclass
from typing import Any, Self

from apache_beam.options.pipeline_options import PipelineOptions, SparkRunnerOptions
from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.runners.portability.spark_uber_jar_job_server import (
    SparkBeamJob,
    SparkUberJarJobServer,
)

from pipelines.build.cluster import Cluster, JobState, NoAnswerError, RemoteJob, rest, with_scheme
from pipelines.command.cli import UsageError

_STATES = {
    "FINISHED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "ERROR": JobState.FAILED,
    "KILLED": JobState.CANCELLED,
}
# Java 17 keeps these from Spark's and Beam's serializers.
_OPENED = ("java.lang", "java.lang.invoke", "java.nio", "java.util", "sun.nio.ch")


class StorageOptions(PipelineOptions):
    """What Beam's Python has no option for, and its Spark runner needs."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--storage_level",
            help="Spark's, for what two stages read; not given, Beam's Spark runner fails there",
        )


@dataclass(frozen=True)
class Spark(Cluster):
    """A standalone Spark cluster. ``address`` is that of its master's REST server."""

    kind = "spark"

    @classmethod
    def of(cls, beam: PipelineOptions) -> Self | None:
        """The cluster of --spark_rest_url, where the job goes there."""
        options = beam.view_as(SparkRunnerOptions)
        if not (options.spark_submit_uber_jar and options.spark_rest_url):
            return None
        return cls(with_scheme(options.spark_rest_url))

    def state(self, job: RemoteJob) -> JobState:
        """Raises NoAnswerError."""
        state = self._status(job).get("driverState")
        return _STATES.get(state, JobState.RUNS) if state else JobState.UNKNOWN

    def cancel(self, job: RemoteJob) -> None:
        """Raises NoAnswerError."""
        rest("POST", f"{self.address}/v1/submissions/kill/{job.id}")

    def how_to_stop(self, job: RemoteJob) -> str:
        """What a person does who wants the job to end."""
        return f"curl -X POST {self.address}/v1/submissions/kill/{job.id or 'ID'}"

    def why(self, job: RemoteJob) -> str:
        """Where to look: the master knows no reason."""
        try:
            status = self._status(job)
        except NoAnswerError:
            return ""
        where = f"its driver's stderr on worker {status.get('workerHostPort', '?')} says why"
        return str(status.get("message") or where)

    def refuse_wrong_start(self, crawlers: int) -> None:
        """Raises UsageError where no master answers."""
        try:
            # To a question without a version it answers 400, and its version.
            rest("GET", f"{self.address}/v1/submissions/status/none", may_be=(400, 404))
        except NoAnswerError as error:
            raise UsageError(
                f"no Spark master answers at {self.address} ({error}): is --spark_rest_url right, "
                "and spark.master.rest.enabled true?"
            ) from None

    def _status(self, job: RemoteJob) -> dict[str, Any]:
        found = rest("GET", f"{self.address}/v1/submissions/status/{job.id}", may_be=(404,))
        return found or {}


class UberJarSparkRunner(SparkRunner):
    """Beam's, whose jobs get the properties of Spark that a build needs."""

    def __init__(self, crawlers: int) -> None:
        super().__init__()
        self._properties = properties(crawlers)

    def default_job_server(self, options: PipelineOptions) -> Any:
        """Stands for Beam's."""
        url = with_scheme(options.view_as(SparkRunnerOptions).spark_rest_url)
        return _Server(url, options, self._properties)


def properties(crawlers: int) -> dict[str, str]:
    """Of a job with so many crawlers."""
    opens = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED)
    return {
        "spark.default.parallelism": str(crawlers),  # else half of the crawlers wait for others
        "spark.driver.extraJavaOptions": opens,
        "spark.executor.extraJavaOptions": opens,
        # A second attempt at a crawler would ask all of its hosts again.
        "spark.task.maxFailures": "1",
        "spark.speculation": "false",
    }


class _Server(SparkUberJarJobServer):
    def __init__(self, url: str, options: PipelineOptions, more: dict[str, str]) -> None:
        super().__init__(url, options)
        self._more = more

    def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> Any:
        job = _Job(
            *(self._rest_url, self.executable_jar(), job_id, job_name, pipeline, options),
            artifact_port=self._artifact_port,
        )
        job.more = self._more
        return job


class _Job(SparkBeamJob):
    more: dict[str, str]

    def _create_submission_request(self, jar: str, job_name: str) -> Any:
        request = super()._create_submission_request(jar, job_name)
        request["sparkProperties"] |= self.more
        return request
