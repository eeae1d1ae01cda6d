"""The tables under outcomes/: one row for each selected line of the list, as Parquet."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome, Row

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("url", pa.string()),
        ("line", pa.binary()),
        ("outcome", pa.string()),
        ("http_status", pa.int32()),
        ("detail", pa.string()),
        ("sha256", pa.string()),
        ("num_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duplicate_of", pa.string()),
    ]
)


def write_table(file: BinaryIO, rows: Iterable[Row]) -> None:
    """Writes the rows, sorted, as Parquet."""
    columns = columns_of(sorted(rows, key=lambda row: row.sort_key))
    pq.write_table(pa.table(columns, SCHEMA), file, compression="zstd", write_page_checksum=True)


def columns_of(rows: Sequence[Row]) -> dict[str, pa.Array]:
    """The columns of SCHEMA."""
    return {
        name: pa.array([getattr(row, name) for row in rows], SCHEMA.field(name).type)
        for name in SCHEMA.names
    }


def read_table(file: BinaryIO) -> list[Row]:
    """The rows of a table that write_table wrote."""
    return [
        row_of(values)
        for values in pq.read_table(
            file, schema=SCHEMA, page_checksum_verification=True
        ).to_pylist()
    ]


def all_rows(folder: DatasetFolder) -> Iterator[Row]:
    """The rows of all tables under outcomes/."""
    for name in folder.names("outcomes"):
        with folder.open(folder.path("outcomes", name)) as file:
            yield from read_table(file)


def row_of(values: dict[str, Any]) -> Row:
    """A row from its columns' values."""
    return Row(**{**values, "outcome": Outcome(values["outcome"])})
