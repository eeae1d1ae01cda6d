"""What kind of list a text is, by how it begins and by its name."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from pipelines.command.cli import UsageError
from pipelines.lists.columns import Chosen, Columns, chosen, has_known_url, narrowed, unknown
from pipelines.lists.tables import Delimited, JsonLines, Reader, csv_rows
from pipelines.lists.url_list import Rejected, parse_line

# Of Unix, Windows and old Macs; Windows' text mode has been seen to write two CRs.
_LINE_END = re.compile(rb"\r*\n|\r")
_CHUNK_BYTES = 1 << 17
_DELIMITERS = "\t,;"
_SAMPLED_ROWS = 1_000
_CSV_NAME = re.compile(r"\.csv(\.(gz|zst))?$", re.I)
_URL = re.compile(r"\s*https?://\S", re.I)
WANTED = "'image id TAB URL', a table with a header (CSV, TSV, Parquet, JSON lines) or a URL a line"


def entry_lines(text: io.BufferedReader, _: int = 0) -> Iterator[bytes]:
    """The lines of a text without line ends: LF, CR LF or CR."""
    rest = b""
    while chunk := text.read(_CHUNK_BYTES):
        data = rest + chunk
        whole = data.rstrip(b"\r")  # an LF may follow
        # As one does on most systems: in a tenth of the time.
        *lines, rest = whole.split(b"\n") if b"\r" not in whole else _LINE_END.split(whole)
        yield from lines
        rest += data[len(whole) :]
    if rest:
        yield rest.rstrip(b"\r")


def url_lines(text: io.BufferedReader, first: int) -> Iterator[bytes]:
    """The lines of a list that has nothing but URLs."""
    columns = Chosen(url=0)
    for number, url in enumerate(entry_lines(text), first):
        yield columns.line((url,), number)


@dataclass(frozen=True)
class _Sample:
    """How a text begins."""

    where: str
    given: Columns
    lines: list[bytes]

    def rows(self, delimiter: str, *, is_quoted: bool = True) -> list[list[str]]:
        """Of a table with this delimiter; blank ones left out."""
        text = (line.decode("latin-1") + "\n" for line in self.lines)
        rows = []
        with suppress(csv.Error):
            for row in islice(csv_rows(text, delimiter, is_quoted=is_quoted), _SAMPLED_ROWS):
                rows.append(row)  # noqa: PERF402  those before an error count
        return list(filter(None, rows))


def reader_of(start: bytes, where: str, given: Columns) -> Reader:
    """The reader of a text that begins so, in a file of this name.

    Raises UsageError where it is no list, or its columns are not known.
    """
    sample = _Sample(where, given, _LINE_END.split(start.removeprefix(codecs.BOM_UTF8)))
    reader = _json(sample) or _with_header(sample)
    if reader is None and given.are_given:
        reader = _by_given_columns(sample)
    return reader or _without_header(sample)


def _json(sample: _Sample) -> Reader | None:
    names: dict[str, None] = {}
    for line in filter(bytes.strip, sample.lines[:_SAMPLED_ROWS]):
        if not names and not line.lstrip().startswith(b"{"):
            return None
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            names |= dict.fromkeys(row)
    if not names:
        return None
    return JsonLines(*narrowed(list(names), chosen(list(names), sample.given, sample.where)))


def _with_header(sample: _Sample) -> Reader | None:
    for delimiter in _DELIMITERS:
        rows = sample.rows(delimiter)
        if rows and not any(map(_is_url, rows[0])) and has_known_url(rows[0], sample.given):
            columns = chosen(rows[0], sample.given, sample.where)
            return Delimited(delimiter, len(rows[0]), columns, has_header=True)
    return None


def _by_given_columns(sample: _Sample) -> Reader:
    """By names in a header that says nothing otherwise, or by numbers."""
    delimiter, rows = _likely(sample) or ("\t", sample.rows("\t"))
    first = rows[0] if rows else []
    names = _numbers(first) if any(map(_is_url, first)) else first
    columns = chosen(names, sample.given, sample.where)
    return Delimited(delimiter, len(names), columns, has_header=names is first)


def _without_header(sample: _Sample) -> Reader:
    kinds = Counter(map(_kind, sample.lines[:_SAMPLED_ROWS]))
    if not kinds["entry"]:
        kinds.update(map(_kind, sample.lines[_SAMPLED_ROWS:]))
    if kinds["entry"] and kinds["entry"] >= max(kinds["pair"], kinds["url"]):
        return entry_lines
    table = _likely(sample)
    # A URL may hold commas.
    if kinds["url"] > kinds["pair"] and not (table and _CSV_NAME.search(sample.where)):
        return url_lines
    if table is None:
        raise UsageError(f"{sample.where} is not a list: no line at its start is {WANTED}")
    delimiter, rows = table
    first = rows[0]
    if len(first) != 2 or not any(map(_is_url, first)):
        raise unknown(_numbers(first) if any(map(_is_url, first)) else first, sample.where)
    url = Counter(_is_url(row[1]) for row in rows).most_common(1)[0][0]
    others = [row[1 - url].split() for row in rows]
    are_ids = 2 * sum(len(words) == 1 for words in others) > len(others)  # not captions
    columns = Chosen(int(url), 1 - url if are_ids else None)
    return Delimited(delimiter, 2, columns, has_header=False, is_quoted=delimiter != "\t")


def _likely(sample: _Sample) -> tuple[str, list[list[str]]] | None:
    """Delimiter, and of the sampled rows the first and those as wide as most, where some have a
    URL."""
    best: tuple[int, str, list[list[str]]] | None = None
    for delimiter in _DELIMITERS:
        rows = sample.rows(delimiter, is_quoted=delimiter != "\t")
        widths = Counter(len(row) for row in rows if any(map(_is_url, row)))
        if not widths or max(widths) == 1:
            continue
        width = max(width for width, count in widths.items() if count == max(widths.values()))
        alike = [row for row in rows if len(row) == width]
        if width > 1 and (best is None or len(alike) > best[0]):
            best = len(alike), delimiter, alike
    return best and best[1:]


def _kind(line: bytes) -> str:
    try:
        parse_line(line)
        return "entry"
    except Rejected:
        pass
    fields = line.decode("latin-1").split("\t")
    if len(fields) == 1:
        return "url" if _is_url(fields[0]) else ""
    return "pair" if len(fields) == 2 and any(map(_is_url, fields)) else ""


def _numbers(fields: Sequence[str]) -> list[str]:
    return [str(number) for number in range(1, len(fields) + 1)]


def _is_url(text: str) -> bool:
    return bool(_URL.match(text))
