from pathlib import Path

import pytest

from pipelines.dataset.folder import DatasetFolder
from tests.support.folder import files, publish

SHARD = "train-00000-of-00001"


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


def test_a_file_that_goes_while_its_folder_is_listed_is_left_out(folder: DatasetFolder) -> None:
    folder.publish_bytes(folder.build, b"four")
    Path(folder.path("gone")).symlink_to("nowhere")
    assert folder.sizes() == {"build.json": 4}
    assert folder.times().keys() == {"build.json"}


def test_files_are_not_decompressed(folder: DatasetFolder) -> None:
    folder.publish_bytes(folder.path("x.gz"), b"\x1f\x8bnot gzip")
    with folder.open(folder.path("x.gz")) as file:
        assert file.read() == b"\x1f\x8bnot gzip"


def test_a_committed_attempt_has_a_table(folder: DatasetFolder) -> None:
    lost, second, first = sorted(
        (folder.new_attempt(SHARD) for _ in range(3)), key=lambda a: a.name, reverse=True
    )
    publish(folder, lost.originals, lost.candidates, second.table, first.candidates, first.table)
    assert folder.attempts() == {SHARD: [first, second]}
    assert DatasetFolder(folder.path("none")).attempts() == {}


@pytest.mark.parametrize("name", ["data [1] *?", "d{a,b}", "ü %41"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    folder = DatasetFolder(str(tmp_path / name))
    attempt = folder.new_attempt(SHARD)
    publish(folder, attempt.table, attempt.candidates, folder.build)
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
        publish(folder, attempt.originals, attempt.candidates, attempt.table)
    publish(folder, lost.originals, folder.progress(0), folder.path("tmp", "x", "y"), folder.build)
    folder.clean_up()
    kept = [Path(path).name for path in (first.originals, first.table)]
    assert files(folder) == ["build.json", *(f"fetched/{name}" for name in sorted(kept))]


def test_clean_up_keeps_all_originals_of_earlier_builds_and_nothing_else_of_them(
    folder: DatasetFolder,
) -> None:
    old = folder.new_attempt(SHARD)
    new = folder.build_of(2).new_attempt(SHARD)
    for attempt in (old, new):
        publish(folder, attempt.originals, attempt.candidates, attempt.table)
    assert folder.attempts() == {SHARD: [old]}
    assert folder.build_of(2).attempts() == {SHARD: [new]}
    folder.build_of(2).clean_up()
    kept = [old.originals, new.originals, new.table]
    assert files(folder) == sorted(str(Path(path).relative_to(folder.root)) for path in kept)
    folder.build_of(2).clean_up(keep_originals=False)
    kept.remove(new.originals)
    assert files(folder) == sorted(str(Path(path).relative_to(folder.root)) for path in kept)


def test_results_are_deleted_and_what_was_fetched_stays(folder: DatasetFolder) -> None:
    attempt = folder.new_attempt(SHARD)
    publish(folder, attempt.originals, attempt.table, folder.build)
    kept = files(folder)
    publish(folder, folder.plan_index, folder.plan(SHARD), folder.manifest)
    publish(folder, folder.examples(SHARD), folder.outcomes(SHARD))
    folder.delete_results()
    assert files(folder) == kept
    folder.delete_results()


def test_what_a_killed_build_left_in_the_making_is_discarded(folder: DatasetFolder) -> None:
    attempt = folder.new_attempt(SHARD)
    kept = [folder.build, folder.plan(SHARD), attempt.originals, folder.path("notes.tmp")]
    publish(folder, *kept)
    temporary = f".{'0123456789abcdef' * 2}.tmp"
    publish(folder, folder.path("tmp", "x", "y"))
    for path in (folder.build, folder.path("lease.json"), folder.plan_index, folder.progress(1)):
        publish(folder, path + temporary)
    folder.discard_unfinished()
    assert files(folder) == sorted(str(Path(path).relative_to(folder.root)) for path in kept)
