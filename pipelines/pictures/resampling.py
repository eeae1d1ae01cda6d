"""The two bicubic interpolations of the field as matrices, numpy only.

A resize is ``rows @ image @ columns.T``: each matrix is ``[output size, input size]`` and its
rows sum to 1. Both use Keys' cubic kernel with a = -0.5, widened when downscaling (antialiased);
they differ at the borders. Pillow drops the taps outside and renormalizes
(src/libImaging/Resample.c), MATLAB's imresize mirrors them.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Matrix = Callable[[int, int], npt.NDArray[np.float64]]
_BAND_ROWS = 16


def cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5  # in this order, as Pillow rounds
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=64)
def pillow_bicubic_matrix(input_size: int, output_size: int) -> npt.NDArray[np.float64]:
    """The weights of ``Image.resize(..., Image.Resampling.BICUBIC)``, float64 [output, input].

    Pillow itself works in 22-bit integers and rounds between its two passes, so that a float
    product differs from it in some of the values; the data and the baseline use Pillow's way.
    """
    matrix = np.zeros((output_size, input_size))
    first, count, weights = _pillow_bicubic_weights(input_size, output_size, input_size)
    for row, (start, taps) in enumerate(zip(first, count, strict=True)):
        matrix[row, start : start + taps] = weights[row, :taps]
    matrix.flags.writeable = False
    return matrix


def _pillow_bicubic_weights(
    input_size: int, output_size: int, extent: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """What pillow_bicubic_taps gives, unrounded."""
    ratio = extent / output_size
    stretch = max(ratio, 1.0)
    support = 2.0 * stretch
    centre = (np.arange(output_size) + 0.5) * ratio
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int32), input_size) - first
    taps = np.arange(count.max())
    distance = first[:, None] + taps - centre[:, None] + 0.5
    weights = np.where(taps < count[:, None], cubic(distance * (1 / stretch)), 0.0)
    total = sum(weights.T, np.zeros(output_size))  # a row's in Pillow's order
    return first, count, weights / total[:, None]


Taps = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]


@lru_cache(maxsize=512)
def pillow_bicubic_taps(input_size: int, output_size: int, extent: float) -> Taps:
    """The weights as the integers that Pillow works in, 2**22 for 1.

    Of the input only the part before ``extent`` is resized. For each output pixel the first input
    pixel under it, how many there are [output], and their weights [output, most pixels], zero
    behind the last.
    """
    first, count, weights = _pillow_bicubic_weights(input_size, output_size, extent)
    return first, count, np.trunc(weights * (1 << 22) + np.copysign(0.5, weights)).astype(np.int32)


# Few: test pictures have many sizes, and a matrix of a 4K picture takes 59 MB.
@lru_cache(maxsize=8)
def matlab_bicubic_matrix(input_size: int, output_size: int) -> npt.NDArray[np.float64]:
    """The weights of MATLAB's ``imresize(..., 'bicubic')``, float64 [output, input].

    Antialiased when downscaling, as is MATLAB's default.
    """
    scale = output_size / input_size
    shrink = min(scale, 1.0)
    width = 4.0 / shrink
    centres = np.arange(1, output_size + 1) / scale + 0.5 * (1 - 1 / scale)
    taps = int(np.ceil(width)) + 2
    indices = np.floor(centres - width / 2)[:, None] + np.arange(taps)
    weights = shrink * cubic(shrink * (centres[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    mirror = np.concatenate([np.arange(input_size), np.arange(input_size)[::-1]])
    columns = mirror[np.mod(indices.astype(np.int64) - 1, 2 * input_size)]
    matrix = np.zeros((output_size, input_size))
    np.add.at(matrix, (np.arange(output_size)[:, None], columns), weights)
    matrix.flags.writeable = False
    return matrix


def resize(image: FloatArray, height: int, width: int, matrix: Matrix) -> FloatArray:
    """``image`` [H, W] or [H, W, C] resized by ``matrix``, unrounded, in the image's dtype."""
    tall = _product(matrix, height, image)
    return _product(matrix, width, tall.swapaxes(0, 1)).swapaxes(0, 1)


def enlarge(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """``image`` [H, W, C] by ``pillow_bicubic_matrix`` to ``scale`` times its sides, unrounded.

    A pixel is the same to the last bit wherever the picture is cut, if two pixels are left around
    it: its four neighbours a direction are summed in one order, which matrix products do not keep.
    """
    tall = _enlarge_rows(image, scale)
    return _enlarge_rows(tall.swapaxes(0, 1), scale).swapaxes(0, 1)


def _enlarge_rows(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    height = len(image)
    beside = [(2, 2), *[(0, 0)] * (image.ndim - 1)]
    padded = np.pad(image, beside)
    inside = np.pad(np.ones([height, *[1] * (image.ndim - 1)], np.float32), beside)
    result = np.empty([height, scale, *image.shape[1:]], np.float32)
    for phase in range(scale):
        centre = (phase + 0.5) / scale - 0.5
        first = int(np.floor(centre)) - 1
        weights = cubic(centre - np.arange(first, first + 4)).astype(np.float32)
        rows = [slice(start, start + height) for start in range(first + 2, first + 6)]
        total = sum(weight * inside[row] for weight, row in zip(weights, rows, strict=True))
        np.multiply(padded[rows[0]], weights[0] / total, out=result[:, phase])
        for weight, row in zip(weights[1:], rows[1:], strict=True):
            result[:, phase] += padded[row] * (weight / total)
    return result.reshape(height * scale, *image.shape[1:])


def _product(matrix: Matrix, size: int, image: FloatArray) -> FloatArray:
    """``matrix @ image`` over the first axis, to a size."""
    flat = image.reshape(image.shape[0], -1)
    result = np.empty((size, flat.shape[1]), image.dtype)
    for rows, used, weights in _bands(matrix, len(image), size):
        result[rows] = weights.astype(image.dtype, copy=False) @ flat[used]
    return result.reshape(-1, *image.shape[1:])


@lru_cache(maxsize=16)
def _bands(
    matrix: Matrix, input_size: int, output_size: int
) -> list[tuple[slice, slice, npt.NDArray[np.float64]]]:
    """A matrix without most of the zeros beside its diagonal: some rows, of which columns, and what
    stands there."""
    whole, bands = matrix(input_size, output_size), []
    for start in range(0, output_size, _BAND_ROWS):
        rows = slice(start, start + _BAND_ROWS)
        columns = np.flatnonzero(whole[rows].any(axis=0))
        used = slice(columns[0], columns[-1] + 1)
        bands.append((rows, used, whole[rows, used].copy()))
    return bands


def to_uint8(image: FloatArray) -> npt.NDArray[np.uint8]:
    """Rounded (half up, as MATLAB does) and clipped to 0..255."""
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
