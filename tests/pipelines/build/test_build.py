import errno
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.build.build import build, may_run_again
from pipelines.build.engine import EMBEDDED, Engine
from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.outcome_table import read_table
from pipelines.dataset.tfrecord import read_records
from pipelines.lists.list_file import Source

SPLITS = {"train": 0.5, "validation": 0.25, "test": 0.25}
OPTIONS = DatasetOptions(crop_size=32, scales=(2,), num_shards=2, splits=SPLITS)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, one of them three times, and two files that are none."""
    directory = tmp_path_factory.mktemp("pictures")
    photo = Image.fromarray(skimage.data.chelsea())
    for number in range(12):
        photo.crop((number * 8, 0, number * 8 + 64, 64)).save(directory / f"n{number:02}.png")
    for name in ("copy.png", "again.png"):
        (directory / name).write_bytes((directory / "n03.png").read_bytes())
    (directory / "text.jpg").write_text("no picture")
    (directory / "cut.png").write_bytes((directory / "n01.png").read_bytes()[:-50])
    return directory


def run(folder: Path, pictures: Path, options: DatasetOptions = OPTIONS, **how: bool) -> None:
    source = Source(str(pictures), is_folder=True)
    engine = Engine.of(EMBEDDED)
    build(DatasetFolder(str(folder)), options, CrawlOptions(), source, engine, **how)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> DatasetFolder:
    directory = tmp_path_factory.mktemp("data") / "set"
    run(directory, pictures)
    return DatasetFolder(str(directory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EMFILE, "the machine cannot go on: Too many open files: allow it more open files"),
        (errno.EIO, "the machine cannot go on: Input/output error: see to its disk"),
        (errno.ENOSPC, "no space is left for .*: make room"),
    ],
)
def test_an_error_of_the_machine_ends_a_build_in_one_line_and_the_next_one_goes_on(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.crawl.folder.Folder._read", fail)
        with pytest.raises(WorkError, match=f"{told}.*the same command goes on from there$"):
            run(tmp_path / "set", pictures)
    run(tmp_path / "set", pictures)
    assert (tmp_path / "set" / "dataset.json").exists()


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_holds_what_the_contract_says_and_nothing_else(built: DatasetFolder) -> None:
    names = {path.name for path in Path(built.root).iterdir()}
    assert names == {"build.json", "plan", "fetched", "examples", "outcomes", "dataset.json"}
    kinds = {name.partition(".")[2].partition(".")[2] for name in built.names("fetched")}
    assert kinds == {"originals.tfrecord", "table.parquet"}


def test_every_line_has_its_outcome(built: DatasetFolder) -> None:
    rows = []
    for name in built.names("outcomes"):
        with built.open(built.path("outcomes", name)) as file:
            rows += read_table(file)
    outcomes = Manifest.load(built.root).outcomes
    assert outcomes == {"ok": 12, "duplicate_image": 2, "not_an_image": 1, "corrupt": 1}
    assert len(rows) == 16
    kept = {row.image_id for row in rows if row.outcome is Outcome.OK}
    copies = {"n03", "copy", "again"}
    assert len(kept & copies) == 1
    assert {row.duplicate_of for row in rows if row.outcome is Outcome.DUPLICATE_IMAGE} == {
        f"{name} {name}.png" for name in kept & copies
    }


def test_examples_are_those_of_the_manifest(built: DatasetFolder, pictures: Path) -> None:
    manifest = Manifest.load(built.root)
    assert built.names("examples") == [f"{name}.tfrecord" for name in sorted(manifest.shards)]
    for name, shard in manifest.shards.items():
        data = Path(built.examples(name)).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard.sha256
        with built.open(built.examples(name)) as file:
            examples = [Example.from_bytes(record) for record in read_records(file)]
        assert len(examples) == shard.examples
        keys = [(e.image_id, e.url, e.crop) for e in examples]
        assert keys == sorted(keys)
        for example in examples:
            with Image.open(pictures / example.url) as image:
                crop = example.crop
                hr = np.asarray(image)[crop.y : crop.y + 32, crop.x : crop.x + 32]
            path = Path(built.root) / "hr.png"
            path.write_bytes(example.hr)
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(image), hr)
            path.unlink()


def test_a_second_build_has_the_same_bytes(
    built: DatasetFolder, pictures: Path, tmp_path: Path
) -> None:
    run(tmp_path / "set", pictures)
    first, second = hashes(Path(built.root)), hashes(tmp_path / "set")
    final = [name for name in first if not name.startswith("fetched/")]
    assert [name for name in second if not name.startswith("fetched/")] == final
    assert {name: first[name] for name in final} == {name: second[name] for name in final}


def test_a_finished_build_is_left_alone(
    built: DatasetFolder, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = hashes(Path(built.root))
    run(Path(built.root), pictures)
    assert "is already complete" in caplog.text
    assert "outcomes: ok 12, duplicate_image 2" in caplog.text
    assert hashes(Path(built.root)) == before
    with pytest.raises(UsageError, match="--seed 0, not 1"):
        run(Path(built.root), pictures, DatasetOptions(**vars(OPTIONS) | {"seed": 1}))
    assert hashes(Path(built.root)) == before


def test_nothing_good_fails_with_the_totals(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").write_text(f"no picture {number}")
    with pytest.raises(WorkError, match="not one picture became an example: not_an_image 3"):
        run(tmp_path / "set", pictures)
    assert not (tmp_path / "set" / "dataset.json").exists()
    assert not (tmp_path / "set" / "lease.json").exists()


@pytest.mark.parametrize(
    ("progressed", "deaths", "fruitless", "again"),
    [
        (True, 0, 0, True),
        (True, 0, 9, True),
        (False, 0, 0, False),
        (False, 1, 0, True),
        (False, 2, 2, True),
        (False, 1, 3, False),
    ],
)
def test_a_failed_job_runs_again_while_that_leads_anywhere(
    progressed: bool, deaths: int, fruitless: int, again: bool
) -> None:
    assert may_run_again(progressed, deaths, fruitless) is again


def test_the_log_says_what_the_crawl_did(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(tmp_path / "set", pictures)
    (line,) = [record.getMessage() for record in caplog.records if "pictures/s" in record.message]
    assert line.startswith("crawl: 16 of 16 pictures (100 %), ")
    assert "ok 14, corrupt 1, not_an_image 1" in line
