"""Writing local files so that nobody ever sees half of one."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO


def write_whole(path: str | Path, data: bytes, *, lasts: bool = True) -> None:
    """Writes a file, replacing what was there, and makes its folder where there is none.

    A reader sees the old content or the new one, and a power cut leaves one of the two, unless the
    file is not to last. Raises OSError, and leaves nothing then.
    """
    with opened_whole(path, lasts=lasts) as file:
        file.write(data)


@contextmanager
def opened_whole(path: str | Path, *, lasts: bool = True) -> Iterator[BinaryIO]:
    """Opens a file to be written in parts; it gets its name if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes may write the same file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb+") as file:
            yield file
        publish(temporary, path, lasts=lasts)
    finally:
        temporary.unlink(missing_ok=True)


def publish(finished: Path, path: str | Path, *, lasts: bool = True) -> None:
    """Renames a finished file of the same file system to its final name.

    The bytes of one that lasts are on the disk before: a name that outlived a power cut would
    otherwise be an empty file's.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if lasts:
        with finished.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(finished, path)  # noqa: PTH105


def open_locked(path: Path, *, wait: bool = True) -> IO[bytes]:
    """Opens a file to append to, made where there is none, and locks it.

    The lock holds against all that open it by this function. The file is unbuffered, so that one
    ``write`` is whole. Raises BlockingIOError where another process has it
    and ``wait`` is false, OSError where it cannot be written.
    """
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Who had it may have deleted or replaced it.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
