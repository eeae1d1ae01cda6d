"""Where the lines come from: the list wherever it lies, or pictures."""

import codecs
import contextlib
import logging
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import requests
import urllib3
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.command.cli import UsageError, WorkError
from pipelines.lists.columns import Columns
from pipelines.lists.forms import reader_of
from pipelines.lists.pictures import picture_lines, readable
from pipelines.lists.tables import parquet_lines
from pipelines.lists.unpack import rejoined, texts
from pipelines.lists.url_list import Parser, parse_line, parse_path_line

WHERE_TO_FIND_COPIES = (
    "the official download (image-net.org, fall11_urls.tgz) is gone since 2019; copies are kept "
    "by the Internet Archive (web.archive.org) and in repositories such as "
    "ltkhiem/ImageNet-Downloader on GitHub"
)
_logger = logging.getLogger(__name__)
_PARQUET = b"PAR1"
_SNIFFED_BYTES = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Source:
    """Where the lines come from: a list's name, or folders and archives of pictures."""

    name: str
    is_folder: bool = False
    """Whether it is pictures."""
    columns: Columns = Columns()  # noqa: RUF009  frozen

    names: tuple[str, ...] = ()
    """Of pictures, where there are several."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """The folders and archives of pictures; none for a list."""
        return (self.names or (self.name,)) if self.is_folder else ()

    @property
    def parse(self) -> Parser:
        """The parser of its lines."""
        return parse_path_line if self.is_folder else parse_line

    @property
    def file(self) -> dict[str, Any]:
        """What tells an unchanged list from another without reading it.

        The size is None where that cannot be told: the list is no local file.
        """
        path = Path(self.name)
        status = path.stat() if not self.is_folder and path.is_file() else None
        return {
            "name": self.name,
            "size": status and status.st_size,
            "modified_ns": status and status.st_mtime_ns,
            "columns": [self.columns.url, self.columns.image_id, self.columns.checksum],
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
            with tempfile.TemporaryFile() as found:
                found.writelines(line + b"\n" for line in picture_lines(self.pictures))
                yield lambda: _again(found)
        else:
            with local_copies(self.name) as paths:
                yield lambda: read_lines(paths, self.columns)


def _again(found: IO[bytes]) -> Iterator[bytes]:
    found.seek(0)
    return (line[:-1] for line in found)


@contextlib.contextmanager
def local_copies(name: str) -> Iterator[list[Path]]:
    """The list's files, as they are or fetched for the time of the block; several of a folder.

    ``name`` is a local path, an http(s) address or an object store's. Raises UsageError where
    there is no such file.
    """
    if "://" not in name:
        path = Path(name)
        files = _parts(list(path.iterdir())) if path.is_dir() else [path] * path.is_file()
        if not files:
            raise UsageError(f"there is no list {name}: {WHERE_TO_FIND_COPIES}")
        yield files
        return
    with tempfile.TemporaryDirectory() as folder:
        is_web = name.startswith(("http://", "https://"))
        found = [name] if is_web else _objects(name)
        copies = []
        for address in found:
            # Its name may tell what it is.
            path = Path(folder, unquote(urlsplit(address).path).rpartition("/")[2] or "list")
            copies.append(path)
            with path.open("wb") as file:
                (_download if is_web else _copy_object)(address, file)
        yield copies


def _parts(files: list[Path]) -> list[Path]:
    """Of a folder's files those that make its list, in the order of their names."""
    files = sorted(file for file in files if not file.name.startswith((".", "_")))
    return [file for file in files if file.suffix == ".parquet"] or files


def _objects(name: str) -> list[str]:
    """An object, or those below a name as in a folder."""
    with readable(f"the list {name}"):
        if not name.endswith("/") and FileSystems.exists(name):
            return [name]
        (matched,) = FileSystems.match([name.rstrip("/") + "/*"])
    by_path = {Path(entry.path): entry.path for entry in matched.metadata_list}
    if not (found := [by_path[path] for path in _parts(list(by_path))]):
        raise UsageError(f"there is no list {name}: {WHERE_TO_FIND_COPIES}")
    return found


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
    with (
        readable(f"the list {name}"),
        FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED) as source,
    ):
        shutil.copyfileobj(source, file, 1 << 20)


def read_lines(paths: Sequence[Path], columns: Columns = Columns()) -> Iterator[bytes]:  # noqa: B008
    """The lines of a list, in whatever form it has, as ``image id TAB URL``; read once through.

    Raises UsageError where a file is no list, or it is not known which column holds URLs.
    """
    if len(paths) == 1:
        return _lines_of(paths[0], columns, 1)
    return _numbered(paths, columns)


def _numbered(paths: Sequence[Path], columns: Columns) -> Iterator[bytes]:
    """Of several files, rows counted through."""
    number = 1
    for path in paths:
        for line in _lines_of(path, columns, number):
            number += 1
            yield line


def _lines_of(path: Path, columns: Columns, first: int) -> Iterator[bytes]:
    empty = True
    try:
        with path.open("rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                yield from parquet_lines(path, columns, first)
                return
            file.seek(0)
            for text in texts(path, file):
                start = text.read(_SNIFFED_BYTES)
                if not start.removeprefix(codecs.BOM_UTF8):
                    continue
                empty = False
                read = reader_of(start, str(path), columns)
                yield from read(rejoined(start.removeprefix(codecs.BOM_UTF8), text), first)
    except (OSError, EOFError, tarfile.TarError, zlib.error, pa.ArrowException) as error:
        raise UsageError(f"cannot read the list {path}: {error}") from None
    if empty:
        raise UsageError(f"the list {path} is empty")
