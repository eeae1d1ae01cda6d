import logging
import os
import signal
from collections.abc import Iterator, Sequence

import pytest

from pipelines.command import cli


@pytest.fixture(autouse=True)
def keep_logging_and_signals() -> Iterator[None]:
    root, handler = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    yield
    signal.signal(signal.SIGTERM, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


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
        cli.run(main)
    assert left.value.code == status
    assert capsys.readouterr().err.strip() == last_line


def test_sigterm_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.run(lambda _: terminate())
    assert left.value.code == 3
    assert capsys.readouterr().err.startswith("interrupted:")


def test_a_bug_keeps_its_traceback() -> None:
    def main(arguments: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main)


def test_wrong_arguments_are_one_line_with_the_way_to_help() -> None:
    parser = cli.ArgumentParser("python -m x", "What it does.")
    parser.add_argument("--number", type=cli.positive_int, default=3, help="so many")
    with pytest.raises(cli.UsageError, match=r"0 is not at least 1 .see python -m x --help"):
        parser.parse_args(["--number", "0"])
    assert "so many (default: 3)" in " ".join(parser.format_help().split())


def test_scales() -> None:
    assert cli.scales("4,2,2") == (2, 4)
