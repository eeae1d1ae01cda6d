"""HR to LR: how the dataset's low-resolution pictures are made."""

from enum import StrEnum

import numpy as np
from PIL import Image, ImageFilter

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


def degrade(hr: Image.Image, scale: int, degradation: Degradation) -> Image.Image:
    """The LR version (RGB, each side ``// scale``) of an RGB picture."""
    width, height = lr_size(hr.width, scale), lr_size(hr.height, scale)
    match degradation:
        case Degradation.ARTICLE:
            small = hr.resize((width, height), Image.Resampling.BICUBIC)
            return small.filter(ImageFilter.BLUR)
        case Degradation.ARTICLE_NEAREST:
            small = hr.resize((width, height), Image.Resampling.NEAREST)
            return small.filter(ImageFilter.BLUR)
        case Degradation.BICUBIC:
            pixels = np.asarray(hr, dtype=np.float64)
            return Image.fromarray(to_uint8(resize(pixels, height, width, matlab_bicubic_matrix)))
