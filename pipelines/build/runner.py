"""Runs a graph to its end on an engine, and says in one line why it failed."""

import copy
import itertools
import logging
import os
import re
import shlex
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.runner import PipelineState
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.build.cluster import Cluster, JobState, RemoteJob
from pipelines.build.engine import LOOPBACK, Engine
from pipelines.build.interruption import WORKER
from pipelines.build.job_service import JobService, answers
from pipelines.build.spark import Spark, UberJarSparkRunner
from pipelines.command.cli import Interrupted, WorkError
from pipelines.command.machine import machine_reason
from pipelines.dataset.folder import is_store_error, store_reason, tells_of_no_space

_logger = logging.getLogger(__name__)
_FORMATTER = logging.Formatter()
_TOLD = f"{WorkError.__module__}.{WorkError.__qualname__}: "
_LONGEST_REASON = 140  # with the job's address and what is to be done a line of 300
_CANCEL_S = 5.0  # an interruption has to end within 10 s
_NO_GRPC_PROXY, _NO_PROXY = "no_grpc_proxy", "no_proxy"
_TRACEBACK, _CAUSED_BY = "Traceback (most recent call last):", "Caused by: "
_NO_CODE = "No module named 'pipelines'"
_CODE_IS_MISSING = (
    "the workers lack the package: build their image with it (deploy/README.md, Workers), or send "
    "it with --setup_file=./setup.py"
)
_AROUND = re.compile(
    r" \[while running .*\]$|^pipelines\.command\.cli\.\w+: |^Pipeline \S+ failed in state \w+: "
)
_EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*: .+")


class JobFailedError(Exception):
    """A job on a cluster failed: why, and which, in one line."""


def run(
    transform: beam.PTransform,
    engine: Engine,
    crawlers: int,
    note: Callable[[RemoteJob | None], None] = lambda job: None,
) -> None:
    """Runs a graph to its end; broken off, its job is cancelled.

    ``note`` is told of a job on a cluster before it may run, and by None when it is seen to have
    ended. Raises what the runner raises where the job failed, JobFailedError where that was on a
    cluster, Interrupted where others have cancelled it, and WorkError where it may still run.
    """
    _quiet_beam()
    _reach_itself_directly()
    _refuse_unreachable(engine.beam.view_as(PortableOptions).job_endpoint)
    graph = pipeline(engine, crawlers)
    _ = graph | transform
    if engine.cluster is None:
        _wait_or_cancel(graph.run())
    else:
        _run_there(engine.cluster, graph, note)


def _run_there(
    cluster: Cluster, graph: beam.Pipeline, note: Callable[[RemoteJob | None], None]
) -> None:
    job = RemoteJob(graph.options.view_as(GoogleCloudOptions).job_name)
    note(job)
    result = None
    try:
        result = graph.run()
        job = replace(job, id=_id(result, cluster))
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
        _cancel(result)
    if cluster.stop(job, *([_CANCEL_S] if is_lost else [])):
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


def _wait_or_cancel(result: Any) -> None:
    try:
        result.wait_until_finish()
    except (KeyboardInterrupt, WorkError) as error:
        if not _cancel(result):
            text = (
                "the job was not seen to stop and may still run: cancel it where its runner shows "
                "it; the same command goes on once it is over"
            )
            kind = Interrupted if isinstance(error, KeyboardInterrupt) else WorkError
            raise kind(text) from None
        raise


def _reach_itself_directly() -> None:
    """Keeps gRPC's connections inside this machine off any proxy, in the workers started as well.

    gRPC asks the proxy of ``http_proxy`` even for loopback.
    """
    excepted = os.environ.get(_NO_GRPC_PROXY) or os.environ.get(_NO_PROXY) or ""
    hosts = dict.fromkeys([*filter(None, excepted.split(",")), *LOOPBACK])
    os.environ[_NO_GRPC_PROXY] = ",".join(hosts)


def pipeline(engine: Engine, crawlers: int) -> beam.Pipeline:
    """A pipeline on an engine.

    Where the driver starts the workers it is always Beam's FnApiRunner (its DirectRunner first
    tries to download a program), with a process a crawler as far as the engine allows. A single
    worker is this process, which starts sooner.
    """
    if not engine.workers:
        options = copy.deepcopy(engine.beam)  # Beam changes them, and they are wanted again
        named = options.view_as(GoogleCloudOptions)
        named.job_name = named.job_name or f"superres-{uuid.uuid4().hex[:12]}"
        runner = UberJarSparkRunner(crawlers) if isinstance(engine.cluster, Spark) else None
        return beam.Pipeline(runner=runner, options=options)
    workers = min(crawlers, engine.workers)
    engine.beam.view_as(DirectOptions).direct_num_workers = workers
    environment = None
    if workers > 1:
        # exec, so that the driver is the worker's parent and not a shell. Ctrl-C is the driver's.
        command = f"trap '' INT; exec {shlex.quote(sys.executable)} -m {WORKER} {os.getpid()}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    runner = FnApiRunner(default_environment=environment, provision_info=_provision(engine.beam))
    return beam.Pipeline(runner=runner, options=engine.beam)


