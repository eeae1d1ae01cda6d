"""Runs a graph to its end on an engine."""

import copy
import logging
import os
import shlex
import sys
import uuid
from collections.abc import Callable
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
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.build.cluster import RemoteJob
from pipelines.build.engine import LOOPBACK, Engine
from pipelines.build.interruption import WORKER
from pipelines.build.job_service import answers
from pipelines.build.remote import cancel, run_there
from pipelines.build.spark import Spark, UberJarSparkRunner
from pipelines.command.cli import Interrupted, WorkError
from pipelines.command.machine import machine_reason
from pipelines.dataset.folder import tells_of_no_space

_logger = logging.getLogger(__name__)
_FORMATTER = logging.Formatter()
_TOLD = f"{WorkError.__module__}.{WorkError.__qualname__}: "
# A heap for each of gRPC's threads and one of Arrow's own take a worker a third of its memory.
_WORKER_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_NO_GRPC_PROXY, _NO_PROXY = "no_grpc_proxy", "no_proxy"


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
        run_there(engine.cluster, graph, note)


def _wait_or_cancel(result: Any) -> None:
    try:
        result.wait_until_finish()
    except (KeyboardInterrupt, WorkError) as error:
        if not cancel(result):
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
        given = " ".join(f"{name}=${{{name}:-{it}}}" for name, it in _WORKER_ENVIRONMENT.items())
        worker = f"{shlex.quote(sys.executable)} -m {WORKER} {os.getpid()}"
        command = f"export {given}; trap '' INT; exec {worker}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    runner = FnApiRunner(default_environment=environment, provision_info=_provision(engine.beam))
    return beam.Pipeline(runner=runner, options=engine.beam)


def _provision(options: PipelineOptions) -> ExtendedProvisionInfo:
    """The options as a worker process gets them; Beam's own default gives it none."""
    given = options.get_all_options(drop_default=True)
    # As text: a Struct knows no whole numbers, and the worker parses '2.0' as none.
    values = dict_to_struct(
        {name: str(v) if type(v) in (int, float) else v for name, v in given.items()}
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
