"""Luma as MATLAB's rgb2ycbcr has it (ITU-R BT.601), of TensorFlow's tensors in 0..1.

evaluation.colour has the same of numpy's arrays in 0..255. It takes the numbers from here, without
TensorFlow, which takes seconds to import.
"""

from typing import Any

Tensor = Any

RGB_TO_Y = (65.481 / 255, 128.553 / 255, 24.966 / 255)
Y_OFFSET = 16
"""Y of black, of 255 levels."""
Y_TO_RGB = 255 / 219
"""Y spans 219 of 255 levels, and R, G and B all move by this much of a change in Y."""


def rgb_to_y(rgb: Tensor) -> Tensor:
    """float32 [..., 3] -> [..., 1], 16/255..235/255."""
    import tensorflow as tf

    parts = zip(tf.split(rgb, 3, axis=-1), RGB_TO_Y, strict=True)
    return tf.add_n([channel * factor for channel, factor in parts]) + Y_OFFSET / 255


def replace_y(rgb: Tensor, y: Tensor) -> Tensor:
    """``rgb`` [..., 3] with the luma ``y`` [..., 1] and its own colour differences."""
    return rgb + (y - rgb_to_y(rgb)) * Y_TO_RGB


def in_channels(rgb: Tensor, channels: str) -> Tensor:
    """As a network of these channels sees it: 'rgb', or 'y'."""
    return rgb if channels == "rgb" else rgb_to_y(rgb)
