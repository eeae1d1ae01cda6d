"""A finished dataset, read by a program of one's own: without TensorFlow, without a pipeline."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.tfrecord import read_records

Pixels = npt.NDArray[np.uint8]


class Dataset:
    """The folder that ``python -m pipelines`` leaves, local, gs:// or s3://.

    Raises UsageError where it is not finished. Reading raises CorruptRecord for a damaged record.
    """

    def __init__(self, path: str) -> None:
        self.folder = DatasetFolder(path.rstrip("/"))
        self.manifest = Manifest.load(path)
        """Options, splits, shards and outcome totals."""

    def examples(self, split: str = "train") -> Iterator[Example]:
        """All examples of a split, in the order of its shards: ids, crops, PNGs."""
        for path in self.manifest.shard_paths(self.folder.root, split):
            with self.folder.open(path) as file:
                yield from map(Example.from_bytes, read_records(file))

    def pairs(self, split: str = "train", scale: int = 2) -> Iterator[tuple[Pixels, Pixels]]:
        """LR uint8 [h, w, 3] and HR uint8 [H, W, 3] of each example, in the same order."""
        for example in self.examples(split):
            yield pixels(example.lr[scale]), pixels(example.hr)


def pixels(png: bytes) -> Pixels:
    """An example's PNG as uint8 [H, W, 3]."""
    return np.array(Image.open(io.BytesIO(png), formats=("PNG",)))
