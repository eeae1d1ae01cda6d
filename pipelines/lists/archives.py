"""Pictures in archives, where they lie: tar, tars in a tar, zip. Nothing is unpacked."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_TAR_BLOCK = 512
_START_BYTES = 1024
# A member's own header in a zip file, before its name and an extra field.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\3\4"
# More than names and extra fields are long: one read is enough.
_HEADER_BYTES = _LOCAL_HEADER.size + 4_096
_ENCRYPTED = 1


class Place(NamedTuple):
    """Where a member's bytes lie."""

    offset: int
    """Of a zip's member, of its header."""
    num_bytes: int
    method: int = -1
    """As zip numbers it; -1 in a tar."""
    crc: int = 0


class Member(NamedTuple):
    """A file in an archive."""

    path: PurePosixPath
    """In a tar in a tar, below the inner one's name."""
    place: Place
    start: Callable[[], bytes]
    """Its first bytes."""


class BrokenArchive(ValueError):
    """An archive that cannot be read to its end."""


def is_tar(start: bytes, name: str) -> bool:
    """Whether a file that begins so is a tar; the oldest form has no mark but its name."""
    return start[257:262] == b"ustar" or (name.lower().endswith(".tar") and len(start) > 500)


def is_zip(start: bytes) -> bool:
    """Whether a file that begins so is a zip."""
    return start.startswith((_LOCAL_MAGIC, b"PK\5\6"))


def tar_members(file: IO[bytes]) -> Iterator[Member | None]:
    """The regular files of a tar, and of the tars in it.

    A link, a device or a name that leads outside gives None. Raises BrokenArchive.
    """
    yield from _tar_members(file, PurePosixPath(), 0)


def _tar_members(file: IO[bytes], below: PurePosixPath, base: int) -> Iterator[Member | None]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while info := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # a million would be kept
                if info.isdir():
                    continue
                path = _inside(info.name)
                if path is None or not info.isreg() or info.issparse():
                    yield None
                elif path.suffix.lower() == ".tar" and not base:
                    inner = _Window(file, info.offset_data, info.size)
                    buffered = cast(IO[bytes], io.BufferedReader(inner))
                    # An empty one would be one without members.
                    name = path.with_suffix("")
                    yield from _tar_members(buffered, below / name, info.offset_data)
                else:
                    place = Place(base + info.offset_data, info.size)
                    yield Member(below / path, place, _start_of(file, info.offset_data, info.size))
            file.seek(archive.offset)
            if any(file.read(_TAR_BLOCK)):
                raise tarfile.ReadError(f"no header at byte {base + archive.offset}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BrokenArchive(str(error)) from None


def _start_of(file: IO[bytes], offset: int, size: int) -> Callable[[], bytes]:
    def start() -> bytes:
        file.seek(offset)
        return file.read(min(size, _START_BYTES))

    return start


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def zip_members(file: IO[bytes]) -> Iterator[Member | None]:
    """The files of a zip.

    A link, an encrypted file or a name that leads outside gives None. Raises BrokenArchive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                path = _inside(info.filename.replace("\\", "/"))
                kind = stat.S_IFMT(info.external_attr >> 16)
                if path is None or kind not in (0, stat.S_IFREG) or info.flag_bits & _ENCRYPTED:
                    yield None
                    continue
                place = Place(info.header_offset, info.compress_size, info.compress_type, info.CRC)
                yield Member(path, place, lambda info=info: _zip_start(archive, info))  # type: ignore[misc]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise BrokenArchive(str(error)) from None


def _zip_start(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            return file.read(_START_BYTES)
    except Exception:  # in whatever way it is broken, or packed
        return b""


def _inside(name: str) -> PurePosixPath | None:
    """The path of a member, if it stays where its archive is unpacked."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name:
        return None
    return path


class TooLarge(ValueError):
    """A member of more bytes than wanted."""


def read_member(read: Callable[[int, int], bytes], place: Place, max_bytes: int) -> bytes:
    """A member's bytes; ``read(offset, num_bytes)`` gives those of its archive.

    Raises TooLarge before it has more than ``max_bytes``, NotImplementedError for another method
    than stored and deflated, and ValueError where the member is broken.
    """
    if place.num_bytes > max_bytes:
        raise TooLarge
    if place.method == -1:
        data = read(place.offset, place.num_bytes)
        if len(data) < place.num_bytes:
            raise ValueError("the archive is cut off inside it")
        return data
    if place.method not in (STORED, DEFLATED):
        raise NotImplementedError(f"method {place.method} of zip")
    data = _zip_data(read, place)
    if place.method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max_bytes + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(data) > max_bytes:
            raise TooLarge
    if zlib.crc32(data) != place.crc:
        raise ValueError("its checksum in the archive is another")
    return data


def _zip_data(read: Callable[[int, int], bytes], place: Place) -> bytes:
    data = read(place.offset, _HEADER_BYTES + place.num_bytes)
    if len(data) < _LOCAL_HEADER.size or not data.startswith(_LOCAL_MAGIC):
        raise ValueError("it has no header where the archive says")
    start = _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack_from(data)[-2:])
    if start + place.num_bytes > len(data):
        data, start = read(place.offset + start, place.num_bytes), 0
    return data[start : start + place.num_bytes]
