"""What runs a build's graph: worker processes of this machine, or a cluster by Beam's options."""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pipelines.command.cli import ArgumentParser, UsageError, nearest

if TYPE_CHECKING:  # they take a second to import, which --help need not wait for
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.build.cluster import Cluster

OPTION_FILES = Path(__file__).resolve().parents[1] / "deploy"
EMBEDDED = "FnApiRunner"
_OPTION_FILE = ".options"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Beam's --job_server_timeout also ends the streams that a driver follows its job by.
_LONGEST_JOB_S = 365 * 86_400


@dataclass(frozen=True)
class Engine:
    """What runs the graph of a build."""

    beam: "PipelineOptions"
    """Beam's own options."""
    workers: int
    """The most worker processes that the driver starts; 0: the runner has workers of its own."""
    silence_s: float
    """After so long without a sign of any worker the job has failed."""

    @classmethod
    def of(cls, runner: str, flags: Sequence[str] = (), *, silence_s: float = float("inf")) -> Self:
        """The engine of ``--runner``, by Beam's options ``flags``.

        Beam's FileSystems follow these options from here on. Raises UsageError for a runner or an
        option that Beam does not know. A worker of this machine that falls silent is a process that
        died, which is noticed sooner: ``silence_s`` counts for a cluster.
        """
        if runner in (EMBEDDED, "DirectRunner"):
            return cls(_beam_options(flags, EMBEDDED), os.cpu_count() or 1, float("inf"))
        from apache_beam.options.pipeline_options import SetupOptions

        _refuse_unknown_runner(runner)
        beam = _beam_options(flags, runner)
        setup = beam.view_as(SetupOptions).setup_file
        if setup and not Path(setup).is_file():
            raise UsageError(
                f"--setup_file={setup} is not here: run in a clone, or give the wheel in its place "
                "(--extra_package) by an option file of your own, --runner FILE.options"
            )
        return cls(beam, 0, silence_s)

    @property
    def outlives_driver(self) -> bool:
        """Whether a job runs to its end without the driver."""
        return not self.workers

    @property
    def runner(self) -> str:
        """Beam's name of the runner."""
        from apache_beam.options.pipeline_options import StandardOptions

        return str(self.beam.view_as(StandardOptions).runner)

    @cached_property
    def cluster(self) -> "Cluster | None":
        """Where its jobs run without the driver, as far as it can be asked."""
        return next(iter(self._clusters()), None)

    def _clusters(self) -> "list[Cluster]":
        """The one that runs the jobs first, then the job server in between."""
        if self.workers:
            return []
        from pipelines.build.flink import Flink
        from pipelines.build.job_service import JobService
        from pipelines.build.spark import Spark

        found = (Flink.of(self.beam), Spark.of(self.beam), JobService.of(self.beam))
        return [cluster for cluster in found if cluster]

    def refuse_local_paths(self, *paths: str) -> None:
        """Raises UsageError where workers on other machines would not see a local path."""
        local = [path for path in paths if "://" not in path]
        if local and not self._sees_local_paths:
            raise UsageError(
                f"{local[0]} is local, but the workers of --runner {self.runner} are on other "
                "machines: use gs://, s3:// or (for the list) http(s)://"
            )

    @property
    def _sees_local_paths(self) -> bool:
        from apache_beam.options.pipeline_options import PortableOptions

        if self.workers:
            return True
        options = self.beam.view_as(PortableOptions)
        if options.environment_type == "EXTERNAL" and not is_loopback(options.environment_config):
            return False
        return self.cluster is not None and self.cluster.is_here

    def refuse_wrong_start(self, crawlers: int) -> None:
        """Raises UsageError where a job with so many crawlers cannot begin: asked before the plan.

        It takes what Beam would only look at when the plan is written.
        """
        if self.workers:
            return
        from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
        from apache_beam.runners.runner import create_runner

        for error in PipelineOptionsValidator(self.beam, create_runner(self.runner)).validate():
            raise UsageError(error.strip().splitlines()[0])
        for cluster in self._clusters():
            cluster.refuse_wrong_start(crawlers)


def with_option_file(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of a file in place of ``--runner``.

    That is deploy/NAME.options for ``--runner NAME``, or ``--runner FILE.options`` itself. What the
    command line says itself counts. Any other runner's name stays as it is. Raises UsageError for
    a FILE.options that is not there, or cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runner", nargs="?")
    options, rest = parser.parse_known_args(list(arguments))
    own = (options.runner or "").endswith(_OPTION_FILE)
    path = Path(options.runner) if own else OPTION_FILES / f"{options.runner}{_OPTION_FILE}"
    if not path.is_file():
        if own:
            raise UsageError(f"--runner {path}: there is no such file")
        return list(arguments)
    try:
        return [*shlex.split(path.read_text(), comments=True), *rest]
    except ValueError as error:  # a quote that is not closed, or no text
        raise UsageError(f"--runner {path}: {error}") from None


def reach_stores(flags: Sequence[str]) -> None:
    """Beam's options for s3:// and gs://, where no pipeline runs. Raises UsageError."""
    Engine.of(EMBEDDED, flags)


def _beam_options(flags: Sequence[str], runner: str) -> "PipelineOptions":
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    _refuse_unknown(flags)
    options = PipelineOptions(
        [f"--job_server_timeout={_LONGEST_JOB_S}", *flags, f"--runner={runner}"]
    )
    FileSystems.set_options(options)
    return options


def _refuse_unknown(flags: Sequence[str]) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.build import spark  # noqa: F401  it adds an option

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


def _refuse_unknown_runner(runner: str) -> None:
    from apache_beam.options.pipeline_options import StandardOptions

    files = sorted(path.stem for path in OPTION_FILES.glob(f"*{_OPTION_FILE}"))
    beams = [name.rpartition(".")[2] for name in StandardOptions.ALL_KNOWN_RUNNERS]
    known = {name.lower(): name for name in [*beams, *files]}
    if "." in runner or {runner.lower(), f"{runner.lower()}runner"} & known.keys():
        return
    near = nearest(runner.lower(), known)
    hint = f"did you mean {known[near]}?" if near else f"it is {', '.join(files)}, or one of Beam's"
    raise UsageError(f"--runner {runner} is not known: {hint}")


def is_loopback(address: str | None) -> bool:
    """Whether an address, with or without scheme and port, is of this machine's loopback."""
    address = address or ""
    return urlsplit(address if "//" in address else f"//{address}").hostname in LOOPBACK


def still_runs(record: Mapping[str, Any]) -> str | None:
    """What there is to say of a remembered job (Cluster.to_json) that is seen to run.

    Empty where it is seen to have ended, None where nobody can tell.
    """
    from pipelines.build.cluster import JobState, NoAnswerError, RemoteJob
    from pipelines.build.flink import Flink
    from pipelines.build.job_service import JobService
    from pipelines.build.spark import Spark

    kinds = {cls.kind: cls for cls in (Flink, Spark, JobService)}
    cluster = kinds[record["cluster"]](record["address"])
    job = RemoteJob(record["name"], record["id"])
    try:
        if cluster.state(job) is not JobState.RUNS:
            return ""
    except NoAnswerError:
        return None
    return (
        f"{job} of an earlier run still runs at {cluster.address}: let it complete, or stop it: "
        f"{cluster.how_to_stop(job)}"
    )