def _provision(options: PipelineOptions) -> ExtendedProvisionInfo:
    """The options as a worker process gets them; Beam's own default gives it none."""
    given = options.get_all_options(drop_default=True)
    # As text: a Struct knows no whole numbers, and the worker parses '2.0' as none.
    values = dict_to_struct(
        {name: str(v) if isinstance(v, int | float) else v for name, v in given.items()}
    )
    return ExtendedProvisionInfo(
        beam_provision_api_pb2.ProvisionInfo(
            retrieval_token="unused-retrieval-token", pipeline_options=values
        )
    )


def _refuse_unreachable(job_endpoint: str | None) -> None:
    """Raises WorkError where no job service answers."""
    if job_endpoint and ":" in job_endpoint and not answers(job_endpoint):
        raise WorkError(f"no job service answers at {job_endpoint}: is --job_endpoint right?")


def _cancel(result: Any) -> bool:
    """Whether the job is known to be cancelled."""
    cancelled = threading.Event()

    def cancel() -> None:
        with suppress(Exception):
            result.cancel()
            cancelled.set()

    threading.Thread(target=cancel, name="cancel", daemon=True).start()
    return cancelled.wait(_CANCEL_S)


def reason(error: BaseException) -> str:
    """Why a job failed, in one line: runners hand on tracebacks as text."""
    if isinstance(error, grpc.Call):
        return f"the job service is lost ({error.details()})"
    told = store_reason(error) if is_store_error(error) else str(error)
    lines = [line.strip() for line in told.splitlines()]
    if broken := [line for line in lines if line.startswith("details = ")]:
        return f"the job service lost a worker ({broken[-1].removeprefix('details = ')})"
    if _TRACEBACK in told:
        after = told.rpartition(_TRACEBACK)[2].splitlines()
        lines = [line.strip() for line in itertools.takewhile(_is_no_java, after)]
        raised = [line for line in lines if _EXCEPTION_LINE.match(line)]
        lines = raised[-1:] or list(filter(None, lines))[-1:]
    elif any(line.startswith("at ") for line in lines):
        caused = [line for line in lines if line.startswith(_CAUSED_BY)]
        lines = [line.removeprefix(_CAUSED_BY) for line in caused[-1:]] or lines[:1]
    text = " ".join(filter(None, lines)) or repr(error)
    return _CODE_IS_MISSING if _NO_CODE in text else _AROUND.sub("", text)


def _is_no_java(line: str) -> bool:
    """Java's stack goes on where the text of a worker's traceback ends."""
    return not line.strip().startswith(("at ", _CAUSED_BY))


def _quiet_beam() -> None:
    """Leaves out of the log what Beam says of things that are meant, or told in another line."""
    runners = "apache_beam.runners"
    # It warns of workers by an environment of our own.
    logging.getLogger(f"{runners}.portability.fn_api_runner.fn_runner").setLevel("ERROR")
    for name, keeps in (
        ("portability.local_job_service", _is_not_of_a_staged_session),
        ("portability.local_job_service", _is_of_a_bug),
        ("common", _is_of_a_bug),
        ("worker.sdk_worker", _is_of_a_bug),
        ("worker.data_plane", _is_not_of_a_channel),
    ):
        logging.getLogger(f"{runners}.{name}").addFilter(keeps)  # the same one is added once
    logging.getLogger().addFilter(_is_no_stack)


def _is_no_stack(record: logging.LogRecord) -> bool:
    """What a cluster says in many lines is wanted with --verbose alone."""
    is_verbose = _logger.isEnabledFor(logging.DEBUG)
    return is_verbose or record.module != "portable_runner" or "\n" not in record.getMessage()


def _is_not_of_a_staged_session(record: logging.LogRecord) -> bool:
    return "semi_persistent_directory" not in record.getMessage()


def _is_of_a_bug(record: logging.LogRecord) -> bool:
    """A traceback is wanted of a bug alone: not of the machine's limits, nor of what is told."""
    text = _FORMATTER.format(record)
    return not (tells_of_no_space(text) or machine_reason(text) or _TOLD in text)


def _is_not_of_a_channel(record: logging.LogRecord) -> bool:
    """A worker that dies breaks its channels; that the job failed is a line of its own."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.RpcError))
