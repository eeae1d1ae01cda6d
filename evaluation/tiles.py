"""Pictures computed a tile after the other, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Sides of a result with what surrounds it: 64 feature maps of so many pixels take 107 MB in
# float32, and few are alive at once.
TILE_PX = 648
# A network that sees far computes its tiles' surroundings more often than the tiles.
_LEAST_SHARE = 4


def bands(
    enlarge: Callable[[Array], Array],
    image: Array,
    reach_px: int,
    scale: int = 1,
    tile_px: int | None = None,
    on_tile: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Array]:
    """``enlarge(image)``, from [..., H, W, C] to [..., scale H, scale W, C], as bands of rows.

    Each tile of ``tile_px`` input pixels a side is given ``reach_px`` pixels of its surroundings,
    as far as a pixel of the result sees, so that only the picture's own borders count as such and
    no pixel changes. Without ``tile_px`` a result with its surroundings has about TILE_PX a side.
    ``on_tile`` is told of each how many pixels there are now more.
    """
    tile_px = tile_px or _tile_px(reach_px, scale)
    height, width = image.shape[-3:-1]
    for y in range(0, height, tile_px):
        top = max(y - reach_px, 0)
        rows = slice((y - top) * scale, (min(y + tile_px, height) - top) * scale)
        band = []
        for x in range(0, width, tile_px):
            left = max(x - reach_px, 0)
            columns = slice((x - left) * scale, (min(x + tile_px, width) - left) * scale)
            bottom, right = y + tile_px + reach_px, x + tile_px + reach_px
            tile = enlarge(image[..., top:bottom, left:right, :])
            band.append(tile[..., rows, columns, :])
            on_tile((rows.stop - rows.start) * (columns.stop - columns.start))
        yield np.concatenate(band, axis=-2)


def in_tiles(
    enlarge: Callable[[Array], Array],
    images: Array,
    reach_px: int,
    scale: int = 1,
    tile_px: int | None = None,
) -> Array:
    """``enlarge(images)``, [N, H, W, C], put together from ``bands``."""
    count, height, width, channels = images.shape
    outputs = np.empty((count, height * scale, width * scale, channels), images.dtype)
    y = 0
    for band in bands(enlarge, images, reach_px, scale, tile_px):
        outputs[:, y : y + band.shape[1]] = band
        y += band.shape[1]
    return outputs


def _tile_px(reach_px: int, scale: int) -> int:
    return max(TILE_PX // scale - 2 * reach_px, TILE_PX // scale // _LEAST_SHARE, 1)
