"""Examples of a dataset to look at, evenly chosen."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS
from pipelines.dataset.tfrecord import read_records, skip_records


def choose(folder: DatasetFolder, manifest: Manifest, count: int) -> Iterator[tuple[str, Example]]:
    """(shard, example): so many, evenly over all examples of the dataset in its order."""
    total = sum(shard.examples for shard in manifest.shards.values())
    wanted = np.linspace(0, total, min(count, total), endpoint=False).astype(int).tolist()
    start = 0
    for name in [name for split in SPLITS for name in manifest.split(split)]:
        end = start + manifest.shards[name].examples
        inside = [number - start for number in wanted if start <= number < end]
        if inside:
            for example in _read(folder, name, inside):
                yield name, example
        start = end


def _read(folder: DatasetFolder, shard: str, numbers: Sequence[int]) -> Iterator[Example]:
    """The examples of these numbers, ascending, in a shard. Raises ValueError or OSError."""
    path, done = folder.examples(shard), 0
    try:
        with folder.open(path) as file:
            for number in numbers:
                skip_records(file, number - done)
                record = next(read_records(file), None)
                if record is None:
                    raise ValueError(f"no example {number}")
                yield Example.from_bytes(record)
                done = number + 1
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
