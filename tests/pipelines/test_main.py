"""What python -m pipelines answers to bad input; whole builds are in tests/integration."""

import gzip
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.command import cli

LINE = "n01440764_1\thttp://127.0.0.1:9/1.jpg\n"


pytestmark = pytest.mark.usefixtures("keep_logging_and_signals")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Runs the command in a folder with inputs: status, standard output and error."""
    (tmp_path / "good.txt").write_text(LINE)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "prose.txt").write_text("Call me Ishmael.\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINE.encode() * 99)[:50])
    (tmp_path / "no-pictures").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pipelines", *shlex.split(arguments)])
        with pytest.raises(SystemExit) as left:
            cli.run(main, leave=sys.exit)
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


Run = Callable[[str], tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output a/out", "--urls LIST (make: URLS=list), --images DIR or --originals DIR is"),
        ("--urls good.txt", "--output"),
        ("--urls good.txt --output /", "'/' is no folder for a dataset"),
        ("--urls good.txt --output good.txt", "good.txt cannot be written: File exists"),
        ("--urls good.txt --output good.txt/x", "good.txt/x cannot be written: Not a directory"),
        ("--urls good.txt --output /proc/x", "/proc/x cannot be written: "),
        ("--urls none.txt --output a/out", "there is no list none.txt"),
        ("--urls empty.txt --output a/out", "empty.txt is empty"),
        ("--urls prose.txt --output a/out", "prose.txt is not a list"),
        ("--urls binary --output a/out", "binary is not a list"),
        ("--urls cut.gz --output a/out", "cannot read the list cut.gz"),
        ("--urls good.txt --images no-pictures --output a/out", "exclude each other"),
        ("--images no-pictures --output a/out", "holds no picture"),
        ("--images none --output a/out", "there is no folder none"),
        ("--urls good.txt --output a/out --wnids n00000000", "no line of the list is selected"),
        ("--urls good.txt --output a/out --crop-size 0", "of at least 1, not '0'"),
        ("--urls good.txt --output a/out --no-such-option", "unknown option --no-such-option"),
        ("--urls good.txt --output a/out stray", "unknown option stray"),
        ("--urls none.txt --output a/out --overwrite", "there is no list none.txt"),
        ("--urls none.txt --output a/out --dry-run", "there is no list none.txt"),
        ("--retry timed_out --output a/out", "out is no dataset folder: it has no build.json"),
        ("--originals none.txt --output a/out", "none.txt is no dataset folder"),
        (
            "--originals no-pictures --output gs://b/d --runner FlinkRunner --crawlers 2",
            "no-pictures is local, but the workers",
        ),
        (
            "--urls good.txt --output a/out --runner FlinkRunner --crawlers 2",
            "good.txt is local, but the workers",
        ),
        (
            "--urls gs://b/l --output gs://b/d --runner FlinkRunner",
            "--crawlers is required with --runner FlinkRunner",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, arguments: str, message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_help_has_every_option_with_its_default(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert "--requests-per-host" in out
    assert "(default: 100)" in " ".join(out.split())


def test_a_dry_run_tells_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run("--urls good.txt --output a/out --dry-run")
    assert (status, err) == (0, "")
    assert "URLs to fetch" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_list_that_cannot_be_fetched(run: Run, server: Any, tmp_path: Path) -> None:
    status, _, err = run(f"--urls {server.url('/none')} --output a/out")
    assert status == 2
    assert "404" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a").exists()
