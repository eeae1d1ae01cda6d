"""Results: as a CSV, and as a table on a terminal.

The CSV has one row a model and scale. Rows are appended under a lock, whole or not at all.

On an object store, where nothing can be appended to, its path is a folder: each run puts an object
of its own there, with the same columns. Wherever results are read, such a folder, or a local copy
of it, is read as one CSV.
"""

import csv
import dataclasses
import errno
import io
import math
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from pipelines.command.cli import UsageError, WorkError
from pipelines.command.files import open_locked
from trainer import files

Row = TypeVar("Row", "Result", "PictureResult", "Cost")

# A hundred thousand rows: what is larger is something else.
_MAX_BYTES = 32_000_000
_MAX_LINE_BYTES = 1 << 20
_SHOWN = 80
# Of a run. A chart's axis begins some years before the first, and no calendar before the year 1.
_YEARS = range(1970, 3000)
# No decibels, pixels, pictures or seconds are more; a chart's axis could not hold them.
_LARGEST = 1_000_000_000
_ADDED_LATER = "degradation"
"""A column that files of earlier versions lack: empty there."""


@dataclass(frozen=True)
class Result:
    """One row of the results: a model at a scale, over a set of pictures."""

    run_at: str
    """UTC, ISO 8601."""
    commit: str
    dataset: str
    """'set5@0a1b2c3d4e5f': the folder's name and the hash of its pictures."""
    split: str
    protocol: str
    degradation: str
    """HR to LR; empty where an earlier version did not write it down."""
    model: str
    weights: str
    """The first digits of the weights' sha256; empty for bicubic."""
    scale: int
    images: int
    psnr_db: float
    psnr_std_db: float
    ssim: float
    bicubic_psnr_db: float
    gain_db: float
    shave_px: int
    seconds_per_image: float


@dataclass(frozen=True)
class PictureResult:
    """One row of the per-picture results."""

    run_at: str
    dataset: str
    split: str
    protocol: str
    model: str
    weights: str
    scale: int
    shave_px: int
    picture: str
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Cost:
    """One row of costs: what a model takes for a result of 1280x720 at a scale."""

    run_at: str
    machine: str
    model: str
    """Of a published method its name in evaluation.published."""
    weights: str
    """As in Result; empty where only the network is known."""
    scale: int
    parameters: int
    gmac: float
    """Thousand millions of multiplications, each with an addition."""
    ms: float
    """Of the network alone."""


def read(path: str, kind: type[Row]) -> list[Row]:
    """The rows of a file, or of all files of a folder in the order of their names.

    Raises UsageError for anything that ``append`` did not write.
    """
    files.check(path)
    found = _files(path)
    if not found:
        raise UsageError(f"{path} is a folder without a results CSV")
    rows: list[Row] = []
    left = _MAX_BYTES
    for file in found:
        data = _read(file, left)
        left -= len(data)
        rows += _parse(file, io.BytesIO(data), kind)
    return rows


def _read(path: str, at_most: int) -> bytes:
    try:
        with files.opened(path) as file:
            data = file.read(at_most + 1)
    except FileNotFoundError:
        raise UsageError(f"there are no results {path}: python -m evaluation writes them") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > at_most:
        raise UsageError(f"{path} is too large for results: over {_MAX_BYTES // 1_000_000} MB")
    return data


def _files(path: str) -> list[str]:
    if not files.is_folder(path):
        return [path]
    return [files.join(path, name) for name in files.names(path) if name.endswith(".csv")]


def check(path: str, kind: type[Row]) -> None:
    """Raises UsageError where ``append`` would: so that it is known before the work."""
    if not files.is_local(path):
        _check_folder(path, kind)
        return
    file = Path(path)
    if file.exists():
        _check_file(path, kind)
    elif not file.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written")


def _check_file(path: str, kind: type[Row]) -> bool:
    """Whether it lacks no column. Takes little memory, however long the file is."""
    try:
        with Path(path).open("rb") as file:
            for _ in _parse(path, file, kind):
                pass
            file.seek(0)
            return file.readline().decode().rstrip() in ("", ",".join(_columns(kind)))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _check_folder(path: str, kind: type[Row]) -> None:
    files.check(path)
    if files.is_folder(path):
        for newest in _files(path)[-1:]:
            read(newest, kind)
    elif files.exists(path):
        raise UsageError(f"{path} is an object: on a store results need a folder to add one to")


