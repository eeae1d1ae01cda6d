"""The lines of lists that are tables: CSV and TSV, JSON lines, Parquet; in constant memory.

Each reader gives lines, as columns.Chosen makes them, and counts rows on from ``first``.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lists.columns import Chosen, Columns, chosen, malformed, narrowed

_BATCH_ROWS = 1 << 14
_CHUNK_BYTES = 1 << 20

Reader = Callable[[io.BufferedReader, int], Iterator[bytes]]
"""(text from its start, number of its first row) -> lines."""


@dataclass(frozen=True)
class Delimited:
    """CSV (RFC 4180) or TSV.

    By Python's own reader: pyarrow's is four times as fast, but a row with a wrong number of fields
    loses its place there, and a quote that is never closed ends the reading.
    """

    delimiter: str
    width: int
    """Fields of a row."""
    columns: Chosen
    has_header: bool
    is_quoted: bool = True

    def __call__(self, text: io.BufferedReader, first: int) -> Iterator[bytes]:
        """As Reader has it."""
        rows = csv_rows(_lines(text), self.delimiter, is_quoted=self.is_quoted)
        number, is_header = first, self.has_header
        while True:
            try:
                row = next(rows, None)
            except csv.Error:  # a quote that is not closed, or a field of over 128 KB
                yield malformed(b"a quote is not closed")
                number += 1
                continue
            if row is None:
                return
            if is_header:
                is_header = False
                continue
            fields = [field.encode("latin-1") for field in row]
            if len(fields) == self.width:
                yield self.columns.line(fields, number)
            else:
                yield malformed(self.delimiter.encode().join(fields))
            number += 1


def csv_rows(
    lines: Iterable[str], delimiter: str, *, is_quoted: bool = True
) -> Iterator[list[str]]:
    """The rows of a table, each as many fields as it has; next() may raise csv.Error and go on."""
    if is_quoted:
        return csv.reader(lines, delimiter=delimiter)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _lines(text: io.BufferedReader) -> Iterator[str]:
    """With their ends, a character a byte."""
    rest = b""
    while chunk := text.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).splitlines(keepends=True)
        if not rest.endswith(b"\r"):  # an LF may follow
            lines.append(rest)
            rest = b""
        if lines and not lines[-1].endswith((b"\n", b"\r")):
            rest = lines.pop() + rest
        yield from (line.decode("latin-1") for line in lines)
    if rest:
        yield rest.decode("latin-1")


@dataclass(frozen=True)
class JsonLines:
    """An object a line; ``names`` are the keys of the columns, and no others."""

    names: Sequence[str]
    columns: Chosen

    def __call__(self, text: io.BufferedReader, first: int) -> Iterator[bytes]:
        """As Reader has it."""
        for number, line in enumerate(text, first):
            fields = self._fields(line)
            if fields is None:
                yield malformed(line.rstrip(b"\r\n"))
            else:
                yield self.columns.line(fields, number)

    def _fields(self, line: bytes) -> list[bytes] | None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        values = [row.get(name) for name in self.names]
        if any(isinstance(value, dict | list) for value in values):
            return None
        return [_text(value) for value in values]


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float) and value.is_integer():  # ids that passed through a data frame
        value = int(value)
    return str(value).encode(errors="replace")


def parquet_lines(path: Path, given: Columns, first: int) -> Iterator[bytes]:
    """The lines of a Parquet file. Raises UsageError where no column holds URLs."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = [field.name for field in schema if not pa.types.is_nested(field.type)]
        wanted, columns = narrowed(names, chosen(names, given, str(path)))
        number = first
        for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
            fields = [_texts(batch.column(name)) for name in wanted]
            for row in zip(*fields, strict=True):
                yield columns.line(row, number)
                number += 1


def _texts(column: pa.Array) -> list[bytes]:
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return pc.fill_null(column.cast(pa.binary()), b"").to_pylist()
    return [_text(value) for value in column.to_pylist()]
