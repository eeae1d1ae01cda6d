"""A small dataset of shipped photographs, networks that are known exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.support.dataset import write_dataset

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


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


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """A dataset whose test split has these crops, by image id: make_dataset(crops, scales=…)."""
    return lambda crops, **options: write_dataset(tmp_path / "data", {"test": crops}, **options)


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
