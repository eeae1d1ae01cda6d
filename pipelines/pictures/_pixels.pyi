from typing import Any

import numpy.typing as npt

_Bytes = bytes | npt.NDArray[Any]
_Taps = tuple[_Bytes, _Bytes, _Bytes]

def resize(
    rgb: _Bytes, width: int, height: int, taps: tuple[tuple[_Taps, _Taps], ...]
) -> tuple[bytes, ...]: ...
def blur(rgb: _Bytes, width: int, height: int) -> bytes: ...
def grey(rgb: _Bytes, width: int, height: int, step_x: int, step_y: int) -> bytes: ...
