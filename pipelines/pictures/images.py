"""Bytes of unknown origin -> a checked, upright RGB picture's crops, or an outcome."""

import hashlib
import io
import itertools
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from pipelines.dataset.examples import Crop, Example, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, error_detail
from pipelines.pictures.colour import changes_colours, eight_bits, to_rgb
from pipelines.pictures.degradation import degrade
from pipelines.pictures.errors import PictureError
from pipelines.pictures.formats import format_of
from pipelines.pictures.jpeg import Jpeg, decode_jpeg, read_jpeg
from pipelines.pictures.metadata import bare_png, bare_tiff, orientation
from pipelines.pictures.perceptual_hash import SIDE, perceptual_hash
from pipelines.pictures.pixels import Pixels, grey_square, grey_square_of

MAX_PIXELS = DatasetOptions().max_pixels
# Pillow's own limit warns first and raises at twice the number; ours is held against the header
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is a process a core already
warnings.filterwarnings("ignore", module=r"PIL\.")  # broken metadata around good pixels

_LARGE_PIXELS = 4_000_000
# A picture in a mode of its own is thinned out to about so many before it is converted as a whole.
_CONVERTED_PIXELS = 1_000_000
# Pictures that take much memory are decoded one at a time in a process.
_large_picture = threading.Lock()
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Places for a crop that does not lie on others, before it is taken that there is no room.
_TRIES = 100
# Of the limit, where a decoder takes more memory for a pixel: 12 bytes each are granted.
_PART_OF_LIMIT = {"WEBP": 0.7, "AVIF": 0.8}


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The decoded picture, upright, in whatever mode its file has; ``info`` has its profile.

    Raises PictureError.
    """
    with _decoded(data) as picture:
        yield picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


@contextmanager
def _decoded(data: bytes, most: int = MAX_PIXELS) -> Iterator[Image.Image | Pixels]:
    """An upright RGB JPEG without a profile as an array, as most are; else an image."""
    file_format = format_of(data)
    if file_format == "JPEG":
        jpeg = read_jpeg(data)
        with _within_limits(jpeg.size, file_format, most):
            yield _jpeg_picture(jpeg)
        return
    image, exif, info = _undecoded(data, file_format)
    with image, _within_limits(image.size, file_format, most):
        try:
            image.load()
        except Exception as error:
            raise PictureError(Outcome.CORRUPT, error_detail(error), image.size) from None
        image.info.update(info)
        # Pillow turns a TIFF file itself.
        yield image if file_format == "TIFF" else _upright(image, exif or image.info.get("exif"))


def _undecoded(
    data: bytes, file_format: str
) -> tuple[Image.Image, bytes | None, Mapping[str, Any]]:
    """A picture of which only the header is read, and the Exif data and info taken out of it."""
    exif: bytes | None = None
    info: Mapping[str, Any] = {}
    if file_format == "PNG":
        bare = bare_png(data)
        data, exif, info = bare.data, bare.exif, bare.info
    elif file_format == "TIFF":
        data = bare_tiff(data)
    try:
        image = Image.open(io.BytesIO(data), formats=[file_format])
    except UnidentifiedImageError:
        raise PictureError(Outcome.CORRUPT, "its header cannot be read") from None
    except Exception as error:  # on hostile input Pillow raises what it likes
        raise PictureError(Outcome.CORRUPT, error_detail(error)) from None
    return image, exif, info


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height as stored, which may not be upright, without decoding a pixel.

    Raises PictureError for what ``opened`` would refuse by the header.
    """
    file_format = format_of(data)
    if file_format == "JPEG":
        size = read_jpeg(data).size
    else:
        image, _, _ = _undecoded(data, file_format)
        with image:
            size = image.size
    _check_limit(size, file_format)
    return size


@contextmanager
def _within_limits(size: tuple[int, int], file_format: str, most: int) -> Iterator[None]:
    """Raises PictureError before a picture is decoded that would take too much memory."""
    _check_limit(size, file_format, most)
    with _large_picture if size[0] * size[1] > _LARGE_PIXELS else nullcontext():
        yield


def _check_limit(size: tuple[int, int], file_format: str, most: int = MAX_PIXELS) -> None:
    pixels = size[0] * size[1]
    most = int(most * _PART_OF_LIMIT.get(file_format, 1))
    if pixels > most:
        raise PictureError(Outcome.TOO_MANY_PIXELS, f"{pixels:,} of at most {most:,}", size)


def _jpeg_picture(jpeg: Jpeg) -> Image.Image | Pixels:
    pixels = decode_jpeg(jpeg)
    turn = orientation(jpeg.exif)
    if jpeg.channels == 3 and turn == 1 and not changes_colours(jpeg.profile):
        return pixels
    if jpeg.channels == 4:  # as Adobe's programs write it, and all others after them
        image = Image.fromarray(255 - pixels, "CMYK")
    else:
        image = Image.fromarray(pixels if jpeg.channels == 3 else pixels[..., 0])
    if jpeg.profile:
        image.info["icc_profile"] = jpeg.profile
    return _upright(image, jpeg.exif)


def _upright(image: Image.Image, exif: bytes | None) -> Image.Image:
    turn = orientation(exif)
    return image if turn == 1 else image.transpose(_TURNS[turn])


