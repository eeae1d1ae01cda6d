"""What is wrong with a dataset that TensorFlow could not read: the file, and where in it."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import tensorflow as tf
from PIL import Image

from pipelines.command.cli import WorkError
from pipelines.dataset.examples import Example
from pipelines.dataset.tfrecord import read_records
from pipelines.pictures.degradation import lr_size
from trainer import files
from trainer.dataset import Split, check_frames, windows
from trainer.input import png_head

# The window in use, the next one, and where a call of several steps reaches further.
_WINDOWS = 4
_OF_FILES = (
    tf.errors.NotFoundError, tf.errors.DataLossError, tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)  # fmt: skip
_OF_FILES_OR_BUGS = (
    tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, tf.errors.FailedPreconditionError,
)  # fmt: skip


@contextmanager
def naming_damage(split: Split, seed: int, first: int) -> Iterator[None]:
    """Around reading crops from number ``first`` on. Raises WorkError where that fails.

    TensorFlow's errors name no file, so the records that it may have read are read again.
    """
    try:
        yield
    except (*_OF_FILES, *_OF_FILES_OR_BUGS) as error:
        ahead = islice(windows(split, seed, first), _WINDOWS)
        fault = find_fault(split, {path for window in ahead for path in window.paths})
        if fault is None and isinstance(error, _OF_FILES_OR_BUGS):
            raise
        raise WorkError(
            f"the dataset cannot be read: {fault or files.reason(error)} "
            "(python -m pipelines.verify looks at all of it)"
        ) from None


def find_fault(split: Split, paths: Iterable[str]) -> str | None:
    """Of the first of these files of the split that has one, with its path; or None."""
    counts = dict(zip(split.paths, split.counts, strict=True))
    for path in sorted(paths):
        try:
            count = _read(split, path)
        except (OSError, ValueError) as error:
            return f"{path}: {getattr(error, 'strerror', None) or error}"
        if count != counts[path]:
            return f"{path}: {count} examples, not {counts[path]}: was it built again?"
    return None


def _read(split: Split, path: str) -> int:
    """How many examples a file holds. Raises OSError, ValueError for what is none."""
    if files.is_local(path):
        check_frames(split, path)
    with files.opened(path) as file:
        return sum(_checked(split, record) for record in read_records(file))


def _checked(split: Split, record: bytes) -> int:
    """1. Raises OSError, ValueError where the record is no example, or a picture broken."""
    example = Example.from_bytes(record)
    for scale, png in ((1, example.hr), *example.lr.items()):
        if scale < 1 or not png.startswith(png_head(lr_size(split.crop_size, scale))):
            raise ValueError(f"a picture of {example.image_id[:60]!r} is no PNG of the crop's size")
        Image.open(io.BytesIO(png)).load()
    return 1
