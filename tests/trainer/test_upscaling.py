import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.pictures.degradation import degrade
from pipelines.pictures.resampling import matlab_bicubic_matrix, resize
from trainer.config import Config
from trainer.upscaling import LumaLr, StoredLr


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("index", range(3))
def test_stored_lr_is_enlarged_by_pillows_bicubic(index, crops):
    hr = np.asarray(crops(1, 47)[0])
    lr = list(degrade(hr, [2, 3, 4], "article").values())
    upscaling = StoredLr(47, Config(), enlarged=True)
    upscaled, target = upscaling(hr / 255, tf.constant([*map(png, lr)]), tf.constant(index))
    pillow = Image.fromarray(lr[index]).resize((47, 47), Image.Resampling.BICUBIC)
    assert np.abs(np.floor(upscaled * 255 + 0.5) - np.asarray(pillow)).max() <= 1
    np.testing.assert_array_equal(target, hr / 255)


def test_luma_as_the_papers_make_it(crops):
    """Y of the HR in 8 bits, cut to a multiple of the scale, small and large again unrounded."""
    rgb = np.asarray(crops(1, 40)[0], np.float64)
    y = rgb @ [65.481, 128.553, 24.966] / 255 + 16
    upscaling = LumaLr(40, Config(channels="y", lr="luma", scales=(3,)), enlarged=True)
    assert upscaling.limits == (39,)
    upscaled, target = upscaling(tf.constant(y[..., None] / 255, tf.float32), None, 0)
    np.testing.assert_allclose(target[..., 0], np.round(y) / 255, atol=1e-6)
    lr = resize(np.round(y[:39, :39]), 13, 13, matlab_bicubic_matrix)
    expected = resize(lr, 39, 39, matlab_bicubic_matrix) / 255
    np.testing.assert_allclose(upscaled[:39, :39, 0], expected, atol=1e-5)


def test_a_shrunk_hr_has_a_protocol_of_its_own(crops):
    y = np.asarray(crops(1, 40)[0], np.float64)[..., 0]
    config = Config(channels="y", lr="luma", scales=(2,), scale_augment=True)
    upscaling = LumaLr(40, config, enlarged=True)
    for way, size in enumerate((40, 36, 32, 28, 24)):
        upscaled, target = upscaling(tf.constant(y[..., None] / 255, tf.float32), None, way)
        hr = np.clip(np.floor(resize(y, size, size, matlab_bicubic_matrix) + 0.5), 0, 255)
        assert np.abs(target[:size, :size, 0] * 255 - hr).max() <= 1.001
        lr = resize(target.numpy()[:size, :size, 0], size // 2, size // 2, matlab_bicubic_matrix)
        expected = resize(lr, size, size, matlab_bicubic_matrix)
        np.testing.assert_allclose(upscaled[:size, :size, 0], expected, atol=1e-5)
