from collections import Counter
from pathlib import Path

import pytest

from pipelines.build.advice import advice, larger_splits
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest, Shard
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import write_table


def advised(
    directory: Path, sizes: list[tuple[Outcome, int]], options: DatasetOptions, *splits: str
) -> list[str]:
    (directory / "outcomes").mkdir()
    rows = [
        Row(outcome, f"{number:03}", f"{number:03}.png", width=side, height=side + 9)
        for number, (outcome, side) in enumerate(sizes)
    ]
    with (directory / "outcomes" / "train-00000-of-00001.parquet").open("wb") as file:
        write_table(file, rows)
    outcomes = Counter(outcome for outcome, _ in sizes)
    shards = {f"{split}-00000-of-00001": Shard(1, "", 99) for split in splits}
    return advice(DatasetFolder(str(directory)), Manifest(options, {}, shards, outcomes))


def test_small_pictures_are_told_the_crop_that_suits(tmp_path: Path) -> None:
    sizes = [(Outcome.OK, 300)] * 19 + [(Outcome.TOO_SMALL, 160)] * 67 + [(Outcome.TOO_SMALL, 90)]
    (sentence,) = advised(tmp_path, sizes, DatasetOptions(), "train", "validation", "test")
    assert sentence == (
        "68 pictures are too_small: at least 248 px a side are needed; --crop-size 120 "
        "--overwrite takes 86 of 87"
    )


def test_no_crop_is_named_where_none_would_do(tmp_path: Path) -> None:
    sizes = [(Outcome.TOO_SMALL, 16), (Outcome.OK, 300)]
    (sentence,) = advised(tmp_path, sizes, DatasetOptions(), "train", "validation", "test")
    assert sentence.endswith("at least 248 px a side are needed")


def test_a_few_small_pictures_are_no_matter(tmp_path: Path) -> None:
    sizes = [(Outcome.TOO_SMALL, 100)] + [(Outcome.OK, 300)] * 30
    assert advised(tmp_path, sizes, DatasetOptions(), "train", "validation", "test") == []


def test_empty_splits_are_told_larger_parts(tmp_path: Path) -> None:
    (sentence,) = advised(tmp_path, [(Outcome.OK, 300)] * 19, DatasetOptions(), "train")
    assert sentence == (
        "validation and test got none of the 19 pictures: try --splits "
        "train=0.5,validation=0.25,test=0.25 --overwrite"
    )


def test_a_split_that_is_not_wanted_is_not_missed(tmp_path: Path) -> None:
    options = DatasetOptions(splits={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert advised(tmp_path, [(Outcome.OK, 300)], options, "train") == []


@pytest.mark.parametrize(("pictures", "part"), [(0, 0.25), (25, 0.2), (40, 0.13), (1_000, 0.1)])
def test_parts_grow_as_pictures_get_few(pictures: int, part: float) -> None:
    splits = larger_splits(pictures)
    assert splits == {"train": pytest.approx(1 - 2 * part), "validation": part, "test": part}
    DatasetOptions.from_json(DatasetOptions(splits=splits).to_json())  # they add up
