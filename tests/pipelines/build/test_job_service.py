from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipelines.build.cluster import RemoteJob
from pipelines.build.job_service import JobService


class EndedMeanwhile(beam_job_api_pb2_grpc.JobServiceServicer):
    """Its job ends between the question for its state and the request to cancel it."""

    state = beam_job_api_pb2.JobState.RUNNING

    def GetState(self, request: Any, context: Any) -> Any:
        return beam_job_api_pb2.JobStateEvent(state=self.state)

    def Cancel(self, request: Any, context: Any) -> Any:
        self.state = beam_job_api_pb2.JobState.DONE
        context.abort(grpc.StatusCode.NOT_FOUND, "no such job")


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(EndedMeanwhile(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_job_that_ends_while_it_is_cancelled_has_ended(address: str) -> None:
    assert JobService(address).stop(RemoteJob("name", "id"))
