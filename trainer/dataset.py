"""What is trained on: a finished dataset, its splits, and the order of their crops.

In each epoch the shards are permuted by the seed and dealt into windows of some thousand crops,
each of which is shuffled as a whole. The manifest knows how many crops a shard has, so that a
resumed run computes its window.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import UsageError
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest
from pipelines.dataset.tfrecord import CorruptRecord, spans
from trainer import files

# About half a gigabyte of records of 130 KB; two windows are in memory.
WINDOW_CROPS = 4096


def load_manifest(directory: str) -> Manifest:
    """Raises UsageError where there is no finished dataset."""
    if files.is_local(directory):
        return Manifest.load(directory)
    path = files.join(directory, MANIFEST_NAME)
    try:
        return Manifest.parse(path, files.read(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read, is it a finished dataset? {error}") from None


@dataclass(frozen=True)
class Split:
    """The record files of one split and how many crops each holds."""

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    crop_size: int

    @classmethod
    def of(cls, manifest: Manifest, directory: str, name: str) -> "Split":
        """Raises UsageError where the split is empty."""
        paths = manifest.shard_paths(directory, name)
        counts = [shard.examples for shard in manifest.split(name).values()]
        return cls(tuple(paths), tuple(counts), manifest.options.crop_size)


def check_frames(split: Split, path: str) -> int:
    """How many records a file has, by their frames. Raises CorruptRecord, OSError.

    TensorFlow takes memory for as many bytes as a record says that it has, before it reads them.
    """
    # Two pictures of any content, uncompressed, and all their smaller versions; and what is text.
    most_bytes = 10 * split.crop_size**2 + (1 << 16)
    count = 0
    with files.opened(path) as file:
        for span in spans(file):
            if span.num_bytes > most_bytes:
                raise CorruptRecord(
                    f"the record at byte {span.offset} has {span.num_bytes:,} bytes"
                )
            count += 1
    return count


@dataclass(frozen=True)
class Window:
    """Some shards that are shuffled together."""

    paths: list[str]
    order: npt.NDArray[np.int64]
    """The crops of the window that are wanted, numbered as they lie in its shards."""


def windows(split: Split, seed: int, first: int, count: int | None = None) -> Iterator[Window]:
    """The order of windows from crop number ``first`` on: ``count`` crops, or without end."""
    epoch, skip = divmod(first, sum(split.counts))
    left = math.inf if count is None else count
    while True:
        for window in _epoch_windows(split, seed, epoch):
            order = window.order[skip:]
            if left < len(order):
                order = order[: int(left)]
            if len(order):
                yield Window(window.paths, order)
                left -= len(order)
            if not left:
                return
            skip = max(skip - len(window.order), 0)
        epoch += 1


def _epoch_windows(split: Split, seed: int, epoch: int) -> Iterator[Window]:
    rng = np.random.default_rng([seed, epoch])
    paths: list[str] = []
    crops = 0
    order = rng.permutation(len(split.paths))
    for position, shard in enumerate(order):
        paths.append(split.paths[shard])
        crops += split.counts[shard]
        if crops >= WINDOW_CROPS or position == len(order) - 1:
            yield Window(paths, rng.permutation(crops))
            paths, crops = [], 0
