import itertools

import numpy as np
import pytest

from evaluation.tiles import TILE_PX, bands, in_tiles


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (101, 64, 1), np.uint8)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_bands_put_together_are_the_picture(image, scale):
    def enlarge(tile):
        return tile.repeat(scale, axis=-3).repeat(scale, axis=-2)

    parts = [*bands(enlarge, image, 5, scale, tile_px=40)]
    assert [len(part) for part in parts] == [40 * scale, 40 * scale, 21 * scale]
    assert np.array_equal(np.concatenate(parts), enlarge(image))
    assert np.array_equal(in_tiles(enlarge, image[None], 5, scale, tile_px=40)[0], enlarge(image))


def test_no_tile_is_larger_than_it_may_be(image):
    seen = []

    def network(tile):
        seen.append(tile.shape[:2])
        return tile

    assert np.array_equal(np.concatenate([*bands(network, image, 5, tile_px=40)]), image)
    assert len(seen) == 3 * 2
    assert max(max(size) for size in seen) == 50


@pytest.mark.parametrize(
    ("reach_px", "scale"), [*itertools.product([0, 2, 20, 60], [1, 2, 3, 4, 8, 40, 100])]
)
def test_a_tile_is_as_large_as_memory_allows(reach_px, scale):
    row = np.zeros((1, 1000, 1), np.uint8)
    widest = 0

    def enlarge(tile):
        nonlocal widest
        widest = max(widest, tile.shape[1])
        return np.broadcast_to(np.uint8(0), (tile.shape[0] * scale, tile.shape[1] * scale, 1))

    next(bands(enlarge, row, reach_px, scale))
    surroundings = 2 * reach_px * scale
    assert widest * scale <= max(TILE_PX, TILE_PX // 4 + surroundings)
