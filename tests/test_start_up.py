"""--help, --version and a wrong argument load nothing that takes long to import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import __version__
from tests.support import REPOSITORY

SLOW = {
    *("tensorflow", "keras", "apache_beam", "grpc", "pyarrow", "aiodns", "requests"),
    *("matplotlib", "scipy", "skimage", "google"),
}
COMMANDS = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
    for package in ("pipelines", "trainer", "evaluation", "demo")
    for path in sorted(Path(REPOSITORY, package).rglob("*.py"))
    if "    cli.run(main" in path.read_text()
]


def test_the_commands_are_found() -> None:
    assert {"pipelines", "pipelines.verify", "trainer", "evaluation.benchmark"} <= set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("argument", "status", "answer"),
    [
        ("--help", 0, "usage: python -m COMMAND [-h]"),
        ("--version", 0, f"imagenet-superres {__version__}\n"),
        ("--hlep", 2, "error: unknown option --hlep: did you mean --help? (see python -m COMMAND"),
    ],
)
def test_answers_without_what_is_slow_to_import(
    command: str, argument: str, status: int, answer: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", command, argument],
        cwd=REPOSITORY, env={**os.environ, "COLUMNS": "1000"}, capture_output=True, text=True,
    )  # fmt: skip
    said = "".join(re.findall(r"^(?!import time:).*\n", done.stderr, re.M))
    assert done.returncode == status, said
    assert (done.stdout + said).startswith(answer.replace("COMMAND", command))
    imported = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "argparse" in imported
    assert imported & SLOW == set()


@pytest.mark.slow
def test_training_comes_without_keras_and_beam() -> None:
    """Keras no command uses; it takes two fifths of TensorFlow's import, Beam a second."""
    code = (
        "import sys; from pipelines.command import cli\n"
        "def main(_):\n"
        "    import trainer.training\n"
        "    sys.exit(bool({'keras', 'apache_beam'} & sys.modules.keys()))\n"
        "cli.run(main)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
