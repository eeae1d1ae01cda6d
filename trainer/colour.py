"""Luma as MATLAB's rgb2ycbcr has it (ITU-R BT.601), in TensorFlow; pictures are in 0..1."""

from typing import Any

import tensorflow as tf

Tensor = Any

_RGB_TO_Y = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_Y_OFFSET = 16 / 255
# Y spans 219 of 255 levels, and all of R, G and B move by 255/219 of a change in Y.
_Y_TO_RGB = 255 / 219


def rgb_to_y(rgb: Tensor) -> Tensor:
    """float32 [..., 3] -> [..., 1], 16/255..235/255."""
    parts = zip(tf.split(rgb, 3, axis=-1), _RGB_TO_Y, strict=True)
    return tf.add_n([channel * factor for channel, factor in parts]) + _Y_OFFSET


def replace_y(rgb: Tensor, y: Tensor) -> Tensor:
    """``rgb`` [..., 3] with the luma ``y`` [..., 1] and its own colour differences."""
    return rgb + (y - rgb_to_y(rgb)) * _Y_TO_RGB
