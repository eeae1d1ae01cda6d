"""What every command shares: its exit status, its one-line errors, its options' looks."""

import argparse
import difflib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_interrupted = threading.Event()

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Beam says this at every import where its gcp extra is not installed.
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))


class UsageError(Exception):
    """Wrong arguments or input, found before any work: exit status 2."""


class WorkError(Exception):
    """The work itself failed: exit status 1."""


class Interrupted(Exception):
    """Stopped at a safe point; the same command goes on from there: exit status 3."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse with defaults in --help and wrong arguments answered in one line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the usage."""
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


class _Formatter(argparse.HelpFormatter):
    """Adds each option's default, as one would type it, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = "" if action.default is argparse.SUPPRESS else typed(action.default)
        if not default or not action.help or action.default is False:
            return action.help
        return f"{action.help} (default: {default.replace('%', '%%')})"


def typed(value: Any, words: tuple[str, str] = ("", "")) -> str:
    """A value as one would type it on the command line, empty for none; ``words`` for a bool."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return words[not value] or ("yes" if value else "no")
    if isinstance(value, Mapping):
        return ",".join(f"{name}={typed(part)}" for name, part in value.items())
    if isinstance(value, tuple | list):
        return ",".join(map(typed, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a mistyped one is most like."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def scales(text: str) -> tuple[int, ...]:
    """An argparse type: '2,3,4' -> (2, 3, 4), ascending and distinct."""
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of scales such as 2,3,4"
        ) from None
    if values[0] < 2:
        raise argparse.ArgumentTypeError(f"a scale is at least 2, not {values[0]}")
    return tuple(values)


def output_path(text: str) -> Path:
    """An argparse type: the path of a file in a folder that exists."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise argparse.ArgumentTypeError(f"{text}: {reason}")
    return path


def run(
    main: Callable[[Sequence[str]], None], *, leave: Callable[[int], NoReturn] = sys.exit
) -> NoReturn:
    """Runs ``main(arguments)`` and leaves with the exit status of the contract.

    0 done, 1 the work failed, 2 wrong arguments or input, 3 interrupted. The reason is one
    line, the last on standard error; a traceback means a bug. ``leave`` is os._exit where a
    library leaves threads behind that abort the process while Python shuts down.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        main(sys.argv[1:])
    except UsageError as error:
        status, reason = 2, f"error: {_one_line(error)}"
    except WorkError as error:
        status, reason = 1, f"failed: {_one_line(error)}"
    except Interrupted as error:
        status, reason = 3, f"interrupted: {_one_line(error)}"
    except KeyboardInterrupt:
        status, reason = 3, "interrupted: the same command goes on from here"
    else:
        status, reason = 0, ""
    if reason:
        sys.stderr.write(reason + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    leave(status)


def was_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM came, even where others made another exception of it."""
    return _interrupted.is_set()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _interrupted.set()
    # Beam reports what the interruption breaks off as errors.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
