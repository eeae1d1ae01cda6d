"""Small real datasets, written by the packages that write large ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.support.dataset import Crops, write_dataset


def numbered(splits: Mapping[str, Sequence[Image.Image]]) -> dict[str, Crops]:
    """The crops with ids of three classes."""
    return {
        split: {f"n{number % 3:08}_{number}": crop for number, crop in enumerate(crops)}
        for split, crops in splits.items()
    }


def photo_crops(count: int, size: int) -> list[Image.Image]:
    """Different crops of one photograph."""
    photo = Image.fromarray(skimage.data.astronaut())
    corners = np.random.default_rng(1).integers(0, photo.width - size, (count, 2)).tolist()
    return [photo.crop((x, y, x + size, y + size)) for x, y in corners]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """A dataset of these crops: make_dataset({"train": [...]}, shards=..., ...)."""
    return lambda splits, **options: write_dataset(tmp_path / "made", numbered(splits), **options)


@pytest.fixture(scope="session")
def crops() -> Callable[[int, int], list[Image.Image]]:
    """photo_crops."""
    return photo_crops


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 3 validation crops of 48 px, in 3 and 1 shards."""
    crops = photo_crops(15, 48)
    splits = {"train": crops[:12], "validation": crops[12:], "test": []}
    return write_dataset(tmp_path_factory.mktemp("data") / "set", numbered(splits), shards=3)
