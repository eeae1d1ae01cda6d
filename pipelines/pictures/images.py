"""Bytes of unknown origin -> a checked, upright RGB picture's crops, or an outcome."""

import hashlib
import io
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import fpng
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from pipelines.dataset.examples import Crop, Example, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.pictures.degradation import degrade
from pipelines.pictures.perceptual_hash import SIDE, perceptual_hash
from pipelines.pictures.pixels import Pixels, grey_square, grey_square_of

MAX_PIXELS = 40_000_000
# Pillow's own limit warns first and raises at twice the number; ours is held against the header
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")  # broken metadata around good pixels

_READ_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
# The bytes a file of the format begins with (or has at the offset), whatever its name says.
_MAGIC: tuple[tuple[int, bytes, bool], ...] = (
    (0, b"\xff\xd8\xff", True),
    (0, b"\x89PNG\r\n\x1a\n", True),
    (0, b"GIF87a", True),
    (0, b"GIF89a", True),
    (8, b"WEBP", True),
    (0, b"BM", True),
    (0, b"II*\0", True),
    (0, b"MM\0*", True),
    (0, b"8BPS", False),  # Photoshop
    (0, b"\0\0\1\0", False),  # icon
    (0, b"\0\0\0\x0cjP  ", False),  # JPEG 2000
    (0, b"\xff\x4f\xff\x51", False),  # JPEG 2000 code stream
    (4, b"ftypavif", False),
    (4, b"ftypheic", False),
    (4, b"ftypmif1", False),
    (0, b"\x0a\x05\x01", False),  # PCX
    (0, b"%!PS", False),
    (0, b"II\x2b\0", False),  # BigTIFF
    (0, b"II\xbc\x01", False),  # JPEG XR
    (0, b"\xff\x0a", False),  # JPEG XL
    (0, b"FORM", False),  # IFF
    (0, b"\xd7\xcd\xc6\x9a", False),  # Windows metafile
)
_PLACEHOLDER_MD5 = frozenset(
    {
        "880a7a58e05d3e83797f27573bb6d35c",  # flickr, PNG of 2,051 bytes
        "e60b98765d26e34bfbb797c1a5f378f2",  # flickr, GIF
        "596246739a83bb45e30e13437e0810d9",
        "969e595182a947c7fdaaef4a34401760",
        "af5db09e39ca35d8930b4e59962e09e5",
        "d835884373f4d6c8f24742ceabe74946",  # imgur
    }
)
_PLACEHOLDERS_ARE_UNDER_BYTES = 20_000
_LARGE_PIXELS = 4_000_000
# A picture in a mode of its own is thinned out to about so many before it is converted as a whole.
_CONVERTED_PIXELS = 1_000_000
# Pictures that take much memory are decoded one at a time in a process.
_large_picture = threading.Lock()


