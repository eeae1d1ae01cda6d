"""Luma as MATLAB's rgb2ycbcr has it (ITU-R BT.601): Y is 16..235 of RGB 0..255.

Nothing here rounds, and float32 stays float32.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.colour import RGB_TO_Y, Y_OFFSET, Y_TO_RGB

FloatArray = npt.NDArray[np.floating[Any]]


def rgb_to_y(rgb: FloatArray) -> FloatArray:
    """RGB 0..255 [..., 3] to Y 16..235 [...]."""
    y: FloatArray = rgb @ np.array(RGB_TO_Y, rgb.dtype) + rgb.dtype.type(Y_OFFSET)
    return y


def replace_y(rgb: FloatArray, y: FloatArray) -> FloatArray:
    """``rgb`` 0..255 [..., 3] with the luma ``y`` 16..235 [...] and its own colour differences."""
    change: FloatArray = (y - rgb_to_y(rgb)) * rgb.dtype.type(Y_TO_RGB)
    return rgb + change[..., None]


def y_to_grey(y: FloatArray) -> FloatArray:
    """Luma 16..235 to the grey 0..255 that has it."""
    grey: FloatArray = (y - y.dtype.type(Y_OFFSET)) * y.dtype.type(Y_TO_RGB)
    return grey
