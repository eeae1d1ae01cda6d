"""Beam's job service: Prism, or the job server of another runner."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipelines.build.cluster import ANSWERS_S, Cluster, JobState, NoAnswerError, RemoteJob
from pipelines.build.engine import is_loopback
from pipelines.command.cli import UsageError

_ANSWERS_AT_FIRST_S = 60.0
_STATES = {
    beam_job_api_pb2.JobState.DONE: JobState.DONE,
    beam_job_api_pb2.JobState.DRAINED: JobState.DONE,
    beam_job_api_pb2.JobState.FAILED: JobState.FAILED,
    beam_job_api_pb2.JobState.CANCELLED: JobState.CANCELLED,
}
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class JobService(Cluster):
    """Whatever cluster is behind a job service. ``address`` is host:port."""

    kind = "job service"

    @classmethod
    def of(cls, beam: PipelineOptions) -> Self | None:
        """The service of --job_endpoint, where the options name one."""
        endpoint = beam.view_as(PortableOptions).job_endpoint or ""
        return cls(endpoint) if ":" in endpoint else None  # else Beam's own, in this process

    @property
    def is_here(self) -> bool:
        """Whether it is reached by loopback: no service tells where its workers are."""
        return is_loopback(self.address)

    def refuse_wrong_start(self, crawlers: int) -> None:
        """Raises UsageError where no job service answers."""
        if not answers(self.address):
            raise UsageError(
                f"no job service answers at {self.address} within {_ANSWERS_AT_FIRST_S:.0f} s: "
                "is --job_endpoint right?"
            )

    def state(self, job: RemoteJob) -> JobState:
        """Raises NoAnswerError."""
        if not job.id:
            return JobState.UNKNOWN
        try:
            answer = self._ask("GetState", beam_job_api_pb2.GetJobStateRequest(job_id=job.id))
        except LookupError:
            return JobState.UNKNOWN
        return _STATES.get(answer.state, JobState.RUNS)

    def cancel(self, job: RemoteJob) -> None:
        """Raises NoAnswerError."""
        with suppress(LookupError):  # it has just ended, and the service has forgotten it
            self._ask("Cancel", beam_job_api_pb2.CancelJobRequest(job_id=job.id))

    def how_to_stop(self, job: RemoteJob) -> str:
        """What a person does who wants the job to end."""
        return "cancel it there, or end its workers"

    def _ask(self, method: str, request: Any) -> Any:
        """Raises NoAnswerError, or LookupError where the service does not know the job."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                service = beam_job_api_pb2_grpc.JobServiceStub(channel)
                return getattr(service, method)(request, timeout=ANSWERS_S)
            except grpc.RpcError as error:
                if error.code() in _LOST:
                    raise NoAnswerError(str(error.details())) from error
                raise LookupError(str(error.details())) from error


def answers(endpoint: str) -> bool:
    """Whether a job service is there."""
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(_ANSWERS_AT_FIRST_S)
        except grpc.FutureTimeoutError:
            return False
    return True
