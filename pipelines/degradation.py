"""HR to LR: how the dataset's low-resolution pictures are made.

The article's way is Pillow's. A C module takes a quarter of Pillow's time for the same bytes;
where no compiler was there to build it, Pillow does the work.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipelines.resampling import (
    matlab_bicubic_matrix,
    pillow_bicubic_taps,
    resize,
    to_uint8,
)

try:
    from pipelines import _degradation
except ImportError:
    _degradation = None  # type: ignore[assignment]


class Degradation(StrEnum):
    """The ways from HR to LR."""

    ARTICLE = "article"
    """Pillow's bicubic, then BLUR: what the article's code does today."""
    ARTICLE_NEAREST = "article-nearest"
    """Nearest neighbour, then BLUR: what it did under Pillow before version 7."""
    BICUBIC = "bicubic"
    """MATLAB's antialiased bicubic: what the papers use."""


def lr_size(hr_size: int, scale: int) -> int:
    """The side of the LR picture in pixels: 66 for 200 at x3."""
    return hr_size // scale


def degrade(
    hr: Image.Image, scales: Iterable[int], degradation: Degradation
) -> dict[int, npt.NDArray[np.uint8]]:
    """The LR versions of an RGB picture by scale, uint8 [H, W, 3], each side ``// scale``."""
    sizes = {scale: (lr_size(hr.width, scale), lr_size(hr.height, scale)) for scale in scales}
    match degradation:
        case Degradation.ARTICLE:
            shrink = _pillow_bicubic(hr)
            return {scale: _blurred(shrink(size)) for scale, size in sizes.items()}
        case Degradation.ARTICLE_NEAREST:
            return {
                scale: _blurred(np.asarray(hr.resize(size, Image.Resampling.NEAREST)))
                for scale, size in sizes.items()
            }
        case Degradation.BICUBIC:
            pixels = np.asarray(hr, dtype=np.float64)
            return {
                scale: to_uint8(resize(pixels, height, width, matlab_bicubic_matrix))
                for scale, (width, height) in sizes.items()
            }


def _pillow_bicubic(hr: Image.Image) -> Callable[[tuple[int, int]], npt.NDArray[np.uint8]]:
    """What shrinks a picture to a width and height."""
    if _degradation is None:
        return lambda size: np.asarray(hr.resize(size, Image.Resampling.BICUBIC))
    rgbx = hr.tobytes("raw", "RGBX")

    def shrink(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        taps = map(pillow_bicubic_taps, hr.size, size)
        small = _degradation.resize(rgbx, *hr.size, *taps)
        return np.frombuffer(small, np.uint8).reshape(size[1], size[0], 3)

    return shrink


def _blurred(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if _degradation is None:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.BLUR))
    blurred = _degradation.blur(image, image.shape[1], image.shape[0])
    return np.frombuffer(blurred, np.uint8).reshape(image.shape)
