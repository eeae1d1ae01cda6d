"""Test pictures: the crops of a dataset's split, or the files of a folder."""

import hashlib
import io
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.metrics import UInt8Array
from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.examples import Example
from pipelines.dataset.options import Degradation
from pipelines.dataset.tfrecord import read_records
from pipelines.pictures.colour import to_rgb
from pipelines.pictures.errors import PictureError
from pipelines.pictures.formats import PICTURE_SUFFIXES
from pipelines.pictures.images import opened, size_of
from trainer import files
from trainer.dataset import load_manifest

HASH_DIGITS = 12
_GREY_MODES = ("1", "I", "L")


@dataclass(frozen=True)
class Picture:
    """An HR picture, with its LR versions where they are stored."""

    name: str
    hr: UInt8Array
    """[H, W, 3], or [H, W] where the picture is grey."""
    lr: Mapping[int, UInt8Array] = field(default_factory=dict)
    """RGB [h, w, 3] by scale."""
    source: str = ""
    """Its file, or the URL that it was fetched from; empty where neither is known."""

    @property
    def rgb(self) -> UInt8Array:
        """HR as RGB [H, W, 3]."""
        return self.hr if self.hr.ndim == 3 else np.stack([self.hr] * 3, axis=-1)


@dataclass(frozen=True)
class Unread:
    """A picture that could not be read when its turn came, or several of a damaged shard."""

    reason: str
    """With its name, and what to do about it."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures to score on. They are numbered, the same each time, and read when asked for."""

    dataset: str
    """'set5@0a1b2c3d4e5f': the folder's name and the hash of its pictures."""
    split: str
    """'test' of a dataset; empty for a folder of pictures."""
    scales: tuple[int, ...]
    """Of the stored LR versions; none: LR is made from HR."""
    degradation: Degradation
    """HR to LR: of the stored LR, otherwise the article's."""
    paths: tuple[str, ...]
    counts: tuple[int, ...]
    """Of the pictures in each file."""
    size: int
    """In pictures; less than there are leaves the last out."""
    sizes: Mapping[str, tuple[int, int]]
    """Width and height by the picture's name, or of all crops."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Of pictures whose header says that they cannot be read: why, by name."""

    def __str__(self) -> str:
        return f"{self.dataset} {self.split}".rstrip()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Picture]:
        """All pictures in their order. Raises WorkError for one that cannot be read."""
        for _, picture in self.read():
            if isinstance(picture, Unread):
                raise WorkError(picture.reason)
            yield picture

    def read(self, leave_out: Container[int] = ()) -> Iterator[tuple[int, Picture | Unread]]:
        """The pictures with their numbers, but for those ``leave_out``."""
        first = 0
        for path, count in zip(self.paths, self.counts, strict=True):
            numbers = range(first, min(first + count, self.size))
            first += count
            if all(number in leave_out for number in numbers):
                continue
            if self.split:
                yield from _read_shard(path, numbers, leave_out)
                continue
            try:
                yield numbers[0], read_picture(path)
            except UsageError as error:
                yield numbers[0], Unread(str(error))


def dataset_pictures(directory: str, split: str) -> PictureSet:
    """The crops of one split. Raises UsageError without a finished dataset or any example."""
    files.check(directory)
    manifest = load_manifest(directory)
    paths = manifest.shard_paths(directory, split)
    hashes = (f"{name} {shard.sha256}" for name, shard in manifest.split(split).items())
    return PictureSet(
        dataset=_identity(directory, hashes),
        split=split,
        scales=manifest.options.scales,
        degradation=manifest.options.degradation,
        paths=tuple(paths),
        counts=tuple(shard.examples for shard in manifest.split(split).values()),
        sizes={"each crop": (manifest.options.crop_size,) * 2},
        size=manifest.num_examples(split),
    )


def folder_pictures(directory: str) -> PictureSet:
    """The picture files of a folder, by name. Raises UsageError where there are none."""
    if not Path(directory).is_dir():
        raise UsageError(f"{directory} is not a local folder of pictures")
    paths = sorted(
        path
        for path in Path(directory).iterdir()
        # A hidden one is not meant: macOS puts ._x.png beside x.png on other systems' disks.
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )
    if not paths:
        raise UsageError(f"{directory} has no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")
    hashes: list[str] = []
    sizes: dict[str, tuple[int, int]] = {}
    faults: dict[str, str] = {}
    for path in paths:
        try:
            data = path.read_bytes()
            hashes.append(f"{path.name} {hashlib.sha256(data).hexdigest()}")
            sizes[path.name] = size_of(data)
        except (OSError, PictureError) as error:
            faults[path.name] = f"is not a readable picture: {error}"
    return PictureSet(
        dataset=_identity(directory, hashes),
        split="",
        scales=(),
        degradation=Degradation.ARTICLE,
        paths=tuple(map(str, paths)),
        counts=(1,) * len(paths),
        size=len(paths),
        sizes=sizes,
        faults=faults,
    )


def read_picture(path: str) -> Picture:
    """A picture file, upright, in 8 bits, grey or RGB; transparent parts on white.

    Raises UsageError for what is no picture, or a broken one.
    """
    try:
        with opened(Path(path).read_bytes()) as image:
            rgb = np.asarray(to_rgb(image))
            is_grey = image.mode.startswith(_GREY_MODES)
    except (OSError, PictureError) as error:
        raise UsageError(f"{path} is not a readable picture: {error}") from None
    return Picture(Path(path).name, rgb[..., 0] if is_grey else rgb, source=path)


def _read_shard(
    path: str, numbers: range, leave_out: Container[int]
) -> Iterator[tuple[int, Picture | Unread]]:
    at = numbers.start
    try:
        with files.opened(path) as file:
            for at, record in zip(numbers, read_records(file), strict=False):
                if at not in leave_out:
                    yield at, _example_picture(Example.from_bytes(record))
        if at + 1 != numbers.stop:
            yield at + 1, Unread(f"{path} has too few examples: was the dataset built again?")
    except OSError as error:
        yield at, Unread(f"{path} cannot be read: {error}")
    except (ValueError, SyntaxError) as error:
        yield at, Unread(f"{path} is damaged: {error}; rebuild the dataset")


def _example_picture(example: Example) -> Picture:
    crop = example.crop
    return Picture(
        name=f"{example.image_id} {crop.x},{crop.y}",
        hr=_decode_png(example.hr),
        lr={scale: _decode_png(png) for scale, png in example.lr.items()},
        source=example.url if example.url.startswith(("http://", "https://")) else "",
    )


def _decode_png(data: bytes) -> UInt8Array:
    pixels: npt.NDArray[np.uint8] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return pixels


def _identity(directory: str, hashes: Iterable[str]) -> str:
    path = PurePosixPath(directory) if "://" in directory else Path(directory).resolve()
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return f"{path.name}@{digest[:HASH_DIGITS]}"
