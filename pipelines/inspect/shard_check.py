"""Whether one finished shard is what dataset.json, the plan and its own table say of it."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError
from PIL import Image

from pipelines.command.cli import typed
from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Fault, Shard
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import read_table, write_table
from pipelines.dataset.tfrecord import read_records
from pipelines.pictures.degradation import degrade, lr_size

_UNREADABLE = (ValueError, TypeError, pa.ArrowException, BeamIOError, OSError)


class Claim(NamedTuple):
    """What a shard has to hold."""

    name: str
    lines: int
    shard: Shard | None
    """None where none of its pictures is in the dataset."""


class Pictures(NamedTuple):
    """What the checks of the whole dataset need to know of a shard."""

    outcomes: Counter[str]
    contents: list[int]
    """Of each picture, 64 bits of its sha256."""
    urls: list[int]
    """Of each picture, 64 bits of a hash of its URL."""


def check_shard(
    folder: DatasetFolder, options: DatasetOptions, claim: Claim, *, decode: bool
) -> Pictures:
    """Checks a shard's table and records; without ``decode`` not what is in the records.

    Raises Fault.
    """
    table, records = f"outcomes/{claim.name}.parquet", f"examples/{claim.name}.tfrecord"
    try:
        rows = _read_rows(folder, claim)
    except _UNREADABLE as error:
        raise Fault(f"{table}: {error}") from None
    good = [row for row in rows if row.outcome is Outcome.OK]
    if claim.shard:
        try:
            with folder.open(folder.examples(claim.name)) as file:
                _check_records(file, claim.shard, good, options, decode=decode)
        except _UNREADABLE as error:
            raise Fault(f"{records}: {error}") from None
    return Pictures(
        Counter(row.outcome.value for row in rows),
        [int((row.sha256 or "")[:16], 16) for row in good],
        [_hash(row.url or "") for row in good],
    )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _read_rows(folder: DatasetFolder, claim: Claim) -> list[Row]:
    with folder.open(folder.outcomes(claim.name)) as file:
        data = file.read()
    rows = read_table(io.BytesIO(data))
    if len(rows) != claim.lines:
        raise ValueError(f"{len(rows):,} rows for {claim.lines:,} lines of the list")
    if rows != sorted(rows, key=lambda row: row.sort_key):
        raise ValueError("its rows are not sorted")
    # Parquet's checksums cover the rows; this all the rest, where the same version wrote it.
    again = io.BytesIO()
    write_table(again, rows)
    if again.getvalue() != data and _writer(data) == _writer(again.getvalue()):
        raise ValueError("its bytes are not those that were written")
    good = sum(row.outcome is Outcome.OK for row in rows)
    if good and not claim.shard:
        raise ValueError(f"{good:,} pictures in a shard that has no examples")
    return rows


def _writer(table: bytes) -> str:
    return str(pq.read_metadata(io.BytesIO(table)).created_by)


class _Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def sha256(self) -> str:
        return self._digest.hexdigest()


def _check_records(
    file: BinaryIO, shard: Shard, good: list[Row], options: DatasetOptions, *, decode: bool
) -> None:
    hashing: Any = _Hashing(file)
    records = read_records(hashing)
    count = _check_examples(records, good, options) if decode else sum(1 for _ in records)
    if count != shard.examples:
        raise ValueError(f"{count:,} examples, not {shard.examples:,}")
    if hashing.sha256() != shard.sha256:
        raise ValueError(f"its sha256 is {hashing.sha256()}, not {shard.sha256}")


def _check_examples(records: Iterable[bytes], good: list[Row], options: DatasetOptions) -> int:
    """How many there are. Raises ValueError for the first that is wrong."""
    pictures = {(row.image_id, row.url): row for row in good}
    count, last, seen = 0, ("", "", Crop(-1, 0, 0, 0)), set()
    for record in records:
        example = Example.from_bytes(record)
        key = example.image_id, example.url
        try:
            if example.to_bytes() != record:
                raise ValueError("it has other features than the schema's")
            if (*key, example.crop) <= last:
                raise ValueError("it is out of order")
            _check_source(example, pictures.get(key))
            _check_pixels(example, options)
        except ValueError as error:
            raise ValueError(f"example {count}, {' '.join(key)}: {error}") from None
        count, last = count + 1, (*key, example.crop)
        seen.add(key)
    if missing := pictures.keys() - seen:
        raise ValueError(f"no example of {len(missing):,} pictures, {min(missing)} first")
    return count


def _check_source(example: Example, row: Row | None) -> None:
    if row is None or row.sha256 != example.sha256:
        raise ValueError("its shard's table has no such picture")
    crop = example.crop
    if row.width is None or row.height is None:
        raise ValueError("its shard's table does not know the picture's size")
    if not (0 <= crop.x <= row.width - crop.width and 0 <= crop.y <= row.height - crop.height):
        raise ValueError(f"its crop {crop} is not inside {row.width}x{row.height}")


def _check_pixels(example: Example, options: DatasetOptions) -> None:
    side = options.crop_size
    if (example.crop.width, example.crop.height) != (side, side):
        raise ValueError(f"its crop is not {side}x{side}")
    if tuple(example.lr) != options.scales:
        raise ValueError(
            f"it has the scales {typed(tuple(example.lr))}, not {typed(options.scales)}"
        )
    hr = _decode("hr", example.hr, side)
    degraded = degrade(np.asarray(hr), example.lr, options.degradation)
    for scale, png in example.lr.items():
        lr = _decode(f"lr_x{scale}", png, lr_size(side, scale))
        if not np.array_equal(np.asarray(lr), degraded[scale]):
            raise ValueError(f"lr_x{scale} is not the degradation of hr")


def _decode(name: str, png: bytes, side: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        if (image.mode, image.size) != ("RGB", (side, side)):
            raise ValueError(f"{name} is {image.mode} {image.size}, not RGB {side}x{side}")
        image.load()
    except (OSError, SyntaxError) as error:  # as Pillow reports a broken PNG
        raise ValueError(f"{name} cannot be decoded: {error}") from None
    return image
