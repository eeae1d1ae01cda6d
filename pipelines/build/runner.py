"""Runs a graph to its end on an engine, and says in one line why it failed."""

import logging
import os
import re
import shlex
import sys
import threading
from contextlib import suppress
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.build.engine import LOOPBACK, Engine
from pipelines.build.interruption import WORKER
from pipelines.command.cli import WorkError
from pipelines.dataset.folder import is_store_error, store_reason, tells_of_no_space

_FORMATTER = logging.Formatter()
_TOLD = f"{WorkError.__module__}.{WorkError.__qualname__}: "
_JOB_SERVICE_ANSWERS_S = 60.0
_CANCEL_S = 5.0  # an interruption has to end within 10 s
_NO_GRPC_PROXY, _NO_PROXY = "no_grpc_proxy", "no_proxy"
_EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*: .+")


def run(transform: beam.PTransform, engine: Engine, crawlers: int) -> None:
    """Runs a graph to its end; broken off, its job is cancelled.

    Raises what the runner raises where the job failed, and WorkError where the job may still run.
    """
    _quiet_beam()
    _reach_itself_directly()
    _refuse_unreachable(engine.beam.view_as(PortableOptions).job_endpoint)
    graph = pipeline(engine, crawlers)
    _ = graph | transform
    result = graph.run()
    try:
        result.wait_until_finish()
    except grpc.RpcError as error:
        if not _cancel(result):
            raise WorkError(
                f"{reason(error)}; if it comes back, see that it does not run the job any more"
            ) from None
        raise
    except (KeyboardInterrupt, WorkError):
        _cancel(result)
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
        return beam.Pipeline(options=engine.beam)
    workers = min(crawlers, engine.workers)
    engine.beam.view_as(DirectOptions).direct_num_workers = workers
    environment = None
    if workers > 1:
        # exec, so that the driver is the worker's parent and not a shell.
        command = f"exec {shlex.quote(sys.executable)} -m {WORKER} {os.getpid()}"
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
    if ":" not in (job_endpoint or ""):  # Beam's own, in this process
        return
    with grpc.insecure_channel(job_endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(_JOB_SERVICE_ANSWERS_S)
        except grpc.FutureTimeoutError:
            raise WorkError(
                f"no job service answers at {job_endpoint} within {_JOB_SERVICE_ANSWERS_S:.0f} s: "
                "is --job_endpoint right?"
            ) from None


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
    if "Traceback (most recent call last):" in told:
        raised = [line for line in lines if _EXCEPTION_LINE.match(line)]
        lines = raised[-1:] or lines[-1:]
    text = " ".join(filter(None, lines)) or repr(error)
    return re.sub(r" \[while running .*\]$|^pipelines\.command\.cli\.\w+: ", "", text)


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


def _is_not_of_a_staged_session(record: logging.LogRecord) -> bool:
    return "semi_persistent_directory" not in record.getMessage()


def _is_of_a_bug(record: logging.LogRecord) -> bool:
    """A traceback is wanted of a bug alone: not of a full disk, nor of what one line tells."""
    text = _FORMATTER.format(record)
    return not (tells_of_no_space(text) or _TOLD in text)


def _is_not_of_a_channel(record: logging.LogRecord) -> bool:
    """A worker that dies breaks its channels; that the job failed is a line of its own."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.RpcError))
