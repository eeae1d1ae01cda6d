"""A picture as its owner keeps it: its depth, its transparency, its colour profile, its EXIF.

What is scored is another matter: that is always 8 bits on white (``evaluation.pictures``).
"""

import dataclasses
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import TiffImageFile

from evaluation.upscalers import Levels
from pipelines.command.cli import UsageError
from pipelines.dataset.outcome import Outcome, error_detail
from pipelines.pictures.colour import TRANSPARENT_MODES, eight_bits, gamma_table, to_rgb
from pipelines.pictures.errors import PictureError
from pipelines.pictures.formats import format_of
from pipelines.pictures.images import MAX_PIXELS, opened
from pipelines.pictures.metadata import PIXEL_TAGS, bare_png, bare_tiff, orientation
from trainer import files

OPAQUE: Mapping[np.dtype[Any], int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The most of how opaque a pixel is."""
# Fewer bits in 16: no picture is so dark.
_NARROW_WHITES = (255, 1023, 4095)
_DARKEST_WHITE = 65535 // 8
# EXIF that would no longer be true, or belongs to the file: a smaller copy, other programs' data.
_STALE_TAGS = PIXEL_TAGS | {330, 700, 33723, 34377}
_FOLDERS = (IFD.Exif, IFD.GPSInfo)
_PLAIN_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "I", "F")
_FAR_MORE = 4
_PNG_DEPTH_AT = 24
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
_TURNS: Mapping[int, Callable[[Levels], Levels]] = {
    1: lambda samples: samples,
    2: lambda samples: samples[:, ::-1],
    3: lambda samples: samples[::-1, ::-1],
    4: lambda samples: samples[::-1],
    5: lambda samples: samples.swapaxes(0, 1),
    6: lambda samples: samples[::-1].swapaxes(0, 1),
    7: lambda samples: samples[::-1, ::-1].swapaxes(0, 1),
    8: lambda samples: samples[:, ::-1].swapaxes(0, 1),
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metadata:
    """What a larger picture can keep."""

    profile: bytes | None = None
    """ICC, of the samples' own colours: grey or RGB."""
    exif: Image.Exif = field(default_factory=Image.Exif)
    """Without the orientation: the picture is upright."""
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class Photo:
    """A picture, upright."""

    samples: Levels
    """[H, W, C]: grey or RGB, then how opaque it is, if it is not everywhere."""
    white: int = 255
    """The most of grey or RGB."""
    is_grey: bool = False
    """Whether there is no colour, even where there are three channels."""
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def bits(self) -> int:
        """8 or 16."""
        return self.samples.itemsize * 8

    @property
    def colours(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.samples.shape[2] - self.has_alpha

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is how opaque it is."""
        return self.samples.shape[2] in (2, 4)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before its pixels are."""

    width: int
    height: int
    """Upright."""
    bytes_a_pixel: int
    """Of the samples, at most."""


def read_header(path: str) -> Header:
    """Raises UsageError for what is no picture, or several."""
    with _named(path):
        data = Path(path).read_bytes()
        file_format = format_of(data)
        image = _lazy(data, file_format)
        pictures = getattr(image, "n_frames", 1)
        if file_format in _ANIMATED and pictures > 1:
            raise PictureError(
                Outcome.UNSUPPORTED_FORMAT, f"it holds {pictures} pictures, one is needed"
            )
        width, height = image.size
        if width * height > MAX_PIXELS:
            detail = f"{width * height:,} pixels of at most {MAX_PIXELS:,}"
            raise PictureError(Outcome.TOO_MANY_PIXELS, detail)
        # Pillow tells a TIFF file's as they are when it is upright.
        if file_format != "TIFF" and _turn(image, data, file_format) > 4:
            width, height = height, width
        is_wide = image.mode.startswith("I;16") or _is_wide(image, data, file_format)
        channels = 3 if image.mode in ("P", "CMYK") else len(image.getbands())
        transparent = "transparency" in image.info
        return Header(width, height, (channels + transparent) * (1 + is_wide))


def read_photo(path: str) -> Photo:
    """The picture of a file. Raises UsageError for what is no picture, or a broken one."""
    with _named(path):
        data = Path(path).read_bytes()
        file_format = format_of(data)
        image = _lazy(data, file_format)
        metadata = _metadata(path, image, file_format)
        if _is_wide(image, data, file_format):
            read = _wide_png if file_format == "PNG" else _wide_tiff
            samples = _TURNS[_turn(image, data, file_format)](read(data))
        else:
            samples = _pillows(data)
        gamma = bare_png(data).info["gamma"] if file_format == "PNG" else None
    return _photo(samples, metadata, gamma)


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"there is no picture {path}") from None
    except Exception as error:  # on hostile input libraries raise what they like
        reason = error if isinstance(error, OSError | PictureError) else error_detail(error)
        raise UsageError(f"{path} is not a readable picture: {reason}") from None


def _lazy(data: bytes, file_format: str) -> Image.Image:
    """The picture before its pixels are decoded; without metadata where that is broken."""
    try:
        try:
            return Image.open(io.BytesIO(data), formats=[file_format])
        except Exception:  # on hostile input Pillow raises what it likes
            bare = {"PNG": lambda data: bare_png(data).data, "TIFF": bare_tiff}[file_format]
            return Image.open(io.BytesIO(bare(data)), formats=[file_format])
    except Exception:
        raise PictureError(Outcome.CORRUPT, "its header cannot be read") from None


def _turn(image: Image.Image, data: bytes, file_format: str) -> int:
    """The orientation, 1 to 8."""
    if isinstance(image, TiffImageFile):
        turn: int = image.tag_v2.get(Base.Orientation, 1)
        return turn if turn in _TURNS else 1
    exif = bare_png(data).exif if file_format == "PNG" else image.info.get("exif")
    return orientation(exif)


def _is_wide(image: Image.Image, data: bytes, file_format: str) -> bool:
    """Whether it has 16 bits a sample that Pillow would make 8 of."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(Base.BitsPerSample, ())
        return len(bits) > 1 and {*bits} == {16} and image.mode != "CMYK"
    return file_format == "PNG" and data[_PNG_DEPTH_AT] == 16


def _wide_png(data: bytes) -> Levels:
    import tensorflow as tf

    bare = bare_png(data).data
    has_transparent_colour = b"tRNS" in bare[: bare.find(b"IDAT")]
    try:
        decoded = tf.io.decode_png(bare, 4 if has_transparent_colour else 0, tf.uint16)
    except tf.errors.OpError as error:
        raise PictureError(Outcome.CORRUPT, files.reason(error)) from None
    samples: Levels = decoded.numpy()
    return samples


def _wide_tiff(data: bytes) -> Levels:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            samples = page.asarray()
            is_planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
    except Exception as error:  # on hostile input, and what needs another library
        detail = f"{error_detail(error)}; save its 16 bits without compression, or as PNG"
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, detail) from None
    samples = np.moveaxis(samples, 0, -1) if is_planar else samples
    if samples.ndim != 3 or samples.shape[2] > 4 or samples.dtype != np.uint16:
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, f"16-bit TIFF of shape {samples.shape}")
    return _divided(samples) if premultiplied else samples


def _divided(samples: Levels) -> Levels:
    """Colours that were multiplied by how opaque they are, as they are."""
    opaque = np.maximum(samples[..., -1:], 1).astype(np.float32)
    colours = np.minimum(samples[..., :-1] * (65535 / opaque) + 0.5, 65535)
    return np.concatenate([colours.astype(np.uint16), samples[..., -1:]], axis=-1)


def _pillows(data: bytes) -> Levels:
    with opened(data) as image:
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)[..., None]
        image = eight_bits(image) if image.mode in _PLAIN_MODES else to_rgb(image)
        is_grey = image.mode in ("1", "L", "LA", "La")
        is_transparent = image.mode in TRANSPARENT_MODES or "transparency" in image.info
        mode = ("L" if is_grey else "RGB") + ("A" if is_transparent else "")
        samples = np.asarray(image.convert(mode))
    return samples.reshape(*samples.shape[:2], -1)


def _photo(samples: Levels, metadata: Metadata, gamma: float | None) -> Photo:
    white = _white(samples)
    has_alpha = samples.shape[2] in (2, 4)
    colours = samples[..., :-1] if has_alpha else samples
    if table := gamma_table(gamma, white):
        colours = np.array(table, samples.dtype)[colours]
    if has_alpha:
        alpha = samples[..., -1:]
        samples = np.concatenate([_filled(colours, alpha[..., 0]), alpha], axis=-1)
    else:
        samples = colours
    is_grey = all(
        np.array_equal(colours[..., 0], colours[..., channel])
        for channel in range(1, colours.shape[2])
    )
    space = b"RGB " if colours.shape[2] == 3 else b"GRAY"
    if metadata.profile and metadata.profile[16:20] != space:  # it was applied, or has no say
        metadata = dataclasses.replace(metadata, profile=None)
    return Photo(samples, white, is_grey, metadata)


def _white(samples: Levels) -> int:
    if samples.dtype == np.uint8:
        return 255
    colours = samples[..., : -1 if samples.shape[2] in (2, 4) else None]
    most = int(colours.max())
    if not 0 < most < _DARKEST_WHITE:
        return 65535
    return next((white for white in _NARROW_WHITES if most <= white), 65535)


def _filled(colours: Levels, alpha: Levels) -> Levels:
    """Those of transparent pixels, which are nobody's choice, are those of the nearest others.

    So are those of pixels that are far more transparent than one beside them.
    """
    from scipy.ndimage import distance_transform_edt, maximum_filter

    unseen = (alpha == 0) | (alpha < maximum_filter(alpha, 3) // _FAR_MORE)
    if unseen.all() or not unseen.any():
        return colours
    nearest = distance_transform_edt(unseen, return_distances=False, return_indices=True)
    return colours[tuple(nearest)]


def _metadata(path: str, image: Image.Image, file_format: str) -> Metadata:
    profile, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    try:
        exif = _kept(image.getexif())
        exif.tobytes()
    except Exception:  # on broken metadata Pillow raises what it likes
        _logger.warning("%s: its EXIF is broken and left out", path)
        exif = Image.Exif()
    if not (isinstance(dpi, tuple) and all(1 < value < math.inf for value in dpi)):
        dpi = None
    return Metadata(profile, exif, dpi)


def _kept(exif: Image.Exif) -> Image.Exif:
    """Of a picture's EXIF what is still true of a larger one that is upright."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in _STALE_TAGS and tag not in _FOLDERS:
            kept[tag] = value
    for tag in _FOLDERS:
        if folder := exif.get_ifd(tag):
            kept.get_ifd(tag).update(folder)
    return kept