def crop_boxes(size: tuple[int, int], sha256: str, options: DatasetOptions) -> list[Crop]:
    """Where to cut: a pure function of the picture's bytes, its size and the options.

    Raises PictureError where no crop fits inside the margins.
    """
    ranges = []
    for side in size:
        margin = options.margin_px(side)
        ranges.append((margin, side - 2 * margin - options.crop_size))
    if min(room for _, room in ranges) < 0:
        raise PictureError(
            Outcome.TOO_SMALL,
            f"{size[0]}x{size[1]} without margins holds no {options.crop_size}x{options.crop_size}",
            size,
        )
    (left, width), (top, height) = ranges
    side = options.crop_size
    if isinstance(options.crops_per_image, str):
        places = [(x, y) for y in _grid(top, height, side) for x in _grid(left, width, side)]
    else:
        places = []
        for index in range(options.crops_per_image):
            candidates = (
                (left + x % (width + 1), top + y % (height + 1))
                for x, y in _numbers(f"{options.seed} {sha256} {index}")
            )
            first = next(candidates)
            tried = itertools.chain([first], candidates)
            apart = (it for it in tried if not any(_overlap(it, other, side) for other in places))
            places.append(next(apart, first))
    return sorted({Crop(x, y, side, side) for x, y in places})


def _numbers(key: str) -> Iterator[tuple[int, int]]:
    """So many pairs of large random numbers as places are tried for a crop."""
    for number in range(_TRIES):
        text = f"{key} {number}" if number else key
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        yield int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _overlap(one: tuple[int, int], other: tuple[int, int], side: int) -> bool:
    """Whether two crops share more than half of their pixels."""
    width, height = (max(0, side - abs(a - b)) for a, b in zip(one, other, strict=True))
    return 2 * width * height > side * side


def _grid(start: int, room: int, side: int) -> range:
    """Crops side by side, in the middle; ``room`` is what is left beside one."""
    count = 1 + room // side
    first = start + (room - (count - 1) * side) // 2
    return range(first, first + count * side, side)


def detail(hr: Pixels) -> float:
    """How much neighbouring pixels differ on average, in grey levels, of uint8 [H, W, 3].

    Of green, most of what is seen as grey. Whole numbers are added, so it is the same everywhere.
    """
    green = hr[..., 1].astype(np.int32)
    steps = [np.abs(np.diff(green, axis=axis)) for axis in (0, 1)]
    return float(sum(int(step.sum()) for step in steps) / max(1, sum(step.size for step in steps)))


def cut(picture: Image.Image | Pixels, crop: Crop) -> Pixels:
    """A crop of an upright picture, RGB, uint8 [H, W, 3]."""
    right, below = crop.x + crop.width, crop.y + crop.height
    if isinstance(picture, np.ndarray):
        return np.ascontiguousarray(picture[crop.y : below, crop.x : right])
    return np.asarray(to_rgb(picture.crop((crop.x, crop.y, right, below))))


def png(pixels: Pixels) -> bytes:
    """A uint8 [H, W, 3] picture as a PNG file."""
    # Its import looks for the caller among all modules: 0.2 s where Beam is loaded, as in workers.
    import fpng

    file: bytes = fpng.from_ndarray(pixels)
    return file


def small_grey(picture: Image.Image | Pixels, side: int) -> Pixels:
    """An upright picture squeezed to a grey square, uint8 [side, side], in integer arithmetic."""
    if isinstance(picture, np.ndarray):
        return grey_square(picture, side)
    if picture.mode not in ("RGB", "L") or "transparency" in picture.info:
        step = math.isqrt(picture.width * picture.height // _CONVERTED_PIXELS) or 1
        thin = (max(picture.width // step, 1), max(picture.height // step, 1))
        picture = to_rgb(picture.resize(thin, Image.Resampling.NEAREST))
    return grey_square_of(picture, side)


def examples_of(
    original: Original, options: DatasetOptions
) -> tuple[tuple[int, int], bytes | None, list[Example]]:
    """The upright picture's width and height, its perceptual hash (None where it is all but
    flat), and its examples. Raises PictureError."""
    image_id, url, sha256 = original.image_id, original.url, original.sha256
    with _decoded(original.data, options.max_pixels) as picture:
        size = _size(picture)
        if isinstance(picture, Image.Image):
            picture = eight_bits(picture)
        examples = []
        boxes = crop_boxes(size, sha256, options)
        for crop in boxes:
            hr = cut(picture, crop)
            if options.min_detail and detail(hr) < options.min_detail:
                continue
            lr = degrade(hr, options.scales, options.degradation)
            pngs = {scale: png(pixels) for scale, pixels in lr.items()}
            examples.append(Example(image_id, url, sha256, crop, png(hr), pngs))
        if not examples:
            raise PictureError(
                Outcome.TOO_FLAT, f"none of {len(boxes)} crops has {options.min_detail:g}", size
            )
        return size, perceptual_hash(small_grey(picture, SIDE)), examples


def _size(picture: Image.Image | Pixels) -> tuple[int, int]:
    if isinstance(picture, Image.Image):
        return picture.size
    height, width = picture.shape[:2]
    return width, height
