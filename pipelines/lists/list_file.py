"""Where the lines come from: the list wherever it lies, or a folder of pictures."""

import codecs
import contextlib
import gzip
import io
import logging
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import requests
import urllib3
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.command.cli import UsageError, WorkError
from pipelines.lists.url_list import Parser, Rejected, parse_line, parse_path_line
from pipelines.pictures.formats import PICTURE_SUFFIXES, may_be_picture

WHERE_TO_FIND_COPIES = (
    "the official download (image-net.org, fall11_urls.tgz) is gone since 2019; copies are kept "
    "by the Internet Archive (web.archive.org) and in repositories such as "
    "ltkhiem/ImageNet-Downloader on GitHub"
)
_logger = logging.getLogger(__name__)
# Of Unix, Windows and old Macs; Windows' text mode has been seen to write two CRs.
_LINE_END = re.compile(rb"\r*\n|\r")
_GZIP_MAGIC = b"\x1f\x8b"
_SNIFFED_BYTES = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Source:
    """Where the lines come from: a list's name, or a folder of pictures."""

    name: str
    is_folder: bool = False

    @property
    def pictures(self) -> str | None:
        """The folder of pictures."""
        return self.name if self.is_folder else None

    @property
    def parse(self) -> Parser:
        """The parser of its lines."""
        return parse_path_line if self.is_folder else parse_line

    @property
    def file(self) -> dict[str, Any]:
        """What an unchanged list is known again by, without reading it; its size is None where that
        is not possible: it is not a local file."""
        path = Path(self.name)
        status = path.stat() if not self.is_folder and path.is_file() else None
        return {
            "name": self.name,
            "size": status and status.st_size,
            "modified_ns": status and status.st_mtime_ns,
        }

    @property
    def as_json(self) -> None:
        """Nothing is known of an earlier build."""

    def identity(self, sha256: str) -> dict[str, Any]:
        """What the list is known by; ``sha256`` of its selected lines."""
        return {**self.file, "is_folder": self.is_folder, "sha256": sha256}

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[], Iterator[bytes]]]:
        """Gives a function that streams the lines from the start, as often as it is called."""
        if self.is_folder:
            found = list(picture_lines(Path(self.name)))
            yield lambda: iter(found)
        else:
            with local_copy(self.name) as path:
                yield lambda: read_lines(path)


@contextlib.contextmanager
def local_copy(name: str) -> Iterator[Path]:
    """The list as a local file: as it is, or fetched for the time of the block.

    ``name`` is a local path, an http(s) address or an object store's. Raises UsageError where
    there is no such file.
    """
    if "://" not in name:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"there is no list {name}: {WHERE_TO_FIND_COPIES}")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "list")
        with path.open("wb") as file:
            if name.startswith(("http://", "https://")):
                _download(name, file)
            else:
                _copy_object(name, file)
        yield path


def _download(address: str, file: IO[bytes]) -> None:
    try:
        with requests.get(address, stream=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            # As sent: a .gz stays one, however the server labels it.
            shutil.copyfileobj(answer.raw, file, 1 << 20)
            expected = answer.headers.get("Content-Length")
    except requests.RequestException as error:
        raise UsageError(f"cannot fetch the list from {address}: {error}") from None
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise WorkError(f"the list's download from {address} broke: {error}") from None
    if expected is not None and file.tell() != int(expected):
        raise WorkError(f"the list's download from {address} broke off at byte {file.tell()}")


def _copy_object(name: str, file: IO[bytes]) -> None:
    try:
        with FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED) as source:
            shutil.copyfileobj(source, file, 1 << 20)
    except Exception as error:  # each object store has errors of its own
        raise UsageError(f"cannot read the list {name}: {error}") from None


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a list, plain, .gz or .tgz by its content, without line ends, read once through.

    A line ends with LF, CR LF or CR, and a byte order mark before the first is left out.
    Raises UsageError where the file is none.
    """
    try:
        with path.open("rb") as file:
            yield from _checked(path, _unpacked(path, file))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UsageError(f"cannot read the list {path}: {error}") from None


def _unpacked(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The one text in a file; raises UsageError after it where an archive holds another."""
    text = file
    if _peek(file, 2) == _GZIP_MAGIC:
        text = cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if _peek(text, 262)[257:] != b"ustar":
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
            yield cast(IO[bytes], archive.extractfile(member))


def _checked(path: Path, texts: Iterator[IO[bytes]]) -> Iterator[bytes]:
    """The lines of the texts. Raises UsageError where the start is not that of a list."""
    empty = True
    for text in texts:
        with io.BufferedReader(cast(io.RawIOBase, text), _SNIFFED_BYTES) as lines:
            start = lines.read(_SNIFFED_BYTES).removeprefix(codecs.BOM_UTF8)
            empty = empty and not start
            if start and not any(_is_entry(line) for line in start.splitlines()):
                raise UsageError(
                    f"{path} is not a list: no line at its start is 'image id TAB URL'"
                )
            yield from _split(start, lines)
    if empty:
        raise UsageError(f"the list {path} is empty")


def _split(start: bytes, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a text whose start is read already."""
    rest, chunk = b"", start
    while chunk:
        data = rest + chunk
        whole = data.rstrip(b"\r")  # an LF may follow
        *lines, rest = _LINE_END.split(whole)
        yield from lines
        rest += data[len(whole) :]
        chunk = file.read(_SNIFFED_BYTES)
    if rest:
        yield rest.rstrip(b"\r")


def _peek(file: IO[bytes], count: int) -> bytes:
    start = file.read(count)
    file.seek(0)
    return start


def _is_entry(line: bytes) -> bool:
    try:
        parse_line(line)
    except Rejected:
        return False
    return True


def picture_lines(directory: Path) -> Iterator[bytes]:
    """A list of the pictures below a folder: ``relative path without suffix TAB relative path``.

    A file is a picture by its suffix, or by its first bytes. Paths are percent-encoded where they
    hold what a list's line cannot. Raises UsageError where there is no picture.
    """
    if not directory.is_dir():
        raise UsageError(f"there is no folder {directory}")
    paths, others, special = [], 0, 0
    for parent, _, names in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            if not _is_regular(path):
                special += 1
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                paths.append(path.relative_to(directory))
            elif _begins_as_picture(path):
                others += 1
                paths.append(path.relative_to(directory))
    if not paths:
        raise UsageError(f"{directory} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")
    if others:
        _logger.info(
            "%s: %s files are pictures by their first bytes alone", directory, f"{others:,}"
        )
    if special:
        _logger.warning(
            "%s: %s pipes, sockets, devices or links to nothing are left out",
            directory,
            f"{special:,}",
        )
    for path in sorted(paths):
        encoded = os.fsencode(path.with_suffix("")), os.fsencode(path)
        yield "\t".join(quote(part) for part in encoded).encode()


def _is_regular(path: Path) -> bool:
    """Whether opening it waits for nobody."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return may_be_picture(file.read(1024))
    except OSError:
        return False
