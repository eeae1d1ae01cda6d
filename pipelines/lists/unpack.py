"""The one text in a file: plain, .gz, .zst, or in a .tar or .tgz, told by its first bytes."""

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from pipelines.command.cli import UsageError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_TAR_HEADER_BYTES = 512
_BUFFER_BYTES = 1 << 17
"""Stays in the processor's cache, and is no new memory from the kernel each time."""


def texts(path: Path, file: IO[bytes]) -> Iterator[io.BufferedReader]:
    """Yields the text, to be read once; behind it UsageError if an archive holds a second file."""
    packed = rejoined(start := file.read(len(_ZSTD)), file)
    text: Any = packed
    if start.startswith(_GZIP):
        text = gzip.GzipFile(fileobj=packed)
    elif start == _ZSTD:
        text = pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")
    text = io.BufferedReader(text, _BUFFER_BYTES)
    start = text.read(_TAR_HEADER_BYTES)
    text = rejoined(start, text)
    if start[257:262] != b"ustar":
        yield text
        return
    members = 0
    with tarfile.open(fileobj=text, mode="r|") as archive:  # a stream: nothing is unpacked twice
        for member in archive:
            if not member.isfile():
                continue
            members += 1
            if members > 1:
                raise UsageError(f"{path} holds more than one file, not one list")
            content = cast(io.RawIOBase, archive.extractfile(member))
            yield io.BufferedReader(content, _BUFFER_BYTES)


def rejoined(start: bytes, file: IO[bytes]) -> io.BufferedReader:
    """A file with the start that was read from it put back."""
    return io.BufferedReader(_Rejoined(start, file), _BUFFER_BYTES)


class _Rejoined(io.RawIOBase):
    """A file whose start is read already."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._start = self._start or self._file.read(len(buffer)), b""
        if len(data) > len(buffer):
            data, self._start = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)
