"""Beam's runners: the embedded default, and what a remote one asks for."""

import argparse
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import apache_beam as beam
import grpc
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.command.cli import ArgumentParser, UsageError, WorkError
from pipelines.dataset.folder import is_store_error, store_reason, tells_of_no_space

OPTION_FILES = Path(__file__).resolve().parents[1] / "deploy"
EMBEDDED = "FnApiRunner"
_ENDPOINTS = ("--job_endpoint", "--flink_master", "--spark_master_url")
_WORKER_THREAD = "run_worker"
_NOTICED_BY_ITSELF_S = 5.0
_FORMATTER = logging.Formatter()
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Beam's --job_server_timeout also ends the streams that a driver follows its job by.
_LONGEST_JOB_S = 365 * 86_400
_JOB_SERVICE_ANSWERS_S = 60.0
_CANCEL_S = 10.0
_EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*: .+")

# They warn of what is meant: workers by an environment of our own, and no staged session.
logging.getLogger("apache_beam.runners.portability.fn_api_runner.fn_runner").setLevel("ERROR")
logging.getLogger("apache_beam.runners.portability.local_job_service").addFilter(
    lambda record: "semi_persistent_directory" not in record.getMessage()
)
# A worker that dies breaks its channels; that the job failed is told in a line of its own.
logging.getLogger("apache_beam.runners.worker.data_plane").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], grpc.RpcError))
)


# A full disk is no bug, whose traceback were wanted.
for _name in ("common", "portability.local_job_service"):
    logging.getLogger(f"apache_beam.runners.{_name}").addFilter(
        lambda record: not tells_of_no_space(_FORMATTER.format(record))
    )


def is_embedded(runner: str) -> bool:
    """Whether the graph runs in processes of this machine, started by the driver."""
    return runner in (EMBEDDED, "DirectRunner")


def with_option_file(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of deploy/NAME.options in place of ``--runner NAME``.

    What the command line says itself counts. Any other runner's name stays as it is.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runner", nargs="?")
    options, rest = parser.parse_known_args(list(arguments))
    path = OPTION_FILES / f"{options.runner}.options"
    if not path.is_file():
        return list(arguments)
    return [*shlex.split(path.read_text(), comments=True), *rest]


def beam_options(flags: Sequence[str], runner: str) -> PipelineOptions:
    """Beam's own options, which Beam's FileSystems follow as well from here on.

    Raises UsageError for one that Beam does not know.
    """
    _refuse_unknown(flags)
    options = PipelineOptions(
        [
            f"--job_server_timeout={_LONGEST_JOB_S}",
            *flags,
            f"--runner={EMBEDDED if is_embedded(runner) else runner}",
        ]
    )
    FileSystems.set_options(options)
    return options


def run(transform: beam.PTransform, options: PipelineOptions, workers: int) -> None:
    """Runs a graph to its end; broken off, its job is cancelled.

    Raises what the runner raises where the job failed, and WorkError where the job may still run.
    """
    _refuse_silence(options.view_as(PortableOptions).job_endpoint)
    graph = pipeline(options, workers)
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


def _refuse_silence(job_endpoint: str | None) -> None:
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


def reach_stores(flags: Sequence[str]) -> None:
    """Beam's options for s3:// and gs://, where no pipeline runs. Raises UsageError."""
    beam_options(flags, EMBEDDED)


def pipeline(options: PipelineOptions, workers: int) -> beam.Pipeline:
    """A pipeline on the runner that the options name.

    The embedded runner gets ``workers`` processes (one: this one, which starts sooner) and is
    always Beam's FnApiRunner: its DirectRunner first tries to download a program.
    """
    if options.view_as(StandardOptions).runner != EMBEDDED:
        return beam.Pipeline(options=options)
    options.view_as(DirectOptions).direct_num_workers = workers
    environment = None
    if workers > 1:
        # exec, so that the driver is the worker's parent and not a shell.
        command = f"exec {shlex.quote(sys.executable)} -m pipelines.build.worker {os.getpid()}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    runner = FnApiRunner(default_environment=environment, provision_info=_provision(options))
    return beam.Pipeline(runner=runner, options=options)


class Watch(NamedTuple):
    """What watched_workers gives."""

    interrupt: Callable[[Exception], None]
    """By which another thread raises its own exception in the main thread."""
    deaths: list[RuntimeError]
    """Of worker processes."""


@contextmanager
def watched_workers() -> Iterator[Watch]:
    """Raises RuntimeError in the main thread when a worker process of the embedded runner dies.

    The runner notices by itself only if the worker had reached it; for one that dies while it
    starts, and at times for another, it would wait forever.
    """
    previous, running = threading.excepthook, threading.Event()
    reasons: list[Exception] = []
    deaths: list[RuntimeError] = []

    def interrupt(reason: Exception) -> None:
        if running.is_set():
            reasons.append(reason)
            # A true signal: no other thing ends the main thread's wait for a lock.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if isinstance(arguments.exc_value, grpc.RpcError):
            pass  # a channel to a worker that died
        elif arguments.thread is None or arguments.thread.name != _WORKER_THREAD:
            previous(arguments)
        elif running.is_set():
            deaths.append(RuntimeError(f"a worker process died: {arguments.exc_value}"))
            timer = threading.Timer(_NOTICED_BY_ITSELF_S, interrupt, [deaths[-1]])
            timer.daemon = True
            timer.start()

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if running.is_set():
            running.clear()
            raise reasons[0]

    signal.signal(signal.SIGUSR1, interrupted)  # for good: a late signal must not end the process
    running.set()
    threading.excepthook = hook
    try:
        yield Watch(interrupt, deaths)
    finally:
        running.clear()
        threading.excepthook = previous


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


def _refuse_unknown(flags: Sequence[str]) -> None:
    parser = ArgumentParser("python -m pipelines", "")
    known: list[type[PipelineOptions]] = [PipelineOptions]
    for options in known:
        known.extend(options.__subclasses__())
    for options in {id(cls): cls for cls in known[1:]}.values():
        if "_add_argparse_args" in vars(options):
            parser.conflict_handler = "resolve"
            options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(flags))
    if unknown:
        raise UsageError(
            f"unknown option {unknown[0]} (see python -m pipelines --help, and Beam's options)"
        )


def refuse_local_paths(runner: str, flags: Sequence[str], *paths: str) -> None:
    """Raises UsageError where workers on other machines would not see a local path."""
    if _is_on_this_machine(flags):
        return
    for path in paths:
        if "://" not in path:
            raise UsageError(
                f"{path} is local, but the workers of --runner {runner} are on other machines: "
                "use gs://, s3:// or (for the list) http(s)://"
            )


def _is_on_this_machine(flags: Sequence[str]) -> bool:
    for position, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in _ENDPOINTS:
            endpoint = value if equals else "".join(flags[position + 1 : position + 2])
            host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname
            return host in _LOOPBACK
    return False
