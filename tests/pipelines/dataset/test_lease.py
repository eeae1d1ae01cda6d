import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.command.cli import Interrupted, UsageError
from pipelines.dataset import lease
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import Lease
from tests.support import REPOSITORY
from tests.support.folder import files, publish

# A command in whose lease another job's name appears.
LOSES = """
import sys, time
from pipelines.command import cli
from pipelines.dataset import lease
from pipelines.dataset.folder import DatasetFolder

lease._RENEW_S = 0.01

def main(arguments):
    folder = DatasetFolder(arguments[0])
    with lease.Lease(folder):
        path = folder.path("lease.json")
        while True:
            folder.publish_json(path, folder.read_json(path) | {"job": "other"})
            time.sleep(0.05)

cli.run(main)
"""


def lease_of(folder: DatasetFolder) -> dict[str, object]:
    values: dict[str, object] = json.loads(Path(folder.path("lease.json")).read_text())
    return values


def hold(folder: DatasetFolder, **change: object) -> dict[str, object]:
    """A lease as another job would have written it."""
    with Lease(folder):
        held = lease_of(folder) | {"job": "other"} | change
    folder.publish_json(folder.path("lease.json"), held)
    return held


def test_a_second_build_is_refused_with_the_first_named(folder: DatasetFolder) -> None:
    with Lease(folder):
        first = lease_of(folder)
        with pytest.raises(UsageError) as caught, Lease(folder):
            pass
        assert str(os.getpid()) in str(caught.value)
        assert str(first["job"]) in str(caught.value)
        assert socket.gethostname() in str(caught.value)
        assert lease_of(folder) == first
    assert files(folder) == []


def test_a_lease_that_ran_out_is_taken_over(folder: DatasetFolder) -> None:
    hold(folder, expires=time.time() - 1)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


def test_a_dead_process_of_this_host_holds_nothing(folder: DatasetFolder) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(folder, pid=dead.pid)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "before"}])
def test_a_process_elsewhere_holds_until_its_lease_runs_out(
    folder: DatasetFolder, change: dict[str, str]
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held = hold(folder, pid=dead.pid, **change)
    with pytest.raises(UsageError, match=r"free in \d+ s"), Lease(folder):
        pass
    assert lease_of(folder) == held


def test_a_lease_is_renewed_and_given_back(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.01)
    with Lease(folder):
        first = lease_of(folder)["expires"]
        deadline = time.monotonic() + 10
        while lease_of(folder)["expires"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert files(folder) == []


def test_a_job_that_lost_its_lease_leaves_the_new_holders(folder: DatasetFolder) -> None:
    with Lease(folder):
        other = lease_of(folder) | {"job": "other"}
        folder.publish_json(folder.path("lease.json"), other)
    assert lease_of(folder) == other


def test_a_driver_whose_lease_was_taken_over_stops(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.01)
    taken_over = pytest.raises(Interrupted, match=f"another job has taken over {folder.root}")
    with taken_over, Lease(folder):
        other = lease_of(folder) | {"job": "other"}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            folder.publish_json(folder.path("lease.json"), other)
            threading.Event().wait(0.05)  # a lock, as the runner waits for
    assert time.monotonic() < deadline, "it went on"
    assert lease_of(folder) == other


def test_the_last_line_of_a_command_says_that_its_lease_was_taken_over(
    folder: DatasetFolder,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSES, folder.root],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    last = f"interrupted: another job has taken over {folder.root}, and this one has stopped"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, last)


def test_of_drivers_that_take_a_lease_at_once_one_gets_it(tmp_path: Path) -> None:
    drivers = 4
    for number in range(25):
        folder = DatasetFolder(str(tmp_path / str(number)))
        start, end = threading.Barrier(drivers), threading.Barrier(drivers)
        refused: list[str] = []

        def drive(
            folder: DatasetFolder = folder,
            start: threading.Barrier = start,
            end: threading.Barrier = end,
            refused: list[str] = refused,
        ) -> None:
            start.wait()
            try:
                with Lease(folder):
                    end.wait()
            except UsageError as error:
                refused.append(str(error))
                end.wait()

        threads = [threading.Thread(target=drive) for _ in range(drivers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == drivers - 1


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="cannot be written: "),
        Lease(DatasetFolder(str(tmp_path / root))),
    ):
        pass


def test_a_lease_that_came_to_nothing_leaves_no_trace(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path / "a" / "b" / "data"))
    with Lease(folder):
        assert files(folder) == ["lease.json"]
    assert list(tmp_path.iterdir()) == []
    Path(folder.root).mkdir(parents=True)
    with Lease(folder):
        pass
    assert Path(folder.root).is_dir()


def test_a_job_that_outlives_its_driver_holds_as_long_as_it_makes_progress(
    folder: DatasetFolder,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(folder, pid=dead.pid, outlives_driver=True)
    with pytest.raises(UsageError, match=r"free in \d+ s"), Lease(folder):
        pass
    hold_expired = {"pid": dead.pid, "outlives_driver": True, "expires": time.time() - 1}
    folder.publish_json(folder.path("lease.json"), lease_of(folder) | hold_expired)
    publish(folder, folder.progress(0))
    with pytest.raises(UsageError, match=r"free in \d+ s"), Lease(folder):
        pass
    long_ago = time.time() - lease.LEASE_S - 1
    os.utime(folder.progress(0), (long_ago, long_ago))
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


def test_a_finished_dataset_is_held_by_no_dead_driver_and_no_progress(
    folder: DatasetFolder,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(folder, outlives_driver=True, pid=dead.pid)
    publish(folder, folder.progress(0), folder.manifest)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"
    hold(folder, outlives_driver=True, host="elsewhere", expires=time.time() - 1)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


REMEMBERED = {"cluster": "flink", "address": "http://flink:8081", "name": "superres", "id": "ab"}


def test_a_job_that_was_not_seen_to_end_keeps_the_lease(folder: DatasetFolder) -> None:
    with Lease(folder, outlives_driver=True) as held:
        held.remember(REMEMBERED)
    left = lease_of(folder)
    assert left["remembered"] == REMEMBERED
    asked: list[object] = []
    refused = pytest.raises(UsageError, match=f"{folder.root}: job ab still runs")
    with refused, Lease(folder, still_runs=lambda job: asked.append(job) or "job ab still runs"):
        pass
    assert asked == [REMEMBERED]
    assert lease_of(folder) == left
    publish(folder, folder.progress(0))  # just now, by the job that has ended
    with Lease(folder, still_runs=lambda _: "") as held:
        held.remember(REMEMBERED)
        held.remember(None)
    assert files(folder) == ["progress/crawler-00000.json"]


def test_nobody_is_asked_about_a_job_whose_driver_lives(folder: DatasetFolder) -> None:
    with Lease(folder, outlives_driver=True) as held:
        held.remember(REMEMBERED)
        being_built = pytest.raises(UsageError, match="is being built by process")
        with being_built, Lease(folder, still_runs=lambda _: ""):
            pass


def test_where_nobody_can_tell_of_a_job_time_decides(folder: DatasetFolder) -> None:
    hold(folder, outlives_driver=True, expires=time.time() - 1, remembered=REMEMBERED)
    publish(folder, folder.progress(0))
    with pytest.raises(UsageError, match=r"free in \d+ s"), Lease(folder):
        pass
    long_ago = time.time() - lease.LEASE_S - 1
    os.utime(folder.progress(0), (long_ago, long_ago))
    with Lease(folder):
        pass
