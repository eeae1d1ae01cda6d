from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.pictures.resampling import (
    Matrix,
    cubic,
    matlab_bicubic_matrix,
    pillow_bicubic_matrix,
    resize,
    to_uint8,
)

MATRICES = [pillow_bicubic_matrix, matlab_bicubic_matrix]


@pytest.mark.parametrize("matrix", MATRICES)
@given(st.integers(1, 60), st.integers(1, 60))
def test_rows_sum_to_one(matrix: Matrix, input_size: int, output_size: int) -> None:
    weights = matrix(input_size, output_size)
    assert weights.shape == (output_size, input_size)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


@pytest.mark.parametrize("matrix", MATRICES)
@given(st.integers(1, 60), st.integers(1, 60))
def test_a_mirrored_picture_gives_the_mirrored_result(
    matrix: Matrix, input_size: int, output_size: int
) -> None:
    weights = matrix(input_size, output_size)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-9)


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_same_size_changes_nothing(matrix: Matrix) -> None:
    np.testing.assert_allclose(matrix(7, 7), np.eye(7), atol=1e-12)


def test_kernel() -> None:
    # By hand, a = -0.5: 1 at 0, 0 at whole numbers, 9/16 and -1/16 half-way between them.
    at = np.array([0, 0.5, 1, 1.5, 2, 2.5, -0.5])
    np.testing.assert_allclose(cubic(at), [1, 9 / 16, 0, -1 / 16, 0, 0, 9 / 16], atol=1e-15)


def test_matlab_halving_by_hand() -> None:
    # The kernel is twice as wide and half as high: taps at distances 0.5, 1.5, 2.5, 3.5 weigh
    # cubic(d / 2) / 2 = 111/256, 29/256, -9/256, -3/256; outside, the picture is mirrored.
    near, second, third, far = 111 / 256, 29 / 256, -9 / 256, -3 / 256
    weights = matlab_bicubic_matrix(8, 4)
    inner = [third + far, second, near, near, second, third, far, 0]
    np.testing.assert_allclose(weights[1], inner, atol=1e-12)
    border = [near + second, near + third, second + far, third, far, 0, 0, 0]
    np.testing.assert_allclose(weights[0], border, atol=1e-12)


def test_pillow_drops_what_is_outside_and_renormalizes() -> None:
    near, second, third, far = 111, 29, -9, -3
    expected = np.array([near, near, second, third, far, 0, 0, 0]) / (
        2 * near + second + third + far
    )
    np.testing.assert_allclose(pillow_bicubic_matrix(8, 4)[0], expected, atol=1e-12)


def test_doubling_by_hand() -> None:
    # Between two pixels, at a quarter: cubic(1.25), cubic(0.25), cubic(0.75), cubic(1.75).
    expected = np.array([-9, 111, 29, -3]) / 128
    for matrix in MATRICES:
        np.testing.assert_allclose(matrix(6, 12)[5, 1:5], expected, atol=1e-12)


@pytest.mark.parametrize("size", [(50, 40), (33, 26), (300, 251)])
def test_pillow_itself_differs_by_its_rounding_alone(size: tuple[int, int]) -> None:
    photo = Image.fromarray(skimage.data.chelsea()).crop((50, 50, 150, 130))
    ours = to_uint8(resize(np.asarray(photo, np.float64), size[1], size[0], pillow_bicubic_matrix))
    theirs = np.asarray(photo.resize(size, Image.Resampling.BICUBIC))
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 2  # it rounds to 8 bits between its two passes
    assert np.mean(difference > 0) < 0.25


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_resize_keeps_channels_and_dtype(dtype: type[np.floating[np.typing.NBitBase]]) -> None:
    grey = np.random.default_rng(0).random((6, 8)).astype(dtype)
    colour = np.stack([grey, 2 * grey, grey[::-1]], axis=-1)
    result = resize(colour, 3, 4, matlab_bicubic_matrix)
    assert (result.shape, result.dtype) == ((3, 4, 3), dtype)
    np.testing.assert_allclose(result[..., 1], 2 * resize(grey, 3, 4, matlab_bicubic_matrix), 1e-5)
    np.testing.assert_allclose(result[..., 2], result[::-1, :, 0], 1e-4)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("size", [(300, 150), (300, 900), (300, 64), (300, 129), (5, 3)])
def test_resize_is_the_product_with_the_whole_matrices(
    matrix: Matrix, size: tuple[int, int]
) -> None:
    before, after = size
    image = np.random.default_rng(0).random((before, 7)) * 255
    expected = matrix(before, after) @ image @ matrix(7, 9).T
    np.testing.assert_allclose(resize(image, after, 9, matrix), expected, rtol=0, atol=1e-12)


def test_to_uint8_rounds_half_up_and_clips() -> None:
    values = np.array([-3.0, 0.49, 0.5, 1.5, 2.5, 254.5, 300.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 2, 3, 255, 255]


@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_set5_bicubic_is_the_published_one(shared_data: Path, scale: int, published: float) -> None:
    psnr = [
        luma_psnr(np.asarray(Image.open(path).convert("RGB"), np.float64), scale)
        for path in sorted((shared_data / "benchmarks" / "set5").iterdir())
    ]
    assert np.mean(psnr) == pytest.approx(published, abs=0.006)


def luma_psnr(rgb: np.ndarray, scale: int) -> float:
    """PSNR of a picture's Y from MATLAB's bicubic down and up, borders of ``scale`` px cut."""
    height, width = (side - side % scale for side in rgb.shape[:2])
    luma = 16 + rgb[:height, :width] @ np.array([65.481, 128.553, 24.966]) / 255
    hr = np.floor(luma + 0.5)
    lr = resize(hr, height // scale, width // scale, matlab_bicubic_matrix)
    sr = to_uint8(resize(lr, height, width, matlab_bicubic_matrix))
    error = (hr - sr)[scale:-scale, scale:-scale]
    return float(10 * np.log10(255**2 / np.mean(error**2)))
