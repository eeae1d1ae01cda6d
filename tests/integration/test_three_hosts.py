"""The build across three hosts with addresses of their own, one of them cut off in the middle."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
def test_a_host_that_is_cut_off_is_a_clear_failure_and_the_same_command_completes(
    shared_data: Path, worker_python: Path, go_program: Callable[[str], Path]
) -> None:
    for name in ("container", "versitygw"):
        go_program(name)
    script = REPOSITORY / "benchmarks" / "three_hosts.sh"
    result = subprocess.run(
        [script, shared_data / "imagenet" / "photos", worker_python],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed: no worker has done anything for" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("verified")


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("crawlers", ["1", "2"])
def test_the_driver_may_be_a_containers_first_process(
    shared_data: Path, tmp_path: Path, crawlers: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for photo in sorted((shared_data / "imagenet" / "photos").glob("*.jpg"))[:8]:
        shutil.copy(photo, pictures)
    arguments = ["--images", pictures, "--output", tmp_path / "set", "--crawlers", crawlers]
    result = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "pipelines"),
            *arguments,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
