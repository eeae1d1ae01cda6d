"""What every command shares: its exit status, its one-line errors, its options' looks."""

import argparse
import difflib
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipelines import __version__
from pipelines.command.stores import is_store_error, store_reason

_INTERRUPTED = "interrupted: the same command goes on from here"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Clean-up gets so long, which leaves a part of 10 s to a slow machine.
_CLEAN_UP_S = 8.0
_AGAIN_S = 0.05
_clean_up_s = _CLEAN_UP_S
# A plain variable: a handler that took a lock might wait for the very code that it interrupts.
_interrupted = False

COLLECTED_AFTER = 10_000
"""New objects of Python, in place of 700: each collection goes through all that is imported."""

# So much alike are two names of which one is the other, mistyped. Of Beam's options and ours only
# those that differ by an underscore are.
_MISTYPED = 0.76

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

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"imagenet-superres {__version__}")

    def parse_known_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's; an option much like a known one is mistyped, and refused first."""
        known = self._option_string_actions
        for name in (argument.partition("=")[0] for argument in args):
            is_unknown = name.startswith("--") and name not in known
            if is_unknown and (near := nearest(name, known, _MISTYPED)):
                self.error(f"unknown option {name}: did you mean {near}?")
        return super().parse_known_args(args, namespace)

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
    if isinstance(value, tuple):
        return ",".join(map(typed, value))
    if isinstance(value, list):  # of an option with several arguments
        return " ".join(map(typed, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a mistyped one is most like."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def output_path(text: str) -> Path:
    """An argparse type: the path of a file in a folder that exists."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise argparse.ArgumentTypeError(f"{text}: {reason}")
    return path


def run(
    main: Callable[[Sequence[str]], None], *, leave: Callable[[int], NoReturn] = os._exit
) -> NoReturn:
    """Runs ``main(arguments)`` and leaves with the exit status of the contract.

    0 done, 1 the work failed, 2 wrong arguments or input, 3 interrupted. The reason is one
    line, the last on standard error; a traceback means a bug. The process ends at once: threads
    that gRPC and tensorflow-io leave behind abort an ordinary exit now and then. ``leave`` is a
    parameter for tests.

    The first Ctrl-C or SIGTERM raises KeyboardInterrupt in the main thread. Later ones change
    nothing: clean-up goes on, but the process ends within 10 s of the first in any case.
    """
    global _interrupted, _clean_up_s
    _interrupted, _clean_up_s = False, _CLEAN_UP_S
    # Else they take a fifth of the import of TensorFlow or Beam.
    gc.set_threshold(COLLECTED_AFTER)
    # Or TensorFlow imports Keras, which no command uses, and takes two thirds longer.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    with _Deadline():
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        sys.unraisablehook = _interrupt_again
        try:
            _configure_logging()
            status, reason = _result(main)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # too late
        except KeyboardInterrupt:
            status, reason = 3, _INTERRUPTED
        if _interrupted and status != 3:  # what else there is to say comes of that
            status, reason = 3, _INTERRUPTED
        if reason:
            sys.stderr.write(reason + "\n")
        sys.stdout.flush()
        sys.stderr.flush()
    leave(status)


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_echo)


def log_more() -> None:
    """Logs what is left out by default: what explains a failure further, and what Beam says."""
    logging.getLogger("pipelines").setLevel(logging.DEBUG)
    logging.getLogger("apache_beam").setLevel(logging.INFO)


def _result(main: Callable[[Sequence[str]], None]) -> tuple[int, str]:
    """The exit status and its reason."""
    try:
        main(sys.argv[1:])
    except UsageError as error:
        return 2, f"error: {_one_line(error)}"
    except WorkError as error:
        return 1, f"failed: {_one_line(error)}"
    except Interrupted as error:
        return 3, f"interrupted: {_one_line(error)}"
    except Exception as error:
        if is_store_error(error) and not _interrupted:
            return 1, f"failed: {_one_line(store_reason(error))}"
        if not _interrupted:
            raise
    return 0, ""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _interrupted
    if not _interrupted:
        _interrupted = True
        raise KeyboardInterrupt


def _interrupt_again(unraisable: Any) -> None:
    """Repeats an interruption that came where Python can raise nothing, as in a finalizer."""
    global _interrupted
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    _interrupted = False
    threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()


class _Deadline:
    """Ends the process some time after an interruption, whatever holds the main thread up.

    Something may swallow the KeyboardInterrupt. Code outside Python may not even let the handler
    run, so that the signal itself wakes the thread that counts the time.
    """

    def __enter__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous)
        os.close(self._writer)

    def _wait(self) -> None:
        while number := os.read(self._reader, 1):
            # A command that handles a signal itself takes its time.
            if number[0] in _SIGNALS and signal.getsignal(number[0]) is _interrupt:
                self._end_late()
        os.close(self._reader)

    def _end_late(self) -> None:
        began = time.monotonic()
        while (left_s := began + _clean_up_s - time.monotonic()) > 0:
            wait_s = min(left_s, 1.0)  # it may be granted more meanwhile
            if select.select([self._reader], [], [], wait_s)[0] and not os.read(self._reader, 99):
                return
        os.write(2, _INTERRUPTED.encode() + b"\n")
        os._exit(3)


def allow_clean_up(seconds: float) -> None:
    """Lets an interrupted command take so long to end, where another machine is waited for."""
    global _clean_up_s
    _clean_up_s = max(_clean_up_s, seconds)


def was_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM came, even where others made another exception of it."""
    return _interrupted


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Beam reports what an interruption breaks off as errors."""
    return not (_interrupted and record.name.startswith("apache_beam"))


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
