"""What an attempt at a shard learnt: a row for each of its lines, and where its records lie."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset import outcome_table
from pipelines.dataset.examples import Crop
from pipelines.dataset.outcome import Row
from pipelines.dataset.tfrecord import Span


@dataclass(frozen=True)
class Fetched:
    """What became of a line, before duplicates are known."""

    row: Row
    original: Span | None = None
    """Of the picture as it came."""
    phash: bytes | None = None
    """Of a good picture: its perceptual hash, if it has one."""
    examples: tuple[tuple[Crop, Span], ...] = ()
    """Of each crop among the candidates."""
    original_file: str | None = None
    """Where the original lies if not in the attempt's own file: an earlier one's in this dataset
    folder, or in another, whose path is before its name."""
    checksum: str | None = None
    """Of the picture, as the list has it."""


_SPAN = pa.struct([("offset", pa.int64()), ("num_bytes", pa.int64())])
_CROP = pa.struct([(name, pa.int32()) for name in ("x", "y", "width", "height")])
_EXAMPLE = pa.struct([("crop", _CROP), ("span", _SPAN)])
_SCHEMA = pa.schema(
    [
        *outcome_table.SCHEMA,
        ("original", _SPAN),
        ("phash", pa.binary()),
        ("examples", pa.list_(_EXAMPLE)),
        ("original_file", pa.string()),
        ("checksum", pa.string()),
    ]
)


def write_table(file: BinaryIO, fetched: Iterable[Fetched]) -> None:
    """Writes the lines, sorted, as Parquet."""
    ordered = sorted(fetched, key=lambda line: line.row.sort_key)
    columns = outcome_table.columns_of([line.row for line in ordered]) | {
        "original": pa.array(
            [line.original and line.original._asdict() for line in ordered], _SPAN
        ),
        "phash": pa.array([line.phash for line in ordered], pa.binary()),
        "examples": pa.array([_example_values(line) for line in ordered], pa.list_(_EXAMPLE)),
        "original_file": pa.array([line.original_file for line in ordered], pa.string()),
        "checksum": pa.array([line.checksum for line in ordered], pa.string()),
    }
    pq.write_table(pa.table(columns, _SCHEMA), file, compression="zstd")


def _example_values(line: Fetched) -> list[dict[str, object]]:
    return [{"crop": vars(crop), "span": span._asdict()} for crop, span in line.examples]


def read_table(file: BinaryIO) -> list[Fetched]:
    """The lines of a table that write_table wrote."""
    return [
        Fetched(
            original=(span := values.pop("original")) and Span(**span),
            phash=values.pop("phash"),
            examples=tuple(
                (Crop(**example["crop"]), Span(**example["span"]))
                for example in values.pop("examples")
            ),
            original_file=values.pop("original_file"),
            checksum=values.pop("checksum"),  # null in an earlier version's
            row=outcome_table.row_of(values),
        )
        for values in pq.read_table(file, schema=_SCHEMA).to_pylist()
    ]
