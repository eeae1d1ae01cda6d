import math

import numpy as np
import pytest
import skimage.data

from evaluation.metrics import psnr_db, shave, ssim


def test_psnr_of_a_known_error() -> None:
    reference = np.full((16, 16, 3), 100, np.uint8)
    assert psnr_db(reference, reference + 5) == pytest.approx(20 * math.log10(255 / 5))


def test_psnr_does_not_wrap_around_in_8_bits() -> None:
    reference = np.zeros((16, 16), np.uint8)
    assert psnr_db(reference, reference + 255) == pytest.approx(0)
    assert psnr_db(reference + 255, reference) == pytest.approx(0)


def test_psnr_of_equal_images_is_infinite() -> None:
    image = skimage.data.camera()[:32, :32]
    assert psnr_db(image, image.copy()) == math.inf


def test_ssim_of_equal_images_is_one() -> None:
    image = skimage.data.astronaut()[:32, :32]
    assert ssim(image, image.copy()) == pytest.approx(1)


def test_ssim_of_colour_is_the_mean_of_the_channels() -> None:
    image = skimage.data.astronaut()[:48, :48]
    other = np.roll(image, 1, axis=0)
    channels = [ssim(image[..., c], other[..., c]) for c in range(3)]
    assert ssim(image, other) == pytest.approx(np.mean(channels))


def test_shave_takes_the_same_of_each_side() -> None:
    image = np.arange(7 * 9).reshape(7, 9)
    assert np.array_equal(shave(image, 2), image[2:5, 2:7])
    assert shave(image, 0).shape == image.shape
