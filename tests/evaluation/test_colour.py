import numpy as np
import pytest

from evaluation.colour import replace_y, rgb_to_y


@pytest.mark.parametrize(
    ("rgb", "y"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_that_of_rgb2ycbcr(rgb: tuple[int, int, int], y: float) -> None:
    assert rgb_to_y(np.array(rgb, np.float64)) == pytest.approx(y)


def test_replaced_luma_is_there_and_colour_differences_stay() -> None:
    rng = np.random.default_rng(0)
    rgb, y = rng.uniform(0, 255, (4, 5, 3)), rng.uniform(16, 235, (4, 5))
    result = replace_y(rgb, y)
    assert np.allclose(rgb_to_y(result), y)
    assert np.allclose(result[..., 0] - result[..., 2], rgb[..., 0] - rgb[..., 2])


def test_its_own_luma_changes_nothing() -> None:
    rgb = np.random.default_rng(0).uniform(0, 255, (4, 5, 3))
    assert np.allclose(replace_y(rgb, rgb_to_y(rgb)), rgb)


def test_float32_stays_float32() -> None:
    rgb = np.zeros((2, 2, 3), np.float32)
    assert rgb_to_y(rgb).dtype == replace_y(rgb, rgb_to_y(rgb)).dtype == np.float32
