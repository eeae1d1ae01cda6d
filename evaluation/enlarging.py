"""A photo enlarged, band by band."""

from collections.abc import Callable, Iterator

import numpy as np

from evaluation.photo import OPAQUE, Photo
from evaluation.tiles import bands
from evaluation.upscalers import Bicubic, Levels, Upscaler


def enlarged(
    photo: Photo,
    upscaler: Upscaler,
    scale: int,
    on_tile: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Levels]:
    """Bands of rows of the samples [scale H, scale W, C]; ``on_tile`` as in ``bands``.

    How opaque it is is enlarged by bicubic.
    """

    def enlarge(tile: Levels) -> Levels:
        colours = tile[..., : 1 if photo.is_grey else photo.colours]
        result = upscaler.enlarge(colours, photo.white, scale)
        if photo.is_grey:
            result = result.repeat(photo.colours, axis=2)
        if not photo.has_alpha:
            return result
        alpha = Bicubic().enlarge(tile[..., -1:], OPAQUE[tile.dtype], scale)
        return np.concatenate([result, alpha], axis=2)

    reach_px = max(upscaler.lr_reach_px(scale), Bicubic().lr_reach_px(scale))
    yield from bands(enlarge, photo.samples, reach_px, scale, on_tile=on_tile)
