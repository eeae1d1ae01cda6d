import numpy as np
import pytest
from PIL import Image

from pipelines.command.cli import UsageError
from pipelines.dataset.options import Degradation
from pipelines.dataset.reader import Dataset
from pipelines.dataset.tfrecord import CorruptRecord
from pipelines.pictures.degradation import degrade
from tests.support.dataset import write_dataset


@pytest.fixture
def crops():
    numbers = np.random.default_rng(0)
    noise = numbers.integers(0, 256, (3, 24, 24, 3), np.uint8)
    return {f"n01440764_{number}": Image.fromarray(part) for number, part in enumerate(noise)}


@pytest.fixture
def dataset(tmp_path, crops):
    return write_dataset(tmp_path / "set", {"train": crops}, shards=2)


def test_examples_come_in_the_order_of_the_shards(dataset):
    ids = [example.image_id for example in Dataset(f"{dataset}/").examples()]
    assert ids == ["n01440764_0", "n01440764_2", "n01440764_1"]


def test_pairs_are_lr_and_hr_as_arrays(dataset, crops):
    pairs = list(Dataset(str(dataset)).pairs("train", 3))
    assert len(pairs) == 3
    lr, hr = pairs[0]
    assert np.array_equal(hr, np.asarray(crops["n01440764_0"]))
    assert np.array_equal(lr, degrade(hr, (3,), Degradation.ARTICLE)[3])
    hr[0] = 0  # the caller's own


def test_what_cannot_be_read_is_said(dataset, tmp_path):
    with pytest.raises(UsageError, match="not a finished dataset"):
        Dataset(str(tmp_path))
    with pytest.raises(UsageError, match="test split"):
        list(Dataset(str(dataset)).pairs("test"))
    shard = next((dataset / "examples").iterdir())
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CorruptRecord):
        list(Dataset(str(dataset)).examples())
