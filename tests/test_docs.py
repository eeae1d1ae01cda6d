"""Every command that a page shows is one that exists and takes these arguments."""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.command.cli import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
]
PYTHON = re.compile(r"(\.venv(-newest)?/bin/|env\S*/bin/)?python3?")
OURS = ("pipelines", "trainer", "evaluation", "demo", "benchmarks")


class Parsed(Exception):
    """The arguments were taken; nothing is done with them."""


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """Lines of code blocks that call Python or make, continuation lines joined."""
    fenced, pending, begun = False, "", 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not line.startswith("    "):
            continue
        text = line.strip().removeprefix("$ ")
        begun = begun if pending else number
        pending += text.removesuffix("\\")
        if not text.endswith("\\"):
            yield begun, pending
            pending = ""


def words(command: str) -> list[str]:
    try:
        found = shlex.split(command, comments=True)
    except ValueError:  # a line of a file, not of a shell
        return []
    while found and (re.match(r"[A-Z_]+=", found[0]) or found[0] in ("sudo", "nohup", "nice")):
        found.pop(0)
    return found


def examples() -> Iterator[Any]:
    for page in PAGES:
        for number, command in commands(page):
            found = words(command)
            if found and (found[0] == "make" or PYTHON.fullmatch(found[0]) or "/" in found[0]):
                place = f"{page.relative_to(ROOT)}:{number}"
                yield pytest.param(found, id=f"{place} {' '.join(found)[:60]}")


def check(found: Sequence[str]) -> None:
    """Raises UsageError, OSError or ImportError where the command would end at its start."""
    program, *arguments = found
    if program == "make":
        made = subprocess.run(
            ["make", "-n", "-o", ".venv/ready", "-o", ".venv-newest/ready", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        for line in made.stdout.splitlines():
            inner = words(line)
            if inner and PYTHON.fullmatch(inner[0]):
                check(inner)
    elif PYTHON.fullmatch(program):
        if arguments[0] == "-m" and arguments[1].partition(".")[0] in OURS:
            parse(arguments[1], arguments[2:])
        elif not arguments[0].startswith("-"):
            check_script(ROOT / arguments[0], arguments[1:])
    elif program.startswith(("benchmarks/", "deploy/")):
        check_script(ROOT / program, arguments)


def check_script(path: Path, arguments: Sequence[str]) -> None:
    """Of a benchmark, whose imports take long, by its text."""
    text = path.read_text()
    for name in (argument.partition("=")[0] for argument in arguments):
        if name.startswith("-") and name not in text:
            raise UsageError(f"{path.name} has no {name}")


def parse(module: str, arguments: Sequence[str]) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    if module.startswith("benchmarks."):
        return check_script(path, arguments)
    taken = argparse.ArgumentParser.parse_known_args

    def stop(self: Any, args: Any = None, namespace: Any = None) -> Any:
        taken(self, args, namespace)
        raise Parsed

    loaded = importlib.import_module(module if path.is_file() else f"{module}.__main__")
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):  # noqa: SIM117
        with pytest.raises(Parsed):
            loaded.main(arguments)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("found", [*examples()])
def test_a_command_of_a_page_is_taken(
    found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tour").mkdir()  # what the tour makes first
    monkeypatch.chdir(tmp_path)
    check(found)


def test_a_wrong_command_is_found() -> None:
    for wrong in (
        "python -m trainer --modle vdsr",
        "python benchmarks/plan.py --lsit a",
        "make no",
    ):
        with pytest.raises((UsageError, AssertionError)):
            check(wrong.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
