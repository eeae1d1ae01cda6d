"""Runs a graph on a cluster, and leaves no job there that nobody follows."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.runner import PipelineState

from pipelines.build.cluster import Cluster, JobState, RemoteJob
from pipelines.build.job_service import JobService
from pipelines.build.reason import reason
from pipelines.build.spark import Spark
from pipelines.command.cli import Interrupted, WorkError

_logger = logging.getLogger(__name__)
_LONGEST_REASON = 140  # with the job's address and what is to be done a line of 300
_CANCEL_S = 5.0  # an interruption has to end within 10 s


class JobFailedError(Exception):
    """A job on a cluster failed: why, and which, in one line."""


def run_there(
    cluster: Cluster, graph: beam.Pipeline, note: Callable[[RemoteJob | None], None]
) -> None:
    """Runs a graph on a cluster; the rest as in runner.run."""
    job = RemoteJob(graph.options.view_as(GoogleCloudOptions).job_name)
    note(job)
    result = None
    try:
        result = graph.run()
        job = replace(job, id=_id(result, cluster), is_submitted=True)
        note(job)
        _logger.info("%s runs at %s", job, cluster.address)
        state = _end(cluster, job, result)
    except BaseException as error:
        _stop(cluster, job, result, error)
        note(None)
        raise
    note(None)
    _forget_jar(result)
    if state is JobState.CANCELLED:
        raise Interrupted(
            f"{job} at {cluster.address} was cancelled from outside; the same command goes on from "
            "there"
        )
    if state is JobState.UNKNOWN:
        raise JobFailedError(f"{cluster.address} has lost {job}: was it started again?")
    if state is JobState.FAILED:
        raise _failed(cluster, job, RuntimeError(cluster.why(job) or "no reason is known"))


def _end(cluster: Cluster, job: RemoteJob, result: Any) -> JobState:
    """How the job ended."""
    if _submitted(result):
        # Beam's clients for jars take every broken connection for the job's end.
        return cluster.wait(job)
    try:
        result.wait_until_finish()
    except RuntimeError as error:
        if result._state == PipelineState.CANCELLED:
            return JobState.CANCELLED
        raise _failed(cluster, job, error) from error
    return JobState.DONE


def _failed(cluster: Cluster, job: RemoteJob, error: RuntimeError) -> JobFailedError:
    _logger.debug("%s failed: %s", job, error)
    why = reason(error)
    if len(why) > _LONGEST_REASON:
        why = f"{why[:_LONGEST_REASON]}…"
    failed = JobFailedError(f"{why} ({job} at {cluster.address})")
    failed.__cause__ = error
    return failed


def _stop(cluster: Cluster, job: RemoteJob, result: Any, error: BaseException) -> None:
    """Sees to it that a job that nobody follows any more does not run on.

    Raises in place of the error where that cannot be seen.
    """
    is_lost = isinstance(error, grpc.RpcError)
    if result is not None and not job.id:  # a job server lies in between
        cancel(result)
    if cluster.stop(job, _CANCEL_S if is_lost else None):
        return
    text = cluster.not_stopped(job)
    if isinstance(error, KeyboardInterrupt):
        raise Interrupted(text) from None
    raise WorkError(f"{reason(error)}; {text}") from error


def _submitted(result: Any) -> Any:
    """Beam's record of a job that went to the cluster as a jar; None for any other."""
    return getattr(result._job_service, "_jobs", {}).get(result._job_id)


def _id(result: Any, cluster: Cluster) -> str:
    """The cluster's name of a job; empty where a job server keeps it for itself."""
    if isinstance(cluster, JobService):
        return str(result._job_id)
    name = "_spark_submission_id" if isinstance(cluster, Spark) else "_flink_job_id"
    return str(getattr(_submitted(result), name, ""))


def _forget_jar(result: Any) -> None:
    with suppress(Exception):  # it is only in the way
        _submitted(result).delete_jar()


def cancel(result: Any) -> bool:
    """Whether the job is known to be cancelled."""
    cancelled = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            result.cancel()
            cancelled.set()

    threading.Thread(target=ask, name="cancel", daemon=True).start()
    return cancelled.wait(_CANCEL_S)
