import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.command.cli import UsageError
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import load, prepare

THREE = {"train": 0.6, "validation": 0.2, "test": 0.2}
LINES = [
    *(f"n01440764_{n}\thttp://farm{n % 4}.static.flickr.com/{n}.jpg".encode() for n in range(600)),
    *(f"n01530575_{n}\thttp://www.site{n % 300}.org/{n}.jpg".encode() for n in range(600)),
    b"not a line",
    b"n01530575_9999\tftp://www.site1.org/1.jpg",
]


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "data"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_list(tmp_path / "list.txt", LINES)


def write_list(path: Path, lines: list[bytes]) -> Source:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return Source(str(path))


def plan_lines(folder: DatasetFolder) -> dict[str, list[bytes]]:
    return {
        name: Path(folder.plan(name)).read_bytes().split(b"\n")[:-1] for name in load(folder).shards
    }


def test_every_selected_line_is_in_one_shard(folder: DatasetFolder, source: Source) -> None:
    plan = prepare(folder, DatasetOptions(splits=THREE), source)
    shards = plan_lines(folder)
    assert sorted(line for lines in shards.values() for line in lines) == sorted(LINES)
    assert plan.shards == {name: len(lines) for name, lines in shards.items()}
    assert plan.source["lines"] == len(LINES)
    order = {line: number for number, line in enumerate(LINES)}
    for lines in shards.values():
        assert lines == sorted(lines, key=order.__getitem__)


def test_selecting_nothing_is_refused(folder: DatasetFolder, source: Source) -> None:
    with pytest.raises(UsageError, match="no line of the list is selected"):
        prepare(folder, DatasetOptions(wnids=("n00000000",)), source)
    assert not Path(folder.root).exists()


def test_other_options_are_refused_with_both_values(folder: DatasetFolder, source: Source) -> None:
    options = DatasetOptions()
    prepare(folder, options, source)
    with pytest.raises(UsageError, match=r"--crop-size 200, not 96; --scales 2,3,4, not 2: use"):
        prepare(folder, replace(options, crop_size=96, scales=(2,)), source)


def test_another_list_is_refused(folder: DatasetFolder, source: Source, tmp_path: Path) -> None:
    prepare(folder, DatasetOptions(), source)
    other = write_list(tmp_path / "other.txt", LINES[:-1])
    with pytest.raises(UsageError, match=r"1,202 lines of .*list.txt.*not with these 1,201"):
        prepare(folder, DatasetOptions(), other)


def test_a_list_that_changed_but_kept_name_and_size_is_refused(
    folder: DatasetFolder, source: Source
) -> None:
    prepare(folder, DatasetOptions(), source)
    path = Path(source.name)
    changed = path.read_bytes().replace(b"/7.jpg", b"/8.jpg")
    assert len(changed) == path.stat().st_size
    path.write_bytes(changed)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match=r"was begun with the 1,202 lines .*not with these 1,202"):
        prepare(folder, DatasetOptions(), source)


def test_what_is_gone_on_with_and_what_is_left_out_is_told(
    folder: DatasetFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = write_list(tmp_path / "list.txt", [*LINES, *(line + b"\tmore" for line in LINES[:2])])
    for _ in range(2):
        sha256 = prepare(folder, DatasetOptions(), source).source["sha256"]
    assert [record.message for record in caplog.records] == [
        "2 lines have more than an image id and a URL: what follows another TAB is left out",
        f"going on with the 1,204 lines of {source.name} (sha256 {sha256[:12]})",
    ]


def test_the_same_list_elsewhere_goes_on(
    folder: DatasetFolder, source: Source, tmp_path: Path
) -> None:
    plan = prepare(folder, DatasetOptions(), source)
    copy = write_list(tmp_path / "copy.txt", LINES)
    assert prepare(folder, DatasetOptions(), copy) == plan
    assert prepare(folder, DatasetOptions(), source) == plan


def test_an_interrupted_plan_goes_on(folder: DatasetFolder, source: Source) -> None:
    plan = prepare(folder, DatasetOptions(), source)
    before = plan_lines(folder)
    Path(folder.plan_index).unlink()
    Path(folder.plan(min(plan.shards))).unlink()
    Path(folder.plan(max(plan.shards))).write_bytes(b"half a li")
    assert prepare(folder, DatasetOptions(), source) == plan
    assert plan_lines(folder) == before


def test_a_folder_begun_by_another_version_is_refused(
    folder: DatasetFolder, source: Source
) -> None:
    prepare(folder, DatasetOptions(), source)
    values = folder.read_json(folder.build)
    folder.publish_json(folder.build, values | {"format": 1})
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="begun by another version of this program"):
            prepare(folder, DatasetOptions(), source, overwrite=overwrite)


