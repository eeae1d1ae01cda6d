"""Builds as a user runs them, and what they leave."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.dataset.outcome import Row
from pipelines.dataset.outcome_table import read_table
from tests.support import REPOSITORY


def command(
    source: str | Path, output: str | Path, *options: str, option: str = "--urls"
) -> list[str]:
    given = [option, str(source), "--output", str(output), *options]
    return [sys.executable, "-m", "pipelines", *given]


def run(*arguments: Any, **how: Any) -> subprocess.CompletedProcess[str]:
    """A command to its end, in the repository; its output is text."""
    return subprocess.run(
        arguments,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        **({"timeout": 300} | how),
    )


def wait_for(condition: Callable[[], Any], what: Callable[[], str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Build:
    """A command in the background."""

    def __init__(
        self, log: Path, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stderr=file, env=environment)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        def go_on() -> Any:
            assert self.process.poll() is None, self.log.read_text()
            return condition()

        wait_for(go_on, self.log.read_text)

    def end(self, seconds: float = 300) -> str:
        """What it wrote to standard error, once it has ended."""
        try:
            self.process.wait(seconds)
        finally:
            self.kill()
        return self.log.read_text()

    def finish(self) -> str:
        """The same, of a build that must succeed."""
        errors = self.end()
        assert self.process.returncode == 0, errors
        return errors

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def examples(output: Path) -> dict[str, str]:
    """sha256 of every shard."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "examples").iterdir())
    }


def manifest(output: Path) -> dict[str, Any]:
    """dataset.json without its versions."""
    found: dict[str, Any] = json.loads((output / "dataset.json").read_text())
    return found | {"versions": None}


def content(output: Path) -> dict[str, Any]:
    """All that the same list, options and answers decide."""
    return {**examples(output), "dataset.json": manifest(output)}


def rows(output: Path) -> list[Row]:
    """What became of each line."""
    found = []
    for path in sorted((output / "outcomes").iterdir()):
        with path.open("rb") as file:
            found += read_table(file)
    return found
