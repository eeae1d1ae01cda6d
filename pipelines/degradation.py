"""HR to LR: how the dataset's low-resolution pictures are made."""

from collections.abc import Iterable
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.pixels import bicubic, blur
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


def degrade(
    hr: Image.Image, scales: Iterable[int], degradation: Degradation
) -> dict[int, npt.NDArray[np.uint8]]:
    """The LR versions of an RGB picture by scale, uint8 [H, W, 3], each side ``// scale``."""
    sizes = {scale: (lr_size(hr.width, scale), lr_size(hr.height, scale)) for scale in scales}
    match degradation:
        case Degradation.ARTICLE:
            shrink = bicubic(hr)
            return {scale: blur(shrink(size)) for scale, size in sizes.items()}
        case Degradation.ARTICLE_NEAREST:
            return {
                scale: blur(np.asarray(hr.resize(size, Image.Resampling.NEAREST)))
                for scale, size in sizes.items()
            }
        case Degradation.BICUBIC:
            pixels = np.asarray(hr, dtype=np.float64)
            return {
                scale: to_uint8(resize(pixels, height, width, matlab_bicubic_matrix))
                for scale, (width, height) in sizes.items()
            }