def test_a_dataset_without_its_build_is_not_touched(folder: DatasetFolder, source: Source) -> None:
    folder.publish_json(folder.manifest, {})
    with pytest.raises(UsageError, match=r"holds a dataset, but no build\.json"):
        prepare(folder, DatasetOptions(), source, overwrite=True)
    assert folder.exists(folder.manifest)
    assert not folder.exists(folder.build)


def test_a_finished_dataset_is_complete_without_its_plan(
    folder: DatasetFolder, source: Source
) -> None:
    prepare(folder, DatasetOptions(), source)
    folder.publish_json(folder.manifest, {})
    folder.delete([folder.plan_index])
    prepare(folder, DatasetOptions(), source)
    assert folder.exists(folder.manifest)


@pytest.mark.slow
def test_what_an_earlier_build_left_is_not_taken_for_the_next_ones(
    folder: DatasetFolder, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the change from one build to the next is cut off."""
    other = DatasetOptions(seed=1)
    undisturbed = prepare(DatasetFolder(f"{folder.root}-2"), other, source)
    for cut in range(1, 100):
        planned = prepare(folder, DatasetOptions(), source, overwrite=True)
        shard = min(planned.shards)
        attempt = folder.build_of(planned.generation).new_attempt(shard)
        kept = [attempt.originals, attempt.table]
        results = [folder.manifest, folder.examples(shard), folder.outcomes(shard)]
        for path in (*kept, *results):
            folder.publish_json(path, {})
        changes = 0

        def change(function: Callable[..., None], *arguments: Any, **named: Any) -> None:
            nonlocal changes
            changes += 1
            if changes == cut:  # noqa: B023  called before the next turn
                raise KeyboardInterrupt
            function(*arguments, **named)

        with monkeypatch.context() as patched:
            for name in ("replace", "unlink"):
                patched.setattr(os, name, partial(change, getattr(os, name)))
            try:
                prepare(folder, other, source, overwrite=True)
            except KeyboardInterrupt:
                pass
            else:
                assert cut > 20
                return
        build = BuildRecord.load(folder)
        assert build
        if build.options != other.to_json():
            assert state_of(folder, build) is State.COMPLETE
            continue
        assert state_of(folder, build) is not State.COMPLETE
        found = prepare(folder, other, source)
        assert found.shards == undisturbed.shards
        assert folder.build_of(found.generation).attempts() == {}
        assert all(folder.exists(path) for path in kept)
        assert not any(folder.exists(path) for path in results)


def test_a_folder_of_pictures_is_planned_like_a_list(folder: DatasetFolder, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        (pictures / f"{number}.jpg").touch()
    plan = prepare(folder, DatasetOptions(), Source(str(pictures), is_folder=True))
    assert sum(plan.shards.values()) == 40
    assert len(plan.shards) > 8


def test_overwrite_begins_anew_once_the_list_is_known_to_be_good(
    folder: DatasetFolder, source: Source, tmp_path: Path
) -> None:
    prepare(folder, DatasetOptions(), source)
    before = plan_lines(folder)
    with pytest.raises(UsageError):
        prepare(folder, DatasetOptions(), Source(str(tmp_path / "none")), overwrite=True)
    assert plan_lines(folder) == before
    other = write_list(tmp_path / "other.txt", LINES[:10])
    assert prepare(folder, DatasetOptions(seed=1), other, overwrite=True).source["lines"] == 10
    assert sum(map(len, plan_lines(folder).values())) == 10
