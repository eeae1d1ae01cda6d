"""What runs a build's graph: worker processes of this machine, or a cluster by Beam's options."""

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from pipelines.command.cli import ArgumentParser, UsageError

if TYPE_CHECKING:  # it takes a second to import, which --help need not wait for
    from apache_beam.options.pipeline_options import PipelineOptions

OPTION_FILES = Path(__file__).resolve().parents[1] / "deploy"
EMBEDDED = "FnApiRunner"
_OPTION_FILE = ".options"
_ENDPOINTS = ("--job_endpoint", "--flink_master", "--spark_master_url")
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
    outlives_driver: bool
    """Whether a job runs to its end without the driver."""
    sees_local_paths: bool
    """Whether the workers have this machine's files."""
    silence_s: float
    """After so long without a sign of any worker the job has failed."""

    @classmethod
    def of(cls, runner: str, flags: Sequence[str] = (), *, silence_s: float = float("inf")) -> Self:
        """The engine of ``--runner``, by Beam's options ``flags``.

        Beam's FileSystems follow these options from here on. Raises UsageError for one that Beam
        does not know. A worker of this machine that falls silent is a process that died, which is
        noticed sooner: ``silence_s`` counts for a cluster.
        """
        if runner in (EMBEDDED, "DirectRunner"):
            beam = _beam_options(flags, EMBEDDED)
            return cls(beam, os.cpu_count() or 1, False, True, float("inf"))
        from apache_beam.options.pipeline_options import SetupOptions

        beam = _beam_options(flags, runner)
        setup = beam.view_as(SetupOptions).setup_file
        if setup and not Path(setup).is_file():
            raise UsageError(
                f"--setup_file={setup} is not here: run in a clone, or give the wheel in its place "
                "(--extra_package) by an option file of your own, --runner FILE.options"
            )
        return cls(beam, 0, True, _is_on_this_machine(flags), silence_s)

    @property
    def runner(self) -> str:
        """Beam's name of the runner."""
        from apache_beam.options.pipeline_options import StandardOptions

        return str(self.beam.view_as(StandardOptions).runner)

    def refuse_local_paths(self, *paths: str) -> None:
        """Raises UsageError where workers on other machines would not see a local path."""
        for path in paths:
            if "://" not in path and not self.sees_local_paths:
                raise UsageError(
                    f"{path} is local, but the workers of --runner {self.runner} are on other "
                    "machines: use gs://, s3:// or (for the list) http(s)://"
                )


def with_option_file(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of a file in place of ``--runner``.

    That is deploy/NAME.options for ``--runner NAME``, or ``--runner FILE.options`` itself. What the
    command line says itself counts. Any other runner's name stays as it is. Raises UsageError for
    a FILE.options that is not there.
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
    return [*shlex.split(path.read_text(), comments=True), *rest]


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


def _is_on_this_machine(flags: Sequence[str]) -> bool:
    """Whether the last job service that the flags name is reached by loopback."""
    for position in reversed(range(len(flags))):  # the last one counts
        name, equals, value = flags[position].partition("=")
        if name in _ENDPOINTS:
            endpoint = value if equals else "".join(flags[position + 1 : position + 2])
            host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname
            return host in LOOPBACK
    return False
