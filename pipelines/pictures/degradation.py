"""HR to LR: how the dataset's low-resolution pictures are made."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from pipelines.dataset.options import Degradation
from pipelines.pictures.pixels import Pixels, bicubic, blur
from pipelines.pictures.resampling import matlab_bicubic_matrix, resize, to_uint8


def lr_size(hr_size: int, scale: int) -> int:
    """The side of the LR picture in pixels: 66 for 200 at x3."""
    return hr_size // scale


def degrade(hr: Pixels, scales: Iterable[int], degradation: Degradation) -> dict[int, Pixels]:
    """The LR versions of an RGB picture by scale; all are uint8 [H, W, 3]."""
    height, width = hr.shape[:2]
    sizes = {scale: (lr_size(width, scale), lr_size(height, scale)) for scale in scales}
    match degradation:
        case Degradation.ARTICLE:
            lr = bicubic(hr, list(sizes.values()))
            return {scale: blur(small) for scale, small in zip(sizes, lr, strict=True)}
        case Degradation.ARTICLE_NEAREST:
            image = Image.fromarray(hr)
            return {
                scale: blur(np.asarray(image.resize(size, Image.Resampling.NEAREST)))
                for scale, size in sizes.items()
            }
        case Degradation.BICUBIC:
            exact = hr.astype(np.float64)
            return {
                scale: to_uint8(resize(exact, height, width, matlab_bicubic_matrix))
                for scale, (width, height) in sizes.items()
            }
