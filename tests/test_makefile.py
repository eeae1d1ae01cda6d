import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("data", ["URLS", "OUTPUT"]),
        ("verify", ["DATA"]),
        ("show", ["DATA", "OUTPUT"]),
        ("train", ["DATA", "MODEL", "OUTPUT"]),
        ("evaluate", ["DATA", "OUTPUT"]),
        ("benchmark", ["BENCHMARKS", "OUTPUT"]),
        ("benchmark", ["DATA", "OUTPUT"]),
        ("upscale", ["IMAGE", "MODEL", "OUTPUT"]),
        ("bench", ["PHOTOS"]),
    ],
)
def test_paths_reach_the_command_as_one_word(target: str, names: list[str]) -> None:
    paths = {name: f'my {name}\'s; "file", *' for name in names}
    run = f"RUN={sys.executable} -c '{SHOW}'"
    given = [f"{name}={path}" for name, path in paths.items()]
    command = ["make", "-s", "-o", ".venv/ready", target, run, *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {*paths.values()} <= {*json.loads(done.stdout)}


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(("target", "variable"), [("upscale", "IMAGE"), ("bench", "PHOTOS")])
def test_what_a_target_needs_is_said_before_the_environment_is_made(
    target: str, variable: str
) -> None:
    made = "RUN=echo the command ran"
    command = ["make", "-s", "-W", "setup.py", "PYTHON=no-such-python", target, made]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{variable} is needed: make {target} {variable}=")
