import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.command.cli import UsageError
from pipelines.dataset import folder as storage
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import Lease

SHARD = "train-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "data"))


def files(folder: DatasetFolder) -> list[str]:
    root = Path(folder.root)
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def write(folder: DatasetFolder, *paths: str) -> None:
    for path in paths:
        folder.publish_bytes(path, path.encode())


def test_names_are_those_of_the_contract(folder: DatasetFolder) -> None:
    root = folder.root
    assert folder.build == f"{root}/build.json"
    assert folder.manifest == f"{root}/dataset.json"
    assert folder.plan(SHARD) == f"{root}/plan/{SHARD}.tsv"
    assert folder.examples(SHARD) == f"{root}/examples/{SHARD}.tfrecord"
    assert folder.outcomes(SHARD) == f"{root}/outcomes/{SHARD}.parquet"
    attempt = folder.new_attempt(SHARD)
    assert attempt.originals == f"{root}/fetched/{SHARD}.{attempt.name}.originals.tfrecord"
    assert DatasetFolder("s3://b/d").examples(SHARD) == f"s3://b/d/examples/{SHARD}.tfrecord"


def test_publish_replaces_whole_and_leaves_nothing_else(folder: DatasetFolder) -> None:
    for content in (b"old", b"new"):
        folder.publish_bytes(folder.build, content)
        with folder.spool() as spool:
            (spool / "file").write_bytes(content)
            folder.publish(spool / "file", folder.examples(SHARD))
        for path in (folder.build, folder.examples(SHARD)):
            with folder.open(path) as file:
                assert file.read() == content
    assert files(folder) == ["build.json", f"examples/{SHARD}.tfrecord"]


def test_a_failure_in_the_spool_publishes_nothing(folder: DatasetFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.spool() as spool:
        (spool / "half").write_bytes(b"half")
        raise ZeroDivisionError
    assert files(folder) == []


def test_files_are_not_decompressed(folder: DatasetFolder) -> None:
    folder.publish_bytes(folder.path("x.gz"), b"\x1f\x8bnot gzip")
    with folder.open(folder.path("x.gz")) as file:
        assert file.read() == b"\x1f\x8bnot gzip"


def test_a_committed_attempt_has_a_table(folder: DatasetFolder) -> None:
    lost, second, first = sorted(
        (folder.new_attempt(SHARD) for _ in range(3)), key=lambda a: a.name, reverse=True
    )
    write(folder, lost.originals, lost.candidates, second.table, first.candidates, first.table)
    assert folder.attempts() == {SHARD: [first, second]}
    assert DatasetFolder(folder.path("none")).attempts() == {}


@pytest.mark.parametrize("name", ["data [1] *?", "d{a,b}", "ü %41"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    folder = DatasetFolder(str(tmp_path / name))
    attempt = folder.new_attempt(SHARD)
    write(folder, attempt.table, attempt.candidates, folder.build)
    assert folder.attempts() == {SHARD: [attempt]}
    assert folder.exists(folder.build)
    folder.delete([folder.build, folder.build])
    folder.clean_up()
    assert files(folder) == [f"fetched/{SHARD}.{attempt.name}.table.parquet"]


def test_clean_up_keeps_originals_and_the_table_of_the_attempt_that_counts(
    folder: DatasetFolder,
) -> None:
    first, second, lost = sorted(
        (folder.new_attempt(SHARD) for _ in range(3)), key=lambda a: a.name
    )
    for attempt in (first, second):
        write(folder, attempt.originals, attempt.candidates, attempt.table)
    write(folder, lost.originals, folder.progress(0), folder.path("tmp", "x", "y"), folder.build)
    folder.clean_up()
    kept = [Path(path).name for path in (first.originals, first.table)]
    assert files(folder) == ["build.json", *(f"fetched/{name}" for name in sorted(kept))]


def begun(folder: DatasetFolder) -> str:
    """A finished build; the name of its originals."""
    attempt = folder.new_attempt(SHARD)
    write(folder, attempt.originals, attempt.candidates, attempt.table)
    write(folder, folder.build, folder.plan_index, folder.plan(SHARD), folder.manifest)
    write(folder, folder.examples(SHARD), folder.outcomes(SHARD))
    return Path(attempt.originals).name


def test_begin_again_keeps_originals_alone(folder: DatasetFolder) -> None:
    names = []
    for _ in range(2):
        names.append(begun(folder))
        folder.begin_again()
        assert files(folder) == sorted(f"originals/{name}" for name in names)


def test_begin_again_cut_off_anywhere_leaves_no_other_builds_shards(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = DatasetFolder.delete
    for cut in range(1, 20):
        begun(folder)
        deletions = 0

        def some(self: DatasetFolder, paths: list[str], cut: int = cut) -> None:
            nonlocal deletions
            for path in paths:
                deletions += 1
                if deletions == cut:
                    raise KeyboardInterrupt
                delete(self, [path])

        monkeypatch.setattr(DatasetFolder, "delete", some)
        try:
            folder.begin_again()
        except KeyboardInterrupt:
            # What is left is still known as the old build, or nothing of it is left.
            assert folder.exists(folder.build) or not folder.attempts()
            assert folder.exists(folder.manifest) or not folder.exists(folder.plan_index)
        else:
            assert cut > 5
            return
        finally:
            monkeypatch.undo()


def lease_of(folder: DatasetFolder) -> dict[str, object]:
    values: dict[str, object] = json.loads(Path(folder.path("lease.json")).read_text())
    return values


def hold(folder: DatasetFolder, **change: object) -> dict[str, object]:
    """A lease as another job would have written it."""
    with Lease(folder):
        lease = lease_of(folder) | {"job": "other"} | change
    folder.publish_json(folder.path("lease.json"), lease)
    return lease


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
    monkeypatch.setattr(storage, "_RENEW_S", 0.01)
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
    write(folder, folder.progress(0))
    with pytest.raises(UsageError, match=r"free in \d+ s"), Lease(folder):
        pass
    long_ago = time.time() - storage.LEASE_S - 1
    os.utime(folder.progress(0), (long_ago, long_ago))
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


def test_a_finished_dataset_is_held_by_no_dead_driver_and_no_progress(
    folder: DatasetFolder,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(folder, outlives_driver=True, pid=dead.pid)
    write(folder, folder.progress(0), folder.manifest)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"
    hold(folder, outlives_driver=True, host="elsewhere", expires=time.time() - 1)
    with Lease(folder):
        assert lease_of(folder)["job"] != "other"


def test_what_a_killed_build_left_in_the_making_is_discarded(folder: DatasetFolder) -> None:
    attempt = folder.new_attempt(SHARD)
    kept = [folder.build, folder.plan(SHARD), attempt.originals, folder.path("notes.tmp")]
    write(folder, *kept)
    temporary = f".{'0123456789abcdef' * 2}.tmp"
    write(folder, folder.path("tmp", "x", "y"))
    for path in (folder.build, folder.path("lease.json"), folder.plan_index, folder.progress(1)):
        write(folder, path + temporary)
    folder.discard_unfinished()
    assert files(folder) == sorted(str(Path(path).relative_to(folder.root)) for path in kept)
