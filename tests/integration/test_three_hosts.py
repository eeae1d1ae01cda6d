"""The build across three hosts with addresses of their own, one of them cut off in the middle."""

import shutil
from pathlib import Path

import pytest

from tests.support.build import command, run
from tests.support.services import go_tool

pytestmark = pytest.mark.xdist_group("worker environment")


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
def test_a_host_that_is_cut_off_is_a_clear_failure_and_the_same_command_completes(
    shared_data: Path, worker_python: Path
) -> None:
    for name in ("container", "versitygw"):
        go_tool(name)
    photos = shared_data / "imagenet" / "photos"
    result = run("benchmarks/three_hosts.sh", photos, worker_python, timeout=600)
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
    build = command(pictures, tmp_path / "set", "--crawlers", crawlers, option="--images")
    result = run("unshare", "--pid", "--fork", "--mount-proc", *build)
    assert result.returncode == 0, result.stderr
