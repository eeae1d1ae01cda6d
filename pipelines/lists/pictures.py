"""Pictures at hand, as a list: in folders and archives, local or on an object store."""

import glob
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.command.cli import UsageError
from pipelines.command.stores import store_reason
from pipelines.lists.archives import BrokenArchive, Member, is_tar, is_zip, tar_members, zip_members
from pipelines.pictures.formats import PICTURE_SUFFIXES, may_be_picture

_logger = logging.getLogger(__name__)
_START_BYTES = 1024
_GZIP = b"\x1f\x8b"


def expanded(names: Sequence[str]) -> tuple[str, ...]:
    """The folders and archives that these names and patterns mean.

    Raises UsageError where a pattern matches nothing, or two archives would be taken for one.
    """
    found: list[str] = []
    for name in names:
        name = name.rstrip("/") or name
        if not glob.has_magic(name) or _exists(name):
            found.append(name)
        elif matches := _matches(name):
            found += matches
        else:
            raise UsageError(f"nothing is named like {name}")
    by_name = {_base(name): name for name in found}
    if len(by_name) < len(found):
        first = next(
            name for name in found if by_name[_base(name)] != name or found.count(name) > 1
        )
        raise UsageError(
            f"{first} has the name of another of --images, and pictures are known by it: rename "
            "one, or build two datasets"
        )
    return tuple(found)


def picture_lines(names: Sequence[str]) -> Iterator[bytes]:
    """A list of the pictures below these folders and in these archives.

    Of one folder ``relative path without suffix TAB relative path``; the second of more, or of an
    archive, begins with its name, and ``TAB place`` follows, as parse_path_line reads it. Paths are
    percent-encoded where they hold what a list's line cannot. Raises UsageError where there is no
    picture.
    """
    if len(names) == 1 and "://" not in names[0] and not Path(names[0]).is_file():
        yield from _of_folder(Path(names[0]))
        return
    for number, name in enumerate(names):
        if "://" in name or Path(name).is_file():
            yield from _of_archive_or_objects(number, name)
        else:
            base = quote(os.fsencode(_base(name))).encode()
            for line in _of_folder(Path(name)):
                image_id, _, path = line.partition(b"\t")
                yield b"%s\t%s/%s\t%d" % (image_id, base, path, number)


def _base(name: str) -> str:
    return name.rpartition("/")[2] if "://" in name else Path(name).absolute().name


def _exists(name: str) -> bool:
    return "://" not in name and Path(name).exists()


def _matches(pattern: str) -> list[str]:
    if "://" not in pattern:
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  may be absolute
    return sorted(entry.path for entry in _listed(pattern))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Raises UsageError for whatever keeps Beam from reading it."""
    try:
        yield
    except Exception as error:  # each object store has errors of its own
        raise UsageError(f"cannot read {name}: {store_reason(error, named=False)}") from None


def _listed(pattern: str) -> list[Any]:
    with readable(pattern):
        (matched,) = FileSystems.match([pattern])
    return list(matched.metadata_list)


def _of_archive_or_objects(number: int, name: str) -> Iterator[bytes]:
    with readable(name):
        is_object = "://" not in name or FileSystems.exists(name)
    if is_object:
        yield from _of_archive(number, name)
        return
    found = 0
    for path in sorted(entry.path for entry in _listed(f"{name}/**")):
        relative = path.removeprefix(f"{name}/")
        if PurePosixPath(relative).suffix.lower() in PICTURE_SUFFIXES:
            found += 1
            yield _line(PurePosixPath(relative), _base(name), str(number))
    if not found:
        raise UsageError(f"{name} holds no picture, and is no archive")


def _of_archive(number: int, name: str) -> Iterator[bytes]:
    with readable(name):
        opened = FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED)
    with opened as file:
        start = file.read(_START_BYTES)
        file.seek(0)
        if is_tar(start, name):
            members = tar_members(file)
        elif is_zip(start):
            members = zip_members(file)
        elif start.startswith(_GZIP):
            raise UsageError(f"{name} is packed as a whole, so nothing in it is found: gunzip it")
        else:
            raise UsageError(f"{name} is neither a folder, a tar nor a zip")
        found = left_out = 0
        try:
            for member in members:
                if member is None:
                    left_out += 1
                elif _is_picture(member):
                    found += 1
                    yield _line(member.path, _base(name), _place(number, member))
        except BrokenArchive as error:
            raise UsageError(f"{name} is broken, perhaps cut off: {error}") from None
    if left_out:
        _logger.warning(
            "%s: %s links, devices, encrypted members or names that lead outside are left out",
            name,
            f"{left_out:,}",
        )
    if not found:
        raise UsageError(f"{name} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")


def _is_picture(member: Member) -> bool:
    return member.path.suffix.lower() in PICTURE_SUFFIXES or may_be_picture(member.start())


def _place(number: int, member: Member) -> str:
    return ",".join(map(str, (number, *member.place)))


def _line(path: PurePosixPath, base: str, place: str) -> bytes:
    image_id, address = path.with_suffix(""), PurePosixPath(base, path)
    return "\t".join([*(quote(os.fsencode(part)) for part in (image_id, address)), place]).encode()


def _of_folder(directory: Path) -> Iterator[bytes]:
    """A file is a picture by its suffix, or by its first bytes."""
    if not directory.is_dir():
        raise UsageError(f"there is no folder {directory}")
    paths, others, special = [], 0, 0
    for parent, _, names in os.walk(directory, onerror=_tell_of_unreadable):
        for path in (Path(parent, name) for name in names):
            if not _is_regular(path):
                special += 1
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                paths.append(path.relative_to(directory))
            elif _begins_as_picture(path):
                others += 1
                paths.append(path.relative_to(directory))
    if not paths:
        raise UsageError(
            f"{directory} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}); archives in it "
            f"are taken by {directory}/*.tar"
        )
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


def _tell_of_unreadable(error: OSError) -> None:
    _logger.warning("%s is left out: %s", error.filename, error.strerror)


def _is_regular(path: Path) -> bool:
    """Whether opening it waits for nobody."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return may_be_picture(file.read(_START_BYTES))
    except OSError:
        return False
