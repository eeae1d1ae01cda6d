"""What became of the list, in words and as one table: the rows of all outcomes/ of a dataset."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.command import files
from pipelines.command.progress import Progress
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import RETRYABLE, Row, count_flat_crops, most_frequent, sentence_of
from pipelines.dataset.outcome_table import SCHEMA, row_of

_NUMBER = re.compile(r"\d+")
# Of an outcome; what comes after so many kinds is counted, but not told apart.
_MOST_CAUSES = 1_000
_Cause = tuple[int | None, str]


@dataclass
class Report:
    """Totals, and of each outcome its causes: rows with one status and, but for numbers, detail."""

    totals: Counter[str] = field(default_factory=Counter)
    causes: dict[str, Counter[_Cause]] = field(default_factory=lambda: defaultdict(Counter))
    samples: dict[tuple[str, _Cause], Row] = field(default_factory=dict)
    flat_crops: int = 0
    """Crops of the dataset's pictures that --min-detail left out."""

    def add(self, table: pa.Table) -> None:
        """The rows of a shard."""
        numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
        kinds = numbered.group_by(["outcome", "http_status", "detail"], use_threads=False)
        for kind in kinds.aggregate([("row", "count"), ("row", "min")]).to_pylist():
            word, times = kind["outcome"], kind["row_count"]
            self.totals[word] += times
            self.flat_crops += times * count_flat_crops(kind["detail"] or "")
            cause = kind["http_status"], _NUMBER.sub("#", kind["detail"] or "")
            causes = self.causes[word]
            if cause not in causes:
                if len(causes) == _MOST_CAUSES:
                    continue
                (sample,) = table.slice(kind["row_min"], 1).to_pylist()
                self.samples[word, cause] = row_of(sample)
            causes[cause] += times


def shard_tables(
    folder: DatasetFolder, columns: list[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """(shard, these columns of its rows, or all) of every shard, with progress.

    Raises OSError or ValueError where a table cannot be read.
    """
    names = folder.names("outcomes")
    with Progress("read", len(names), unit="tables") as progress:
        for number, name in enumerate(names, 1):
            shard = name.partition(".")[0]
            path = folder.outcomes(shard)
            try:
                with folder.open(path) as file:
                    table = pq.read_table(
                        file, columns=columns, schema=SCHEMA, page_checksum_verification=True
                    )
            except pa.ArrowException as error:
                raise ValueError(f"{path}: {error}") from None
            yield shard, table
            progress.update(number)


def render(root: str, report: Report, samples: int, *, can_retry: bool) -> str:
    """The report as text, with so many samples of an outcome; the most frequent first."""
    lines = report.totals.total()
    text = [f"{root}: {lines:,} lines"]
    for word, count in most_frequent(report.totals):
        text.append(f"\n{word}  {count:,}  {100 * count / lines:.1f} %  {sentence_of(word)}")
        for cause, times in _most_common(report.causes[word], samples):
            text.append(f"  {times:>9,}  {_described(report.samples[word, cause])}")
    if report.flat_crops:
        text.append(f"\ncrops left out as flat: {report.flat_crops:,}")
    found = [word for word in RETRYABLE if report.totals[word]]
    if can_retry and found:
        text.append(
            "\nFor what the network did not bring there may be a better day:\n"
            f"  python -m pipelines --output {root} --retry {','.join(found)}"
        )
    return "\n".join(text) + "\n"


def _most_common(causes: Counter[_Cause], count: int) -> list[tuple[_Cause, int]]:
    return sorted(causes.items(), key=lambda item: (-item[1], str(item[0])))[:count]


def _described(row: Row) -> str:
    """'404: n01440764_10 http://…': status and detail, then the line."""
    cause = " ".join(str(part) for part in (row.http_status, row.detail) if part is not None)
    name = repr(row.line)[1:] if row.line is not None else row.name
    if row.duplicate_of:
        cause = f"of {row.duplicate_of}"
    return f"{cause}: {name}" if cause else name


def write(tables: Iterator[tuple[str, pa.Table]], kind: str, path: Path) -> int:
    """Writes all rows, with the shard of each, as one CSV or Parquet file; how many there are.

    Raises OSError.
    """
    schema = pa.schema([("shard", pa.string()), *SCHEMA])
    if kind == "csv":  # which is text: bytes of a malformed line that are none are written %FF
        schema = schema.set(schema.get_field_index("line"), pa.field("line", pa.string()))
    opened: Callable[..., Any] = {"csv": pa.csv.CSVWriter, "parquet": pq.ParquetWriter}[kind]
    temporary = path.with_name(f"{path.name}.tmp")
    count = 0
    try:
        with closing(opened(temporary, schema)) as writer:
            for shard, table in tables:
                columns = {name: table.column(name) for name in SCHEMA.names}
                if kind == "csv":
                    columns["line"] = pa.array(map(_text, columns["line"].to_pylist()), pa.string())
                columns["shard"] = pa.array([shard] * len(table), pa.string())
                writer.write_table(pa.table(columns).select(schema.names).cast(schema))
                count += len(table)
        files.publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _text(line: bytes | None) -> str | None:
    return None if line is None else line.decode(errors="percent")
