import pytest
import tensorflow as tf

from pipelines.command.cli import WorkError
from pipelines.dataset.tfrecord import frame_record, read_records
from trainer.config import Config
from trainer.damage import naming_damage
from trainer.dataset import Split, load_manifest
from trainer.input import training_batches

CONFIG = Config(batch_size=4, patch_size=20)


def flipped(data, records):
    return data[:9000] + bytes([data[9000] ^ 1]) + data[9001:]


def cut_off(data, records):
    return data[: len(data) - 5]


def fewer(data, records):
    return b"".join(map(frame_record, records[:3]))


def broken_pictures(data, records):
    return b"".join(frame_record(record.replace(b"IHDR", b"IXXX")) for record in records)


@pytest.fixture
def split(make_dataset, crops):
    data = make_dataset({"train": crops(12, 48)}, shards=3)
    return Split.of(load_manifest(str(data)), str(data), "train")


def read_all(split):
    with naming_damage(split, 0, 0):
        for _ in training_batches(split, CONFIG, 0).take(3):
            pass


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (flipped, r"the record at byte \d+ has a wrong checksum"),
        (cut_off, r"the record at byte \d+ is cut off"),
        (fewer, "3 examples, not 4: was it built again"),
        (broken_pictures, ""),
        (None, "No such file or directory"),
    ],
)
def test_the_damaged_file_is_named(damage, fault, split, tmp_path):
    shard = tmp_path / "made/examples/train-00001-of-00003.tfrecord"
    assert shard.as_posix() in split.paths
    if damage is None:
        shard.unlink()
    else:
        with shard.open("rb") as file:
            records = list(read_records(file))
        shard.write_bytes(damage(shard.read_bytes(), records))
    with pytest.raises(WorkError, match=f"cannot be read: {shard}: .*{fault}"):
        read_all(split)


def test_an_error_that_is_not_the_datasets_stays_as_it_is(split):
    with pytest.raises(tf.errors.InvalidArgumentError), naming_damage(split, 0, 0):
        tf.reshape(tf.zeros(3), [2])
