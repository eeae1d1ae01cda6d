"""What is done to every picture's pixels, in C: Pillow's own results in a part of its time.

Pictures are uint8 [H, W, 3]. Where no compiler was there to build the C module, Pillow does the
same, to the bit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipelines.pictures.resampling import pillow_bicubic_taps

try:
    from pipelines.pictures import _pixels
except ImportError:
    _pixels = None  # type: ignore[assignment]

IS_COMPILED = _pixels is not None
Pixels = npt.NDArray[np.uint8]
_BICUBIC = Image.Resampling.BICUBIC


def bicubic(pixels: Pixels, sizes: Sequence[tuple[int, int]]) -> list[Pixels]:
    """A picture in each of the sizes, a width and a height, by Pillow's bicubic."""
    height, width = pixels.shape[:2]
    # Of one so narrow Pillow makes the vertical pass first.
    if _pixels is None or height > 100 * width:
        image = Image.fromarray(pixels)
        return [np.asarray(image.resize(size, _BICUBIC)) for size in sizes]
    taps = tuple(
        (pillow_bicubic_taps(width, w, width), pillow_bicubic_taps(height, h, height))
        for w, h in sizes
    )
    resized = _pixels.resize(np.ascontiguousarray(pixels), width, height, taps)
    return [
        np.frombuffer(data, np.uint8).reshape(h, w, 3)
        for data, (w, h) in zip(resized, sizes, strict=True)
    ]


def blur(pixels: Pixels) -> Pixels:
    """Pillow's BLUR."""
    if _pixels is None:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.BLUR))
    blurred = _pixels.blur(np.ascontiguousarray(pixels), pixels.shape[1], pixels.shape[0])
    return np.frombuffer(blurred, np.uint8).reshape(pixels.shape)


def grey_square(pixels: Pixels, side: int) -> Pixels:
    """A picture squeezed to grey, uint8 [side, side], as grey_square_of does it with Pillow's."""
    height, width = pixels.shape[:2]
    x, y = width // side or 1, height // side or 1
    columns, rows = -(-width // x), -(-height // y)
    if _pixels is None or rows > 100 * columns:
        return grey_square_of(Image.fromarray(pixels), side)
    blocks = np.zeros((rows * columns, 3), np.uint8)
    means = _pixels.grey(np.ascontiguousarray(pixels), width, height, x, y)
    blocks[:, 0] = np.frombuffer(means, np.uint8)
    # A last block may be smaller than the others. Of these numbers Pillow keeps 32 bits.
    across = pillow_bicubic_taps(columns, side, float(np.float32(width / x)))
    down = pillow_bicubic_taps(rows, side, float(np.float32(height / y)))
    (square,) = _pixels.resize(blocks, columns, rows, ((across, down),))
    return np.frombuffer(square, np.uint8).reshape(side, side, 3)[..., 0]


def grey_square_of(image: Image.Image, side: int) -> Pixels:
    """The same of a grey or RGB Pillow image: means of whole blocks, then bicubic."""
    return np.asarray(image.convert("L").resize((side, side), _BICUBIC, reducing_gap=1.0))