class PictureError(Exception):
    """A picture that cannot be used, and why."""

    def __init__(
        self, outcome: Outcome, detail: str | None = None, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(detail or outcome)
        self.outcome, self.detail, self.size = outcome, detail, size


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The decoded picture, upright, in whatever mode its file has. Raises PictureError."""
    with _identified(data) as image:
        _load(image)
        yield image


@contextmanager
def _identified(data: bytes) -> Iterator[Image.Image]:
    """The picture to be decoded, known by its header."""
    _check_magic(data)
    try:
        image = Image.open(io.BytesIO(data), formats=_READ_FORMATS)
    except UnidentifiedImageError:
        raise PictureError(Outcome.CORRUPT, "its header cannot be read") from None
    except Exception as error:  # on hostile input Pillow raises what it likes
        raise PictureError(Outcome.CORRUPT, _describe(error)) from None
    with image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise PictureError(
                Outcome.TOO_MANY_PIXELS, f"{pixels:,} of at most {MAX_PIXELS:,}", image.size
            )
        with _large_picture if pixels > _LARGE_PIXELS else nullcontext():
            yield image


def _load(image: Image.Image) -> None:
    """Decodes a picture and turns it upright."""
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:
        raise PictureError(Outcome.CORRUPT, _describe(error), image.size) from None


def _plain_jpeg(image: Image.Image, data: bytes) -> Pixels | None:
    """An upright RGB JPEG, as most are, by a faster decoder than Pillow's for the same pixels.

    None where it is something else, or where the decoder has the least to say against it: then
    Pillow decides.
    """
    if image.format != "JPEG" or image.mode != "RGB" or not _is_upright(image):
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _is_upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # of broken metadata, which need not matter to Pillow
        return False


def may_be_picture(start: bytes) -> bool:
    """Whether bytes that begin so, a kilobyte if there are as many, may be a picture."""
    try:
        _check_magic(start)
    except PictureError as error:
        return error.outcome is not Outcome.NOT_AN_IMAGE
    return True


def _check_magic(data: bytes) -> None:
    for offset, magic, is_read in _MAGIC:
        if data.startswith(magic, offset):
            if not is_read:
                raise PictureError(Outcome.UNSUPPORTED_FORMAT, f"begins with {data[:12]!r}")
            if (
                len(data) < _PLACEHOLDERS_ARE_UNDER_BYTES
                and hashlib.md5(data, usedforsecurity=False).hexdigest() in _PLACEHOLDER_MD5
            ):
                raise PictureError(Outcome.PLACEHOLDER)
            return
    if b"<svg" in data[:1024].lower():
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, "SVG")
    raise PictureError(
        Outcome.NOT_AN_IMAGE, f"begins with {data[:12]!r}" if data else "the body is empty"
    )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def to_rgb(image: Image.Image) -> Image.Image:
    """The RGB picture that a viewer would show on white: alpha composed, 16 bits scaled to 8.

    Raises PictureError for a mode that has no such picture.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.int64)
        grey8 = np.clip((grey * 255 + 32767) // 65535, 0, 255).astype(np.uint8)
        return Image.fromarray(grey8).convert("RGB")
    if image.mode == "F":
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, "floating-point samples", image.size)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "CMYK" and "icc_profile" in image.info:
        return _print_to_rgb(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _print_to_rgb(image: Image.Image) -> Image.Image:
    """A CMYK picture as its profile of inks and paper says, or plainly where that is broken."""
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        screen = ImageCms.createProfile("sRGB")
        seen = ImageCms.profileToProfile(image, inks, screen, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        seen = None
    return seen or image.convert("RGB")


def crop_boxes(size: tuple[int, int], sha256: str, options: DatasetOptions) -> list[Crop]:
    """Where to cut: a pure function of the picture's bytes, its size and the options.

    Raises PictureError where no crop fits inside the margins.
    """
    ranges = []
    for side in size:
        margin = int(side * options.crop_margin)
        ranges.append((margin, side - 2 * margin - options.crop_size))
    if min(room for _, room in ranges) < 0:
        raise PictureError(
            Outcome.TOO_SMALL,
            f"{size[0]}x{size[1]} without margins holds no {options.crop_size}x{options.crop_size}",
            size,
        )
    crops = set()
    for index in range(options.crops_per_image):
        key = f"{options.seed} {sha256} {index}".encode()
        digest = hashlib.blake2b(key, digest_size=16).digest()
        numbers = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        x, y = (
            start + number % (room + 1)
            for number, (start, room) in zip(numbers, ranges, strict=True)
        )
        crops.add(Crop(x, y, options.crop_size, options.crop_size))
    return sorted(crops)


def cut(picture: Image.Image | Pixels, crop: Crop) -> Pixels:
    """A crop of an upright picture, RGB, uint8 [H, W, 3]."""
    right, below = crop.x + crop.width, crop.y + crop.height
    if isinstance(picture, np.ndarray):
        return np.ascontiguousarray(picture[crop.y : below, crop.x : right])
    return np.asarray(to_rgb(picture.crop((crop.x, crop.y, right, below))))


def png(pixels: Pixels) -> bytes:
    """A uint8 [H, W, 3] picture as a PNG file."""
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
    with _identified(original.data) as image:
        picture: Image.Image | Pixels | None = _plain_jpeg(image, original.data)
        if picture is None:
            _load(image)
            picture = image
        examples = []
        for crop in crop_boxes(image.size, sha256, options):
            hr = cut(picture, crop)
            lr = degrade(hr, options.scales, options.degradation)
            pngs = {scale: png(pixels) for scale, pixels in lr.items()}
            examples.append(Example(image_id, url, sha256, crop, png(hr), pngs))
        return image.size, perceptual_hash(small_grey(picture, SIDE)), examples
