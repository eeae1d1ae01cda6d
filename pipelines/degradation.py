"""HR to LR: how the dataset's low-resolution pictures are made."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.resampling import matlab_bicubic_matrix, resize, to_uint8


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


def degrade(hr: Image.Image, scale: int, degradation: Degradation) -> npt.NDArray[np.uint8]:
    """The LR version of an RGB picture, uint8 [H, W, 3], each side ``// scale``."""
    width, height = lr_size(hr.width, scale), lr_size(hr.height, scale)
    match degradation:
        case Degradation.ARTICLE:
            small = hr.resize((width, height), Image.Resampling.BICUBIC)
            return blur(np.asarray(small))
        case Degradation.ARTICLE_NEAREST:
            small = hr.resize((width, height), Image.Resampling.NEAREST)
            return blur(np.asarray(small))
        case Degradation.BICUBIC:
            pixels = np.asarray(hr, dtype=np.float64)
            return to_uint8(resize(pixels, height, width, matlab_bicubic_matrix))


def blur(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pillow's ImageFilter.BLUR of a uint8 [H, W, C] picture, to the bit.

    Its kernel is a 5x5 ring of ones over 16: the sum of a 5x5 box less that of the 3x3 box inside.
    Both are separable, and in 16-bit integers this takes a fifth of the time of Pillow's
    convolution in floats. A border of two pixels stays as it is, as in Pillow.
    """
    if min(image.shape[:2]) < 5:
        return image
    wide = image.astype(np.uint16)
    row_of_3 = wide[:, 1:-3] + wide[:, 2:-2]
    row_of_3 += wide[:, 3:-1]
    row_of_5 = row_of_3 + wide[:, :-4]
    row_of_5 += wide[:, 4:]
    ring = row_of_5[:-4] + row_of_5[4:]
    for rows in (slice(1, -3), slice(2, -2), slice(3, -1)):
        ring += row_of_5[rows]
        ring -= row_of_3[rows]
    blurred = image.copy()
    blurred[2:-2, 2:-2] = (ring + 8) >> 4
    return blurred
