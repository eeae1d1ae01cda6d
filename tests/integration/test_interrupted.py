"""Builds that are killed, run out of space, or meet another build in their folder."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kill_build import Site, Trial, command, content, leftovers, run
from pipelines.dataset.folder import DatasetFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, mounts a tmpfs"),
]
REPOSITORY = Path(__file__).resolve().parents[2]


def test_killed_at_random_moments_a_build_ends_with_the_same_bytes(tmp_path: Path) -> None:
    moments = list(run(moments=3, seed=1, pictures=60, home=tmp_path))
    assert [moment.kind for moment in moments] == ["driver", "worker", "everything"]
    assert [moment.fault for moment in moments] == ["", "", ""]


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site(60, delay_s=0.05)
    yield running
    running.close()


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at ``path``."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("crawlers", [1, 2])
def test_a_full_disk_is_one_line_and_goes_on_once_there_is_space(
    site: Site, tmp_path: Path, crawlers: int
) -> None:
    trial = Trial(site, tmp_path)
    disk = tmp_path / "disk"
    with small_disk(disk, "600k"):
        build = command(trial.list, disk / "set", crawlers=crawlers)
        first = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert first.returncode == 1, first.stderr
        assert "Traceback" not in first.stderr
        assert first.stderr.splitlines()[-1] == (
            f"failed: no space is left for {disk / 'set'}; what is fetched is kept: make room, and "
            "the same command goes on from there"
        )
        fetched = DatasetFolder(str(disk / "set")).attempts()
        asked = site.asked()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        second = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert second.returncode == 0, second.stderr
        assert leftovers(disk / "set") == ""
        assert content(disk / "set") == trial.expected
        again = site.asked() - asked
        plans = [
            Path(DatasetFolder(str(disk / "set")).plan(shard)).read_text() for shard in fetched
        ]
        assert fetched
        assert not [path for path in again if f"{path}\n" in "".join(plans)]


def test_a_second_build_is_refused_with_the_first_named_and_harms_nothing(
    site: Site, tmp_path: Path
) -> None:
    trial = Trial(site, tmp_path)
    output = tmp_path / "set"
    build = command(trial.list, output, crawlers=1)
    first = subprocess.Popen(build, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (output / "lease.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert second.returncode == 2, second.stderr
        named = f"error: {output} is being built by process {first.pid} on {os.uname().nodename} "
        assert second.stderr.splitlines()[-1].startswith(named)
        first.send_signal(signal.SIGCONT)
        assert first.wait(100) == 0
    finally:
        first.kill()
        first.wait()
    assert leftovers(output) == ""
    assert content(output) == trial.expected
