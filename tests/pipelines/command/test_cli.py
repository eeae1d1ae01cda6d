import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from pipelines import __version__
from pipelines.command import cli

pytestmark = pytest.mark.usefixtures("keep_logging_and_signals")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.sigtimedwait([], 1)  # the handler runs at the next instruction


@pytest.mark.parametrize(
    ("error", "status", "last_line"),
    [
        (None, 0, ""),
        (cli.WorkError("all\n failed"), 1, "failed: all failed"),
        (cli.UsageError("no\tlist"), 2, "error: no list"),
        (cli.Interrupted("at step 3"), 3, "interrupted: at step 3"),
        (KeyboardInterrupt(), 3, "interrupted: the same command goes on from here"),
    ],
)
def test_exit_status_and_last_line(
    error: BaseException | None, status: int, last_line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: Sequence[str]) -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as left:
        cli.run(main, leave=sys.exit)
    assert left.value.code == status
    assert capsys.readouterr().err.strip() == last_line


def test_sigterm_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.run(lambda _: terminate(), leave=sys.exit)
    assert left.value.code == 3
    assert capsys.readouterr().err.startswith("interrupted:")


@contextlib.contextmanager
def command(body: str) -> Iterator[subprocess.Popen[str]]:
    """A command whose main is ``body``, once that has printed a line."""
    lines = [
        *("import signal, sys, threading, time", "from pipelines.command import cli"),
        "def main(_):",
        *(f"    {line}" for line in body.splitlines()),
        *("cli._CLEAN_UP_S = 1.0", "cli.run(main)"),
    ]
    script = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.kill()


SWALLOWS = """
while True:
    try:
        print("begun", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
HOLDS = """
print("begun", flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.sigwait([signal.SIGUSR1])
"""
FINALIZER = """
class Last:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(0.5)
Last()
time.sleep(60)
"""
OTHER_ERROR = """
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    raise ValueError
"""
CLEANS_UP = """
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    print("cleaning", flush=True)
    time.sleep(0.1)
    print("clean", flush=True)
"""


@pytest.mark.parametrize("body", [SWALLOWS, HOLDS, FINALIZER, OTHER_ERROR, CLEANS_UP])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whatever_becomes_of_an_interruption_the_command_ends_with_it(
    body: str, number: signal.Signals
) -> None:
    with command(body) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err == "interrupted: the same command goes on from here\n"


def test_a_second_signal_does_not_break_off_the_clean_up() -> None:
    with command(CLEANS_UP) as process:
        process.terminate()
        assert process.stdout
        assert process.stdout.readline() == "cleaning\n"
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "clean\n")


def test_a_bug_keeps_its_traceback() -> None:
    def main(arguments: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main, leave=sys.exit)


def parser() -> cli.ArgumentParser:
    result = cli.ArgumentParser("python -m x", "What it does.")
    result.add_argument("--number", type=int, default=3, help="so many")
    result.add_argument("--names", nargs="+", default=["a", "b"], help="some")
    result.add_argument("--part", type=float, default=2.0, help="100 % of it".replace("%", "%%"))
    result.add_argument("--none", help="nothing")
    result.add_argument("--quick", action="store_true", help="or slow")
    return result


def test_wrong_arguments_are_one_line_with_the_way_to_help() -> None:
    with pytest.raises(cli.UsageError, match=r"^--number: .*'x' .see python -m x --help"):
        parser().parse_args(["--number", "x"])


def test_help_has_the_defaults_that_there_are_as_one_would_type_them() -> None:
    text = " ".join(parser().format_help().split())
    assert "so many (default: 3) --names NAMES [NAMES ...] some (default: a b) --part" in text
    assert "100 % of it (default: 2) --none NONE nothing --quick or slow" in text


@pytest.mark.parametrize("mistyped", ["--numbr", "--numbers=4", "--no-number", "--Number"])
def test_a_mistyped_option_is_answered_with_the_nearest(mistyped: str) -> None:
    wrong = f"unknown option {mistyped.partition('=')[0]}: did you mean --number?"
    with pytest.raises(cli.UsageError, match=re.escape(wrong)):
        parser().parse_args([mistyped])


def test_an_option_like_no_other_is_refused_as_it_is() -> None:
    with pytest.raises(cli.UsageError, match="unrecognized arguments: --zzz"):
        parser().parse_args(["--zzz"])
    assert parser().parse_known_args(["--zzz"])[1] == ["--zzz"]


def test_every_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"imagenet-superres {__version__}\n"


WAITS_FOR_OTHERS = """
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    cli.allow_clean_up(60)
    time.sleep(1.5)
    raise cli.Interrupted("the job goes on")
"""


def test_clean_up_that_waits_for_another_machine_gets_its_time() -> None:
    with command(WAITS_FOR_OTHERS) as process:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (3, "interrupted: the job goes on\n")
