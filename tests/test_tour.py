"""docs/tour.md runs as it stands, and prints and draws what it shows."""

import ast
import code
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "tour.md"
IMAGES = PAGE.parent / "images"
PICTURES = re.findall(r"\]\(images/(tour/\S+\.png)\)", PAGE.read_text())
PORT = 8905
LOG = re.compile(r"^\S+ \S+ INFO \S+: ")
NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
# A network of another CPU's arithmetic; whole numbers are exact.
NEAR = 0.1


class Step(NamedTuple):
    """A block of the page with what it is to print."""

    kind: str
    text: str
    printed: list[str]


def steps() -> list[Step]:
    """Indented commands, Python in fences, and the fence of text after either."""
    block = r"```(python|text)\n(.*?)```|((?:^ {4}[^\n]*\n)+)"
    found: list[Step] = []
    for kind, fenced, indented in re.findall(block, PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if kind == "text":
            found[-1].printed.extend(fenced.splitlines())
        else:
            found.append(Step(kind or "shell", fenced or indented, []))
    return found


def missing(python: str) -> list[str]:
    """Packages that a block imports and this environment lacks."""
    names = [
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(ast.parse(python))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    return [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None]


def alike(shown: str, real: str) -> bool:
    """Equal, but for decimals that are near."""
    one, other = NUMBER.split(shown.rstrip()), NUMBER.split(real.rstrip())
    return len(one) == len(other) and all(
        abs(float(a) - float(b)) <= NEAR if "." in a and NUMBER.fullmatch(b) else a == b
        for a, b in zip(one, other, strict=True)
    )


def not_printed(step: Step, output: str) -> list[str]:
    """Lines of the page that are none of the output's, in this order."""
    real: Iterator[str] = iter([LOG.sub("", line) for line in output.splitlines()])
    for number, shown in enumerate(step.printed):
        if not any(alike(shown, line) for line in real):
            return [f"no {shown!r} among the last of:", step.text, output, *step.printed[number:]]
    return []


def serve(command: str, folder: Path) -> subprocess.Popen[bytes]:
    """A command that the page runs beside the rest, once it answers."""
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        with socket.socket() as connection:
            if not connection.connect_ex(("127.0.0.1", PORT)):
                return server
        time.sleep(0.1)
    raise AssertionError(f"{command} does not answer")


class Pasted(code.InteractiveConsole):
    """What Python's prompt takes of a block; nothing is run."""

    refused = False

    def runcode(self, code: object) -> None:
        """Leaves it."""

    def showsyntaxerror(self, *args: object, **kwargs: object) -> None:
        """As the prompt's, but told."""
        self.refused = True


@pytest.mark.parametrize("block", [step.text for step in steps() if step.kind == "python"])
def test_a_block_of_python_can_be_pasted(block: str) -> None:
    prompt = Pasted()
    waits = [prompt.push(line) for line in [*block.splitlines(), ""]]
    assert not prompt.refused
    assert not waits[-1]


@pytest.mark.slow
def test_the_tour_holds(tmp_path: Path) -> None:
    for path in REPOSITORY.iterdir():
        if not path.name.startswith(".") and path.name != "tour":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    bash = ["bash", "-e", "-c"]
    wrong: list[str] = []
    with ExitStack() as stack:
        for step in steps():
            if step.kind == "shell" and step.text.rstrip().endswith("&"):
                server = serve(step.text.strip().removesuffix("&"), tmp_path)
                stack.enter_context(server)
                stack.callback(server.kill)
                continue
            if step.kind == "python":
                if missing(step.text):
                    continue
                command = [".venv/bin/python", "-c", step.text]
            else:
                command = [*bash, re.sub(r"(?m)^ +make ", "make -o .venv/ready ", step.text)]
            done = subprocess.run(
                command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{step.text}\n{done.stdout}"
            wrong += not_printed(step, done.stdout)
    for name in PICTURES:
        real, shown = (
            np.asarray(Image.open(f), np.float32) for f in (tmp_path / name, IMAGES / name)
        )
        if real.shape != shown.shape or np.abs(real - shown).mean() >= 1:
            wrong.append(f"{IMAGES / name} is another picture than {tmp_path / name}")
    assert not wrong, "\n".join(wrong)
