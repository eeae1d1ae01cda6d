"""Real photos, re-encoded and resized copies among them, through a whole build."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from pipelines.dataset.outcome import Outcome, Row
from tests.support.build import command, run
from tests.support.build import rows as rows_of

pytestmark = pytest.mark.slow

OPTIONS = ["--crop-size", "24", "--scales", "2", "--crop-margin", "0", "--num-shards", "6"]
OPTIONS += ["--splits", "train=0.6,validation=0.2,test=0.2"]
SETS = {
    "photos": "imagenet/photos",
    "t91": "train/t91",
    "bsd200": "train/bsd200",
    "bsd100": "benchmarks/bsd100",
    "set14": "benchmarks/set14",
}
COPIES = 3
# Looked at: t91 has this picture twice.
SAME = {frozenset({"t91/t36", "t91/t65"})}


def add_copies(path: Path, folder: Path, numbers: random.Random) -> None:
    """Two JPEG and a PNG copy of a photo, smaller, in a folder of its name."""
    folder.mkdir(parents=True)
    with Image.open(path) as file:
        photo = ImageOps.exif_transpose(file).convert("RGB")
    for number in range(COPIES):
        scale = numbers.uniform(0.5, 0.9)
        filter_ = numbers.choice([Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
        size = (round(photo.width * scale), round(photo.height * scale))
        copy = photo.resize(size, filter_)
        if number:
            copy.save(folder / f"{number}.jpg", quality=numbers.randint(60, 95))
        else:
            copy.save(folder / f"{number}.png", compress_level=1)


@pytest.fixture(scope="module")
def pictures(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    numbers = random.Random(5)
    for name, source in SETS.items():
        (folder / name).mkdir()
        for path in sorted((shared_data / source).iterdir()):
            (folder / name / path.name).symlink_to(path)
            if name == "photos":
                add_copies(path, folder / "copies" / path.stem, numbers)
    return folder


def built(pictures: Path, output: Path, crawlers: int) -> list[Row]:
    given = [*OPTIONS, "--crawlers", str(crawlers)]
    result = run(*command(pictures, output, *given, option="--images"))
    assert result.returncode == 0, result.stderr
    return rows_of(output)


@pytest.fixture(scope="module")
def rows(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Row]]:
    yield built(pictures, tmp_path_factory.mktemp("built") / "set", 1)


def picture_of(name: str) -> str:
    """The photo that an id is of, itself or a copy: 'photos/dog' of 'copies/dog/1'."""
    kind, _, rest = name.partition("/")
    return f"photos/{rest.rpartition('/')[0]}" if kind == "copies" else name


def test_copies_are_dropped_and_no_two_pictures_merge(rows: list[Row]) -> None:
    assert {row.outcome for row in rows} == {Outcome.OK, Outcome.DUPLICATE_IMAGE}
    pictures = Counter(picture_of(row.image_id or "") for row in rows)
    kept = Counter(picture_of(row.image_id or "") for row in rows if row.outcome is Outcome.OK)
    copies = [name for name, count in pictures.items() if count > 1]
    assert len(copies) == 500
    dropped = sum(pictures[name] - kept[name] for name in copies)
    assert dropped >= 0.95 * COPIES * len(copies), f"{dropped} of {COPIES * len(copies)}"
    merged = {
        frozenset({picture_of(row.image_id or ""), picture_of(row.duplicate_of.partition(" ")[0])})
        for row in rows
        if row.duplicate_of
    }
    assert {pair for pair in merged if len(pair) > 1} == SAME
    lost = {name for name in pictures if not kept[name]}
    assert [len(pair & lost) for pair in SAME] == [len(lost)] == [1]


def test_more_crawlers_drop_the_same(pictures: Path, rows: list[Row], tmp_path: Path) -> None:
    assert built(pictures, tmp_path / "set", 2) == rows
