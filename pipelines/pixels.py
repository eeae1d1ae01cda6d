"""What is done to every picture's pixels, in C: Pillow's own results in a part of its time.

Where no compiler was there to build the C module, Pillow does the same, to the bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageFilter

from pipelines.resampling import pillow_bicubic_taps

try:
    from pipelines import _pixels
except ImportError:
    _pixels = None  # type: ignore[assignment]

_BICUBIC = Image.Resampling.BICUBIC


def bicubic(image: Image.Image) -> Callable[[tuple[int, int]], npt.NDArray[np.uint8]]:
    """What resizes an RGB picture to a width and height by Pillow's bicubic, uint8 [H, W, 3]."""
    rgbx = _rgbx(image)
    if rgbx is None:
        return lambda size: np.asarray(image.resize(size, _BICUBIC))

    def resize(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        taps = map(pillow_bicubic_taps, image.size, size)
        small = _pixels.resize(rgbx, *image.size, *taps)
        return np.frombuffer(small, np.uint8).reshape(size[1], size[0], 3)

    return resize


def blur(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pillow's BLUR of a uint8 [H, W, 3] picture."""
    if _pixels is None:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.BLUR))
    blurred = _pixels.blur(pixels, pixels.shape[1], pixels.shape[0])
    return np.frombuffer(blurred, np.uint8).reshape(pixels.shape)


def grey_square(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """An RGB or grey picture squeezed to grey, uint8 [side, side]: block means, then bicubic."""
    rgbx = _rgbx(image)
    if rgbx is None:
        grey = image.convert("L").resize((side, side), _BICUBIC, reducing_gap=1.0)
        return np.asarray(grey)
    width, height = image.size
    x, y = width // side or 1, height // side or 1
    means = _pixels.grey(rgbx, width, height, x, y)
    blocks = Image.frombytes("L", (-(-width // x), -(-height // y)), means)
    return np.asarray(blocks.resize((side, side), _BICUBIC, box=(0, 0, width / x, height / y)))


def _rgbx(image: Image.Image) -> Any:
    """Pillow's own bytes of an RGB picture, four a pixel; None where C cannot work on them."""
    if _pixels is None or image.mode != "RGB":
        return None
    try:
        return pa.array(image).values.buffers()[1]
    except ValueError:  # of over 4 megapixels, which do not lie in one piece
        return None
