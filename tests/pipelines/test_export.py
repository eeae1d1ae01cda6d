import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import export as command
from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.tfrecord import read_records
from pipelines.inspect import export as module
from tests.support.dataset import write_dataset
from tests.support.site import crops

FORMS = ("folders", "webdataset", "parquet")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures; two ids have a dot and a slash, and differ in nothing else."""
    pictures = iter(crops(9, 24))
    names = ["n01440764_1", "a.b/c", "a_b/c", "é", *(f"n01440764_{n}" for n in range(2, 6))]
    splits = {
        "train": {name: next(pictures) for name in names},
        "test": {"n01440764_9": next(pictures)},
    }
    folder = tmp_path_factory.mktemp("exported") / "set"
    return write_dataset(folder, splits, shards=3, scales=(2, 3), degradation="bicubic")


def exported(dataset: Path, form: str, output: Path) -> Path:
    command.main([str(dataset), "--to", form, str(output)])
    return output


def examples(dataset: Path, split: str) -> Iterator[Example]:
    for path in Manifest.load(str(dataset)).shard_paths(str(dataset), split):
        with Path(path).open("rb") as file:
            yield from map(Example.from_bytes, read_records(file))


def sums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_folders_are_pairs_as_basicsr_reads_them(dataset: Path, tmp_path: Path) -> None:
    """PairedImageDataset with a meta_info_file: the name of the first column is in both folders."""
    train = exported(dataset, "folders", tmp_path / "out") / "train"
    lines = (train / "meta_info.txt").read_text().splitlines()
    wanted = list(examples(dataset, "train"))
    assert [line.split(" ")[0] for line in lines] == [f"{n:04}.png" for n in range(1, 9)]
    with (train / "index" / "train-00000-of-00003.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["image_id"] == wanted[0].image_id
    for line, example in zip(lines, wanted, strict=True):
        name, _, size = line.partition(" ")
        assert size == "(24,24,3)"
        assert (train / "HR" / name).read_bytes() == example.hr
        for scale in (2, 3):
            lr = train / "LR_bicubic" / f"X{scale}" / f"{Path(name).stem}x{scale}.png"
            assert lr.read_bytes() == example.lr[scale]
    assert len((tmp_path / "out" / "test" / "meta_info.txt").read_text().splitlines()) == 1
    assert not (tmp_path / "out" / "validation").exists()


def samples(folder: Path) -> list[dict[str, bytes]]:
    """As WebDataset groups a tar's files: by their name up to the first dot."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("train-*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                file = archive.extractfile(member)
                assert file and member.mtime == member.uid == 0
                found.setdefault(f"{path.name} {key}", {})[suffix] = file.read()
    return list(found.values())


def test_webdataset_tars_hold_a_sample_for_each_example(dataset: Path, tmp_path: Path) -> None:
    found = samples(exported(dataset, "webdataset", tmp_path / "out"))
    wanted = list(examples(dataset, "train"))
    assert len(found) == len(wanted)
    for sample, example in zip(found, wanted, strict=True):
        described = json.loads(sample.pop("json"))
        assert described["image_id"] == example.image_id
        assert described["crop"] == [0, 0, 24, 24]
        assert sample == {
            "hr.png": example.hr,
            "lr_x2.png": example.lr[2],
            "lr_x3.png": example.lr[3],
        }


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves closing to Python
def test_webdataset_reads_them(dataset: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(map(str, exported(dataset, "webdataset", tmp_path / "out").glob("train-*.tar")))
    found = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    wanted = list(examples(dataset, "train"))
    assert [sample["json"]["image_id"] for sample in found] == [one.image_id for one in wanted]
    for sample, example in zip(found, wanted, strict=True):
        assert np.array_equal(sample["hr.png"], pixels(example.hr))
        assert np.array_equal(sample["lr_x3.png"], pixels(example.lr[3]))


def test_parquet_holds_the_pictures_bytes(dataset: Path, tmp_path: Path) -> None:
    output = exported(dataset, "parquet", tmp_path / "out")
    names = sorted(path.name for path in (output / "data").iterdir())
    assert names[0] == "test-00000-of-00001.parquet"
    rows = [row for name in names[1:] for row in pq.read_table(output / "data" / name).to_pylist()]
    wanted = list(examples(dataset, "train"))
    assert [row["hr"]["bytes"] for row in rows] == [one.hr for one in wanted]
    assert [row["lr_x2"]["bytes"] for row in rows] == [one.lr[2] for one in wanted]
    assert [row["url"] for row in rows] == [one.url for one in wanted]


def test_datasets_reads_it(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    output = exported(dataset, "parquet", tmp_path / "out")
    found = datasets.load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
    assert {split: len(found[split]) for split in found} == {"train": 8, "test": 1}
    for row, example in zip(found["train"], examples(dataset, "train"), strict=True):
        assert row["image_id"] == example.image_id
        assert np.array_equal(np.asarray(row["hr"]), pixels(example.hr))
        assert np.array_equal(np.asarray(row["lr_x2"]), pixels(example.lr[2]))


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_export_goes_on_to_the_same_bytes(
    dataset: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sums(exported(dataset, form, tmp_path / "whole"))
    read: list[str] = []
    true = module._examples

    def interrupted(source: DatasetFolder, part: module.Part) -> Iterator[Example]:
        read.append(part.shard)
        for number, example in enumerate(true(source, part)):
            if len(read) == 2 and number == 1:
                raise KeyboardInterrupt
            yield example

    monkeypatch.setattr(module, "_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported(dataset, form, tmp_path / "cut")
    exported(dataset, form, tmp_path / "cut")
    assert read.count(read[0]) == 1
    assert sums(tmp_path / "cut") == whole
    exported(dataset, form, tmp_path / "cut")
    assert len(read) == len(set(read)) + 1


def test_what_cannot_be_exported_is_one_line(dataset: Path, tmp_path: Path) -> None:
    output = exported(dataset, "parquet", tmp_path / "out")
    with pytest.raises(UsageError, match="holds an export of another dataset, or to parquet"):
        exported(dataset, "folders", output)
    with pytest.raises(UsageError, match="holds something else"):
        exported(dataset, "folders", dataset)
    (tmp_path / "file").touch()
    with pytest.raises(WorkError, match=r"cannot export to .*File exists"):
        exported(dataset, "folders", tmp_path / "file")
    with pytest.raises(UsageError, match="is not a finished dataset"):
        exported(tmp_path, "folders", tmp_path / "new")
    pictures = {"train": {f"n{n}": crop for n, crop in enumerate(crops(2, 24))}}
    broken = write_dataset(tmp_path / "broken", pictures, scales=(2,))
    (path,) = (broken / "examples").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkError, match=r"tfrecord: the record at byte .*pipelines\.verify"):
        exported(broken, "folders", tmp_path / "new")
