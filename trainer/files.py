"""All access to files: local folders, and s3:// through tensorflow-io.

Nothing is ever seen half-written under its own name: locally a file is renamed to it when it is
complete, and on an object store it appears when it is.
"""

import os
import posixpath

import tensorflow as tf

from pipelines.cli import UsageError

S3 = "s3://"


def check(path: str) -> None:
    """Raises UsageError for a path that cannot be used here."""
    if "://" not in path:
        return
    if not path.startswith(S3):
        raise UsageError(f"{path}: training reads and writes local folders and s3://")
    try:
        import tensorflow_io  # noqa: F401  (it registers s3://)

        tf.io.gfile.exists(path)
    except (ImportError, tf.errors.UnimplementedError):
        raise UsageError(
            f"{path}: s3:// needs tensorflow-io, which works with TensorFlow 2.16, not with "
            f"{tf.__version__}: use the environment of make env, or a local copy"
        ) from None
    except tf.errors.OpError as error:
        raise UsageError(f"{path} cannot be reached: {first_line(error)}") from None


def first_line(error: tf.errors.OpError) -> str:
    """The first line of TensorFlow's message that says something."""
    lines = [line for line in str(error.message).splitlines() if line.strip()]
    return lines[1] if lines[0].startswith("Graph execution error") and lines[1:] else lines[0]


def is_local(path: str) -> bool:
    """Whether it is on this machine's file system."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """A path inside a folder."""
    return posixpath.join(folder, *names)


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    return bool(tf.io.gfile.exists(path))


def is_folder(path: str) -> bool:
    """Whether there is a folder."""
    return bool(tf.io.gfile.isdir(path))


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    if not is_folder(folder):
        return []
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder) if name.strip("/"))


def make_folder(folder: str) -> None:
    """With its parents; it may exist."""
    tf.io.gfile.makedirs(folder)


def read(path: str) -> bytes:
    """The whole file. Raises OSError where it cannot be read."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return bytes(file.read())
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from None


def write(path: str, data: bytes) -> None:
    """Writes it whole, replacing what was there. Raises OSError where that is not possible."""
    try:
        if not is_local(path):
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(data)
            return
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from None
    partial = f"{path}.partial"
    with open(partial, "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)  # noqa: PTH105


def remove(path: str) -> None:
    """A file, or a folder with all it holds; it may be absent."""
    if is_folder(path):
        tf.io.gfile.rmtree(path)
    elif exists(path):
        tf.io.gfile.remove(path)


def rename(path: str, name: str) -> None:
    """A file or folder; on an object store object by object."""
    tf.io.gfile.rename(path, name)
