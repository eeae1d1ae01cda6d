"""The results CSV: one row a model and scale, appended under a lock, whole or not at all."""

import csv
import dataclasses
import errno
import fcntl
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pipelines.cli import UsageError, WorkError

Row = TypeVar("Row", "Result", "PictureResult")


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


def read(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file. Raises UsageError for anything that ``append`` did not write."""
    try:
        return _parse(path, path.read_bytes(), kind)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def check(path: Path, kind: type[Row]) -> None:
    """Raises UsageError where ``append`` would: so that it is known before the work."""
    if path.exists():
        read(path, kind)
    elif not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written")


def append(path: Path, rows: Sequence[Row]) -> None:
    """Adds rows of one kind at the end, under a lock.

    A new file begins with the names of the columns. Raises UsageError, and writes nothing, where
    the file has other columns or a broken line; WorkError where the disk is full.
    """
    if not rows:
        return
    with _locked(path) as file:
        before = file.read()
        _parse(path, before, type(rows[0]))
        data = _format(rows, header=not before)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), len(before))
            raise WorkError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    # Unbuffered, so that all rows are one write; append mode, so that it goes to the end.
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _columns(kind: type[Row]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _format(rows: Sequence[Row], *, header: bool) -> bytes:
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


def _parse(path: Path, data: bytes, kind: type[Row]) -> list[Row]:
    if not data:
        return []
    if not data.endswith(b"\n"):
        raise UsageError(f"{path}: the last line is broken off: repair it or name another file")
    columns = _columns(kind)
    try:
        lines = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a results CSV: {error}") from None
    if lines[0] != columns:
        raise UsageError(f"{path} has other columns than {','.join(columns)}: name another file")
    return [_parse_line(path, number, line, kind) for number, line in enumerate(lines[1:], 2)]


def _parse_line(path: Path, number: int, line: Sequence[str], kind: type[Row]) -> Row:
    fields = dataclasses.fields(kind)
    try:
        values: dict[str, Any] = {
            field.name: field.type(text)  # type: ignore[operator]  # str, int or float
            for field, text in zip(fields, line, strict=True)
        }
    except ValueError:
        raise UsageError(f"{path}: row {number} is broken: {','.join(line)}") from None
    return kind(**values)
