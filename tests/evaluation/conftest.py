"""A small dataset of shipped photographs, networks that are known exactly, the shared pictures."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.tfrecord import frame_record
from pipelines.pictures.degradation import degrade

SHARED_DATA = Path(
    os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no test data at {SHARED_DATA}: set SHARED_DATA to its folder")
    return SHARED_DATA


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    """Crops of 96x96 pixels."""
    corner = 100
    box = (corner, corner, corner + 96, corner + 96)
    return {name: Image.fromarray(getattr(skimage.data, name)()).crop(box) for name in PHOTOS}


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Image.Image]) -> Path:
    """The photos as PNG files."""
    directory = tmp_path / "shipped"
    directory.mkdir()
    for name, photo in photos.items():
        photo.save(directory / f"{name}.png")
    return directory


def write_dataset(
    directory: Path, crops: dict[str, Image.Image], *, split: str = "test", **options: object
) -> Path:
    """A finished dataset whose only split with examples holds ``crops``, by image id."""
    settings = DatasetOptions(crop_size=next(iter(crops.values())).width, **options)  # type: ignore[arg-type]
    path = directory / "examples" / f"{split}-00000-of-00001.tfrecord"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for image_id, crop in crops.items():
            file.write(frame_record(example(image_id, crop, settings).to_bytes()))
    data = path.read_bytes()
    shards = {path.stem: Shard(len(crops), hashlib.sha256(data).hexdigest(), len(data))}
    manifest = Manifest(settings, source={}, shards=shards, outcomes={})
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest.to_json()))
    return directory


def example(image_id: str, crop: Image.Image, options: DatasetOptions) -> Example:
    return Example(
        image_id=image_id,
        url=f"http://example.org/{image_id}.jpg",
        sha256=hashlib.sha256(image_id.encode()).hexdigest(),
        crop=Crop(0, 0, crop.width, crop.height),
        hr=png(crop),
        lr={
            scale: png(Image.fromarray(lr))
            for scale, lr in degrade(np.asarray(crop), options.scales, options.degradation).items()
        },
    )


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """write_dataset into a folder of its own: make_dataset(crops, split=…, degradation=…)."""
    return lambda crops, **options: write_dataset(tmp_path / "data", crops, **options)


@pytest.fixture
def dataset(make_dataset: Callable[..., Path], photos: dict[str, Image.Image]) -> Path:
    """The photos as the test split."""
    return make_dataset(photos)


@pytest.fixture(scope="session")
def identity_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of an SRCNN that gives its input back, for 'rgb' or 'y'."""
    directory = tmp_path_factory.mktemp("weights")

    def write(channels: str) -> Path:
        count = {"rgb": 3, "y": 1}[channels]
        widths, sizes = (count, 64, 32, count), (9, 1, 5)
        weights = {}
        for layer, size in enumerate(sizes):
            kernel = np.zeros((size, size, widths[layer], widths[layer + 1]), np.float32)
            for channel in range(count):
                kernel[size // 2, size // 2, channel, channel] = 1
            weights[f"w{layer + 1}"] = kernel
            weights[f"b{layer + 1}"] = np.zeros(widths[layer + 1], np.float32)
        path = directory / f"identity_{channels}.npz"
        np.savez(path, **weights)
        return path

    return write
