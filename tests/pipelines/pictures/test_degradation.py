import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import skimage.data
from hypothesis import assume, given
from PIL import Image, ImageFilter

from pipelines.dataset.options import Degradation
from pipelines.pictures.degradation import degrade, lr_size


@pytest.fixture(scope="module")
def hr() -> np.ndarray:
    return skimage.data.chelsea()[40:240, 60:260]


@pytest.mark.parametrize("way", Degradation)
@pytest.mark.parametrize(("scale", "side"), [(2, 100), (3, 66), (4, 50)])
def test_sizes(hr: np.ndarray, way: Degradation, scale: int, side: int) -> None:
    lr = degrade(hr, [scale], way)[scale]
    assert (lr.dtype, lr.shape) == (np.uint8, (side, side, 3))
    assert lr_size(200, scale) == side


def test_blur_is_the_mean_of_a_ring_and_leaves_the_border(hr: np.ndarray) -> None:
    sharp = np.asarray(Image.fromarray(hr).resize((66, 66), Image.Resampling.NEAREST), np.float64)
    lr = degrade(hr, [3], Degradation.ARTICLE_NEAREST)[3]
    around = sharp[8:13, 18:23].sum(axis=(0, 1)) - sharp[9:12, 19:22].sum(axis=(0, 1))
    np.testing.assert_allclose(lr[10, 20], around / 16, atol=1)
    assert np.array_equal(lr[:2], sharp[:2])
    assert not np.array_equal(lr[2], sharp[2])


def test_bicubic_keeps_a_flat_picture_flat_and_is_not_blurred(hr: np.ndarray) -> None:
    flat = np.full((60, 60, 3), (10, 200, 77), np.uint8)
    assert (degrade(flat, [4], Degradation.BICUBIC)[4] == (10, 200, 77)).all()
    sharp = degrade(hr, [2], Degradation.BICUBIC)[2].astype(np.float64)
    blurred = degrade(hr, [2], Degradation.ARTICLE)[2].astype(np.float64)
    assert np.abs(np.diff(sharp, axis=1)).mean() > 1.3 * np.abs(np.diff(blurred, axis=1)).mean()


PIXELS = st.sampled_from([0, 1, 7, 8, 127, 128, 254, 255])


@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3)), elements=PIXELS
    ),
    st.integers(1, 5),
    st.sampled_from([Degradation.ARTICLE, Degradation.ARTICLE_NEAREST]),
)
def test_the_articles_ways_are_pillows_to_the_bit(
    pixels: np.ndarray, scale: int, way: Degradation
) -> None:
    hr = Image.fromarray(pixels)
    size = hr.width // scale, hr.height // scale
    assume(min(size) > 0)
    nearest = way is Degradation.ARTICLE_NEAREST
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    expected = np.asarray(hr.resize(size, method).filter(ImageFilter.BLUR))
    np.testing.assert_array_equal(degrade(pixels, [scale], way)[scale], expected)
