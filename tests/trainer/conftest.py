"""Small real datasets, written by the packages that write large ones."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from pipelines.dataset.options import DatasetOptions, Degradation
from pipelines.dataset.tfrecord import frame_record
from pipelines.pictures.degradation import degrade


def write_dataset(
    directory: Path,
    splits: dict[str, Sequence[Image.Image]],
    *,
    shards: int = 1,
    degradation: Degradation = Degradation.ARTICLE,
) -> Path:
    """A finished dataset folder of the given square crops; empty splits have no shard."""
    crop_size = next(crop.width for crops in splits.values() for crop in crops)
    options = DatasetOptions(crop_size=crop_size, degradation=degradation)
    written = {}
    (directory / "examples").mkdir(parents=True)
    for split, crops in splits.items():
        count = shards if split == "train" else 1
        for index in range(count):
            name = f"{split}-{index:05}-of-{count:05}"
            part = [example(crop, n, options) for n, crop in enumerate(crops) if n % count == index]
            if part:
                written[name] = _write_shard(directory / "examples" / f"{name}.tfrecord", part)
    manifest = Manifest(options, source={}, shards=written, outcomes={})
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest.to_json()))
    return directory


def example(crop: Image.Image, number: int, options: DatasetOptions) -> Example:
    return Example(
        image_id=f"n{number % 3:08}_{number}",
        url=f"http://example.org/{number}.jpg",
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        crop=Crop(0, 0, crop.width, crop.height),
        hr=_png(crop),
        lr={
            scale: _png(Image.fromarray(lr))
            for scale, lr in degrade(np.asarray(crop), options.scales, options.degradation).items()
        },
    )


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _write_shard(path: Path, examples: list[Example]) -> Shard:
    with path.open("wb") as file:
        for item in examples:
            file.write(frame_record(item.to_bytes()))
    data = path.read_bytes()
    return Shard(len(examples), hashlib.sha256(data).hexdigest(), len(data))


def photo_crops(count: int, size: int) -> list[Image.Image]:
    """Different crops of one photograph."""
    photo = Image.fromarray(skimage.data.astronaut())
    corners = np.random.default_rng(1).integers(0, photo.width - size, (count, 2)).tolist()
    return [photo.crop((x, y, x + size, y + size)) for x, y in corners]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """write_dataset into a folder of its own: make_dataset(splits, shards=..., ...)."""
    return lambda splits, **options: write_dataset(tmp_path / "made", splits, **options)


@pytest.fixture(scope="session")
def crops() -> Callable[[int, int], list[Image.Image]]:
    """photo_crops."""
    return photo_crops


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 3 validation crops of 48 px, in 3 and 1 shards."""
    crops = photo_crops(15, 48)
    splits = {"train": crops[:12], "validation": crops[12:], "test": []}
    return write_dataset(tmp_path_factory.mktemp("data") / "set", splits, shards=3)
