"""A picture's perceptual hash: the same, but for a few bits, when it is resized or encoded again.

After pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010):
of the two-dimensional DCT-II of a small grey version of the picture only the lowest frequencies
count, and of each only whether it is above the median. Here they are 16x16 of a 64x64, the
constant one included. The first 64 of the 256 bits are those of the lowest 8x8, the other 192
follow, both row by row with the vertical frequency first; a byte's highest bit comes first.

It is computed in integers, from the rounded cosines on, so that no bit depends on the machine.
"""

import math

import numpy as np
import numpy.typing as npt

SIDE = 64
"""Of the small grey version, in pixels."""
MAX_DISTANCE = 16
"""Of the 256 bits, how many may differ in copies of one picture. Those of 500 photos, scaled by 0.5
to 0.9, some as JPEG of quality 60 to 95, differ by up to 12; 900 other pictures by at least 88."""
_FREQUENCIES, _LOWEST = 16, 8
_COSINES = np.array(
    [
        [round(2**14 * math.cos(math.pi * (x + 0.5) * frequency / SIDE)) for x in range(SIDE)]
        for frequency in range(_FREQUENCIES)
    ],
    np.float64,
)
_IS_LOWEST = np.zeros((_FREQUENCIES, _FREQUENCIES), np.bool_)
_IS_LOWEST[:_LOWEST, :_LOWEST] = True
_ORDER = np.argsort(~_IS_LOWEST.ravel(), kind="stable")
# Half of the coefficients lie closer together than this, in those of an orthonormal DCT: what
# rounding to 8 bits does to them (0.3) decides their bits. Photos have 20 at least.
_FLAT = 2 * (SIDE // 2) * 2**28
_BANDS = ((0, 22), (22, 43), (43, 64))


def perceptual_hash(grey: npt.NDArray[np.uint8]) -> bytes | None:
    """The 32 bytes of a small grey picture, uint8 [SIDE, SIDE]; None where it is all but flat."""
    # Integers below 2**53: exact in float64, in whatever order a BLAS adds.
    coefficients = (_COSINES @ grey.astype(np.float64) @ _COSINES.T).ravel()[_ORDER]
    quarter = len(coefficients) // 4
    ranked = np.sort(coefficients)
    if ranked[3 * quarter] - ranked[quarter] < _FLAT:
        return None
    return np.packbits(coefficients > ranked[2 * quarter - 1]).tobytes()


def bands(phash: bytes) -> list[int]:
    """Three numbers of which two pictures share one, unless more than two of 64 bits differ.

    Each is 21 or 22 of the first 64 bits, and which of the three it is.
    """
    lowest = int.from_bytes(phash[: _LOWEST * _LOWEST // 8], "big")
    return [
        index << 22 | lowest >> (64 - end) & (1 << (end - start)) - 1
        for index, (start, end) in enumerate(_BANDS)
    ]
