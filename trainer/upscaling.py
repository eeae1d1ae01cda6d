"""How the network's input comes from a crop: a low resolution of it, or that enlarged again."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.pictures.degradation import lr_size
from pipelines.pictures.resampling import matlab_bicubic_matrix, pillow_bicubic_matrix
from trainer.colour import in_channels
from trainer.config import Config

Tensor = Any


class Upscaling(Protocol):
    """Where the network's input comes from: a low resolution of the HR, or that enlarged again.

    It can do so in some ways, which are numbered: those of the first scale, of the second, ...
    """

    ways_a_scale: int
    """The first of them is the one to validate on."""
    limits: tuple[int, ...]
    """For each way, how many of a crop's rows and columns it covers."""

    @staticmethod
    def overhang(seen: int) -> int:
        """How far patches of this size are drawn past a crop's edge, and moved back to it."""

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """The network's input and its target, float32 [H, W, C] in 0..1.

        The target has the crop's size, and so has an enlarged LR. ``hr`` is the crop in the
        network's channels.
        """


class StoredLr:
    """The dataset's LR pictures, as they are or enlarged by Pillow's bicubic.

    The matrices [scales, crop size, largest LR size] and the LR pictures are padded with zeros to
    one size, so that any scale goes through the same two products.
    """

    ways_a_scale = 1

    def __init__(self, crop_size: int, config: Config, *, enlarged: bool) -> None:
        scales = config.scales
        self.limits = (crop_size,) * len(scales)
        self._enlarged = enlarged
        self._channels = config.channels
        self._shape = (crop_size, crop_size, 3)
        self._size = max(lr_size(crop_size, scale) for scale in scales)
        self._matrices = np.zeros((len(scales), crop_size, self._size), np.float32)
        for matrix, scale in zip(self._matrices, scales, strict=True):
            size = lr_size(crop_size, scale)
            matrix[:, :size] = pillow_bicubic_matrix(size, crop_size)

    @staticmethod
    def overhang(seen: int) -> int:
        """All of a patch: each pixel of a crop is equally often in the part that the loss sees.

        BLUR leaves the border of the LR sharp, and a network that never saw one spoils it.
        """
        return seen - 1

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Clipped after each direction, horizontal first, as Pillow's 8-bit passes are."""
        lr = tf.io.decode_png(lr_pngs[way], channels=3)
        lr = tf.image.pad_to_bounding_box(lr, 0, 0, self._size, self._size)
        if not self._enlarged:
            lr = tf.ensure_shape(lr, [self._size, self._size, 3])
            return in_channels(tf.cast(lr, tf.float32) / 255.0, self._channels), hr
        matrix = tf.constant(self._matrices)[way]
        planes = tf.transpose(tf.cast(lr, tf.float32) / 255.0, [2, 0, 1])
        wide = _clip(tf.matmul(planes, matrix, transpose_b=True))
        rows = tf.reshape(tf.transpose(wide, [1, 2, 0]), [self._size, -1])
        upscaled = _clip(tf.matmul(matrix, rows))
        return in_channels(tf.reshape(upscaled, self._shape), self._channels), hr


class LumaLr:
    """The HR's Y in 8 bits, made small (and large again) by MATLAB's bicubic, as the papers do it.

    A crop is used up to a multiple of the scale; LR is not rounded. With ``scale_augment`` the crop
    may be shrunk to a HR of its own first. The way to the LR, or there and back, is one matrix,
    padded with zeros to one size for all ways; so is the shrinking.
    """

    def __init__(self, crop_size: int, config: Config, *, enlarged: bool) -> None:
        sizes = [int(crop_size * factor + 0.5) for factor in config.shrink_factors]
        self.ways_a_scale = len(sizes)
        self.limits = tuple(size // scale * scale for scale in config.scales for size in sizes)
        self._shrink = np.zeros((len(sizes), crop_size, crop_size), np.float32)
        for matrix, size in zip(self._shrink, sizes, strict=True):
            matrix[:size] = matlab_bicubic_matrix(crop_size, size)
        largest = crop_size if enlarged else crop_size // min(config.scales)
        self._degrade = np.zeros((len(self.limits), largest, crop_size), np.float32)
        scales = np.repeat(config.scales, len(sizes)).tolist()
        for matrix, size, scale in zip(self._degrade, self.limits, scales, strict=True):
            way = matlab_bicubic_matrix(size, size // scale)
            if enlarged:
                way = matlab_bicubic_matrix(size // scale, size) @ way
            matrix[: len(way), :size] = way

    @staticmethod
    def overhang(seen: int) -> int:
        """A little: a crop's edge is seldom a picture's."""
        return seen // 8

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Of Y, which ``hr`` is."""
        y = _rounded(hr[..., 0])
        if self.ways_a_scale > 1:
            y = _rounded(_both_sides(self._shrink, way % self.ways_a_scale, y))
        return _both_sides(self._degrade, way, y)[..., None], y[..., None]


def _both_sides(matrices: npt.NDArray[np.float32], index: Tensor, image: Tensor) -> Tensor:
    """``image`` [H, W] resized by one of the matrices."""
    matrix = tf.constant(matrices)[index]
    return tf.matmul(matrix, tf.matmul(image, matrix, transpose_b=True))


def _rounded(image: Tensor) -> Tensor:
    """To 8 bits, still in 0..1."""
    return _clip(tf.floor(image * 255.0 + 0.5) / 255.0)


def _clip(images: Tensor) -> Tensor:
    """To 0..1: in a tenth of tf.clip_by_value's time, which is not vectorized."""
    return tf.minimum(tf.maximum(images, 0.0), 1.0)


def upscaling_of(crop_size: int, config: Config, *, enlarged: bool) -> Upscaling:
    """What the recipe's ``lr`` asks for."""
    return (StoredLr if config.lr == "stored" else LumaLr)(crop_size, config, enlarged=enlarged)
