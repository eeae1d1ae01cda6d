"""All access to files: local folders, and s3:// through tensorflow-io.

Nothing is ever seen half-written under its own name: locally a file is renamed to it when it is
complete, and on an object store it appears when it is. TensorFlow, which takes seconds to import,
is so only for a path on a store.
"""

import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.command.cli import UsageError, WorkError
from pipelines.command.files import write_whole

S3 = "s3://"
# In front of TensorFlow's reasons; and its lines that tell where, not what.
_NUMBER = re.compile(r"^(\{\{function_node .*?\}\} )?(\(\d+\) )?([A-Z_]+: )?[: ]*")
_PLACE = re.compile(
    r"|Graph execution error:|Detected at node .*|<stack traces unavailable>|File \".*"
    r"|Node: .*|\d+ root error\(s\) found\.|\[\[.*"
)


def check(path: str) -> None:
    """Raises UsageError for a path that cannot be used here, or a store that does not answer."""
    if is_local(path):
        return
    if not path.startswith(S3):
        raise UsageError(f"{path}: only local folders and s3:// are read and written here")
    import tensorflow as tf

    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # tensorflow-io derives classes from Keras's
    with suppress(ImportError):
        import tensorflow_io  # noqa: F401  (it registers s3://)
    if "s3" not in tf.io.gfile.get_registered_schemes():
        raise UsageError(
            f"{path}: s3:// needs tensorflow-io, which works with TensorFlow 2.16, not with "
            f"{tf.__version__}: use Python 3.11 or 3.12, or a local copy"
        )
    try:
        _reach(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be reached: {error}") from None


def _reach(path: str) -> None:
    """Raises OSError where the store has no such bucket for us, or does not answer."""
    import tensorflow as tf

    bucket = path.removeprefix(S3).partition("/")[0]
    try:
        tf.io.gfile.stat(f"{S3}{bucket}/")
    except tf.errors.NotFoundError:
        raise OSError(f"there is no bucket {bucket!r}") from None
    except tf.errors.PermissionDeniedError:
        raise OSError("permission denied; are the credentials right?") from None
    except tf.errors.OpError as error:
        raise OSError(reason(error)) from None


def reason(error: Any) -> str:
    """The first line of the message of TensorFlow's OpError that says what happened."""
    lines = (_NUMBER.sub("", line.strip()) for line in str(error.message).splitlines())
    return next((line for line in lines if not _PLACE.fullmatch(line)), type(error).__name__)


@contextmanager
def store() -> Iterator[Any]:
    """TensorFlow's functions on files. Within it, errors of TensorFlow are raised as OSError."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(reason(error)) from None


def is_local(path: str) -> bool:
    """Whether it is on this machine's file system."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """A path inside a folder."""
    return posixpath.join(folder, *names)


def exists(path: str) -> bool:
    """Whether there is a file or folder. Raises WorkError where the store does not answer."""
    return Path(path).exists() if is_local(path) else _ask("exists", path)


def is_folder(path: str) -> bool:
    """Whether there is a folder. Raises WorkError where the store does not answer."""
    return Path(path).is_dir() if is_local(path) else _ask("isdir", path)


def _ask(question: str, path: str) -> bool:
    with store() as gfile:
        ask = getattr(gfile, question)
        if ask(path):
            return True
        # tensorflow-io says no as well where the store is gone or refuses: a run there would begin
        # again. So a no counts only right after the store has answered.
        try:
            _reach(path)
        except OSError as error:
            raise WorkError(f"{path} cannot be reached: {error}") from None
        return bool(ask(path))


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    if not is_folder(folder):
        return []
    if is_local(folder):
        return sorted(path.name for path in Path(folder).iterdir())
    with store() as gfile:
        return sorted(name.rstrip("/") for name in gfile.listdir(folder) if name.strip("/"))


def make_folder(folder: str) -> None:
    """With its parents; it may exist. Raises WorkError where that is not possible."""
    with writing(folder):
        if is_local(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            return
        with store() as gfile:
            gfile.makedirs(folder)


def read(path: str, *, at_most: int = -1) -> bytes:
    """The whole file. Raises OSError where it cannot be read or is larger than ``at_most``."""
    with opened(path) as file:
        data = file.read(at_most + 1) if at_most >= 0 else file.read()
    if 0 <= at_most < len(data):
        raise OSError(f"it has more than {at_most:,} bytes")
    return data


def sha256(path: str) -> str:
    """Of its bytes, in hexadecimal. Raises OSError where it cannot be read."""
    with opened(path) as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
        return digest.hexdigest()


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file to read from its start. Raises OSError where that is not possible."""
    if is_local(path):
        with Path(path).open("rb") as local:
            yield local
        return
    with store() as gfile, gfile.GFile(path, "rb") as remote:
        yield remote


def write(path: str, data: bytes) -> None:
    """Writes it whole, replacing what was there. Raises WorkError where that is not possible."""
    with writing(path):
        if is_local(path):
            write_whole(path, data)
            return
        with store() as gfile, gfile.GFile(path, "wb") as remote:
            remote.write(data)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Around changing it. Raises WorkError for an OSError."""
    try:
        yield
    except OSError as error:
        raise WorkError(f"{path} cannot be written: {error.strerror or error}") from None


def remove(path: str) -> None:
    """A file, or a folder with all it holds; it may be absent. Raises WorkError."""
    with writing(path):
        if is_local(path):
            if is_folder(path):
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)
            return
        with store() as gfile:
            if is_folder(path):
                gfile.rmtree(path)
            elif exists(path):
                gfile.remove(path)


def rename(path: str, name: str) -> None:
    """A file or folder; on an object store object by object. Raises WorkError."""
    with writing(path):
        if is_local(path):
            Path(path).rename(name)
            return
        with store() as gfile:
            gfile.rename(path, name)