def append(path: str, rows: Sequence[Row]) -> None:
    """Adds rows of one kind at the end, under a lock; on a store to this run's own object.

    A new file begins with the names of the columns; one of an earlier version gets the column that
    it lacks. Raises UsageError, and writes nothing, where the file has other columns or a broken
    line; WorkError where the disk is full.
    """
    if not rows:
        return
    if not files.is_local(path):
        own = files.join(path, _object_name())
        earlier: list[Row] = read(own, type(rows[0])) if files.exists(own) else []
        files.write(own, format_csv([*earlier, *rows]))
        return
    try:
        locked = open_locked(Path(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    with locked as file:
        if not _check_file(path, type(rows[0])):
            files.write(path, format_csv([*read(path, type(rows[0])), *rows]))
            return
        size = file.seek(0, os.SEEK_END)
        data = format_csv(rows, header=not size)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            raise WorkError(f"{path} cannot be written: {error.strerror}") from None


@cache
def _object_name() -> str:
    """No other run's, and in the order in which they began."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}.csv"


def _columns(kind: type[Row]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def format_csv(rows: Sequence[Row], *, header: bool = True) -> bytes:
    """Rows of one kind, at least one, as the file's bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_columns(type(rows[0])))
    for row in rows:
        writer.writerow(map(_cell, dataclasses.astuple(row)))
    return text.getvalue().encode()


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        # Six significant digits are a ten-thousandth of a dB, and a millionth in SSIM.
        return f"{value:.6g}"
    # Python 3.11 leaves a lone carriage return unquoted, and then reads it as the line's end.
    return str(value).replace("\r", " ")


def _parse(path: str, file: IO[bytes], kind: type[Row]) -> Iterator[Row]:
    columns = _columns(kind)
    earlier = [column for column in columns if column != _ADDED_LATER]
    try:
        header: list[str] | None = None
        for number, cells in enumerate(csv.reader(_lines(path, file), strict=True), 1):
            if header is None and cells not in (columns, earlier):
                raise UsageError(
                    f"{path} has other columns than {','.join(columns)}: name another file"
                )
            if header is not None:
                yield _parse_row(path, number, header, cells, kind)
            header = header or cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a results CSV: {error}") from None


def _lines(path: str, file: IO[bytes]) -> Iterator[str]:
    while line := file.readline(_MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise UsageError(f"{path}: a line is broken off: repair it or name another file")
        yield line.decode()


def _parse_row(
    path: str, number: int, header: Sequence[str], cells: Sequence[str], kind: type[Row]
) -> Row:
    try:
        named = {_ADDED_LATER: "", **dict(zip(header, cells, strict=True))}
        values: dict[str, Any] = {
            field.name: _value(field.type, named[field.name]) for field in dataclasses.fields(kind)
        }
        run_at = datetime.fromisoformat(values["run_at"])
        if run_at.tzinfo is None or run_at.year not in _YEARS:
            raise ValueError
    except (ValueError, OverflowError):
        shown = ",".join(cells)[:_SHOWN]
        raise UsageError(f"{path}: row {number} is broken: {shown}") from None
    return kind(**values)


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return sys.intern(text)  # most are those of the row above as well
    number = kind(text)
    if math.isfinite(number) and abs(number) > _LARGEST:
        raise ValueError
    return number


def format_table(rows: Sequence[Result]) -> str:
    """PSNR, SSIM and gain over bicubic: a line a model, a column a scale; ends in a newline."""
    scales = sorted({row.scale for row in rows})
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.model, row.scale): row for row in rows}
    width = max(len(model) for model in models)
    titles = "".join(f"   x{scale} PSNR   SSIM   gain" for scale in scales)
    lines = [" " * width + titles]
    for model in models:
        columns = (_table_cell(cells.get((model, scale))) for scale in scales)
        lines.append(f"{model:<{width}}" + "".join(columns))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table_cell(row: Result | None) -> str:
    if row is None:
        return f"{'-':>10} {'-':>6} {'':>6}"
    gain = f"{row.gain_db:+.2f}" if row.weights else ""
    return f"{row.psnr_db:10.2f} {row.ssim:6.4f} {gain:>6}"
