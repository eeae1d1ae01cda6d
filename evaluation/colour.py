"""Luma as MATLAB's rgb2ycbcr has it (ITU-R BT.601): Y is 16..235 of RGB 0..255.

Nothing here rounds, and float32 stays float32.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

_RGB_TO_Y = np.array([65.481, 128.553, 24.966]) / 255
_Y_OFFSET = 16.0
# Y spans 219 of 255 levels, and R, G and B all move by 255/219 of a change in Y.
_Y_TO_RGB = 255 / 219


def rgb_to_y(rgb: FloatArray) -> FloatArray:
    """RGB 0..255 [..., 3] to Y 16..235 [...]."""
    y: FloatArray = rgb @ _RGB_TO_Y.astype(rgb.dtype) + rgb.dtype.type(_Y_OFFSET)
    return y


def replace_y(rgb: FloatArray, y: FloatArray) -> FloatArray:
    """``rgb`` 0..255 [..., 3] with the luma ``y`` 16..235 [...] and its own colour differences."""
    change: FloatArray = (y - rgb_to_y(rgb)) * rgb.dtype.type(_Y_TO_RGB)
    return rgb + change[..., None]
