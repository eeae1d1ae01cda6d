"""How the network's input comes from a crop: a low resolution of it, or that enlarged again."""

from collections.abc import Callable
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


class _MadeLr:
    """Of LR made from a crop, which is used up to a multiple of the scale.

    With ``scale_augment`` the crop may be shrunk to a HR of its own first.
    """

    def __init__(self, crop_size: int, config: Config) -> None:
        self.sizes = [int(crop_size * factor + 0.5) for factor in config.shrink_factors]
        self.ways_a_scale = len(self.sizes)
        self.limits = tuple(size // scale * scale for scale in config.scales for size in self.sizes)
        self._shrink = np.zeros((len(self.sizes), crop_size, crop_size), np.float32)
        for matrix, size in zip(self._shrink, self.sizes, strict=True):
            matrix[:size] = matlab_bicubic_matrix(crop_size, size)
        self._scales = np.repeat(config.scales, len(self.sizes)).tolist()
        self._largest_lr = crop_size // min(config.scales)

    @staticmethod
    def overhang(seen: int) -> int:
        """A little: a crop's edge is seldom a picture's."""
        return seen // 8


class LumaLr(_MadeLr):
    """The HR's Y in 8 bits, made small (and large again) by MATLAB's bicubic, as the papers do it.

    LR is not rounded. The way to the LR, or there and back, is one matrix, padded with zeros to one
    size for all ways; so is the shrinking.
    """

    def __init__(self, crop_size: int, config: Config, *, enlarged: bool) -> None:
        super().__init__(crop_size, config)
        largest = crop_size if enlarged else self._largest_lr
        self._degrade = np.zeros((len(self.limits), largest, crop_size), np.float32)
        for matrix, size, scale in zip(self._degrade, self.limits, self._scales, strict=True):
            way = matlab_bicubic_matrix(size, size // scale)
            if enlarged:
                way = matlab_bicubic_matrix(size // scale, size) @ way
            matrix[: len(way), :size] = way

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Of Y, which ``hr`` is."""
        y = _rounded(hr[..., 0])
        if self.ways_a_scale > 1:
            y = _rounded(_both_sides(self._shrink, way % self.ways_a_scale, y))
        return _both_sides(self._degrade, way, y)[..., None], y[..., None]


class RgbLr(_MadeLr):
    """The HR in RGB, made small by MATLAB's bicubic of an 8-bit picture, as papers since 2017 do.

    Rounded after the rows and after the columns. Made large again it is not.
    """

    def __init__(self, crop_size: int, config: Config, *, enlarged: bool) -> None:
        super().__init__(crop_size, config)
        self._enlarged = enlarged
        self._small = np.zeros((len(self.limits), self._largest_lr, crop_size), np.float32)
        self._large = np.zeros((len(self.limits), crop_size, self._largest_lr), np.float32)
        ways = zip(self._small, self._large, self.limits, self._scales, strict=True)
        for small, large, size, scale in ways:
            small[: size // scale, :size] = matlab_bicubic_matrix(size, size // scale)
            large[:size, : size // scale] = matlab_bicubic_matrix(size // scale, size)

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Of RGB, which ``hr`` is."""
        if self.ways_a_scale > 1:
            hr = _resized(self._shrink, way % self.ways_a_scale, hr, _rounded)
        lr = _resized(self._small, way, hr, _rounded)
        if self._enlarged:
            lr = _resized(self._large, way, lr, tf.identity)
        return lr, hr


def _resized(
    matrices: npt.NDArray[np.float32],
    index: Tensor,
    image: Tensor,
    after: Callable[[Tensor], Tensor],
) -> Tensor:
    """``image`` [H, W, C] by one of the matrices, rows first; ``after`` comes after each."""
    matrix = tf.constant(matrices)[index]
    for _ in range(2):
        image = after(tf.transpose(tf.tensordot(matrix, image, [[1], [0]]), [1, 0, 2]))
    return image


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
    kinds: dict[str, Callable[..., Upscaling]] = {
        "stored": StoredLr,
        "luma": LumaLr,
        "rgb": RgbLr,
    }
    return kinds[config.lr](crop_size, config, enlarged=enlarged)
