"""The tables under outcomes/: one row for each selected line of the list, as Parquet."""

from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.outcomes import Outcome, Row

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
    ordered = sorted(rows, key=lambda row: row.sort_key)
    columns = {
        name: pa.array([getattr(row, name) for row in ordered], SCHEMA.field(name).type)
        for name in SCHEMA.names
    }
    pq.write_table(pa.table(columns, SCHEMA), file, compression="zstd")


def read_table(file: BinaryIO) -> list[Row]:
    """The rows of a table that write_table wrote."""
    return [
        Row(**{**values, "outcome": Outcome(values["outcome"])})
        for values in pq.read_table(file, schema=SCHEMA).to_pylist()
    ]
