"""Archives of arrays, .npz, from anybody: names, shapes and types come from the headers, unread.

Nothing is unpacked before it is asked for by name, so that a file cannot take more memory than
what its reader expects of it.
"""

import io
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trainer import files
from trainer.models import Shape

_READ_HEADER: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_HEADER_BYTES = 16_384  # numpy reads no longer one, but only after it has it in memory
_MOST_NAMES_BYTES = 1 << 20
# Of the end of an archive, which says how long its list of names is (APPNOTE 4.3.16, 4.3.15).
_END, _END_64, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", b"PK\x06\x07", 22, 0xFFFF
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class NotArrays(ValueError):
    """What is no archive of arrays, or a damaged one."""


@dataclass(frozen=True)
class Header:
    """What an array says of itself."""

    shape: Shape
    dtype: "np.dtype[Any]"


class Arrays:
    """An archive that is open. ``headers`` are those of its arrays, by name, in order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.headers = {
            member.filename.removesuffix(".npy"): self._header(member)
            for member in archive.infolist()
        }

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        with self._archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file)  # type: ignore[no-untyped-call]

    def _header(self, member: zipfile.ZipInfo) -> Header:
        if member.compress_type not in _PACKINGS:
            raise NotArrays(f"{member.filename} is packed in an unusual way")
        with self._archive.open(member) as packed:
            file = io.BytesIO(packed.read(_MOST_HEADER_BYTES))
        version: tuple[int, int] = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        if version not in _READ_HEADER:
            raise NotArrays(f"{member.filename} has the unknown version {version}")
        shape, _, dtype = _READ_HEADER[version](file)
        return Header(shape, dtype)


@contextmanager
def opened(path: str) -> Iterator[Arrays]:
    """The arrays of a file. Raises NotArrays, OSError; so does what is done with them inside."""
    try:
        with files.opened(path) as file:
            seekable = file if files.is_local(path) else io.BytesIO(file.read())
            _check_end(seekable)
            with zipfile.ZipFile(seekable) as archive:
                yield Arrays(archive)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        EOFError,
        SyntaxError,
        RuntimeError,
        MemoryError,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:  # what zipfile, zlib and numpy raise for a damaged or an unusual archive
        raise NotArrays(str(error) or type(error).__name__) from None


def _check_end(file: BinaryIO) -> None:
    """Raises NotArrays where the list of names would not fit into memory."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _END_BYTES - _LONGEST_COMMENT, 0))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise NotArrays("it is no zip archive, or one that is cut off")
    names_bytes = int.from_bytes(tail[end + 12 : end + 16], "little")
    if names_bytes > _MOST_NAMES_BYTES or tail[max(end - 20, 0) :].startswith(_END_64):
        raise NotArrays(f"its list of names has over {_MOST_NAMES_BYTES:,} bytes")
