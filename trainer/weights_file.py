"""Weights files: an .npz of arrays by name (w1, b1, ...; kernels HWIO), written here or elsewhere.

Those written here also tell their ``network``, ``scales`` and ``zero_padding``; others are
recognised by their names and shapes. These are read from the headers first, and only what fits a
known network is unpacked.
"""

import io
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipelines.command.cli import UsageError
from trainer import files, npz
from trainer.models import NETWORKS, Network, Shape, recognise
from trainer.models.network import Weights

_NPY_MAGIC = b"\x93NUMPY"
_SHOWN = 6
_NETWORK, _SCALES, _ZERO_PADDING = "network", "scales", "zero_padding"
_MOST_BYTES = {_NETWORK: 4 * 64, _SCALES: 8 * 64, _ZERO_PADDING: 1}
MOST_SCALE = 1000
_KERNEL = re.compile(r"w\d+")


class WeightsFile(NamedTuple):
    """What a file holds."""

    network: Network
    weights: Weights
    """float32."""
    scales: tuple[int, ...]
    """Trained scales; none where the file does not tell."""
    sha256: str


def write_weights(network: Network, weights: Weights, scales: tuple[int, ...]) -> bytes:
    """The content of a file."""
    buffer = io.BytesIO()
    told = {_NETWORK: np.array(network.name), _SCALES: np.array(scales, np.int64)}
    if network.zero_padding:
        told[_ZERO_PADDING] = np.array(True)
    np.savez(buffer, **told, **weights)
    return buffer.getvalue()


def read_weights(path: str) -> WeightsFile:
    """Of the network that the file names, or that is recognised from the shapes.

    A layer w1 without its bias b1 gets one of zeros. Raises UsageError for anything else, with the
    name of the array that is wrong and what to do about it.
    """
    try:
        with files.opened(path) as file:
            if file.read(len(_NPY_MAGIC)) == _NPY_MAGIC:
                raise UsageError(
                    f"{path} is one array (.npy): put w1, b1, w2, b2, … into an .npz file"
                )
        with npz.opened(path) as arrays, np.errstate(over="ignore"):
            shapes = _shapes(path, arrays)
            name = str(arrays[_NETWORK]) if _NETWORK in arrays.headers else ""
            network, scales = _checked(path, shapes, name), _scales(arrays)
            if _ZERO_PADDING in arrays.headers and arrays[_ZERO_PADDING].any():
                network = network.with_zero_padding()
            named = {name: arrays[name].astype(np.float32) for name in shapes}
        sha256 = files.sha256(path)
    except (OSError, npz.NotArrays) as error:
        raise UsageError(f"{path} is not a weights file (.npz): {error}") from None
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: {name} holds numbers that are not finite: train it anew")
    weights = {
        name: named[name] if name in named else np.zeros(shape, np.float32)
        for name, shape in network.shapes.items()
    }
    return WeightsFile(network, weights, scales, sha256)


def _scales(arrays: npz.Arrays) -> tuple[int, ...]:
    """Raises NotArrays for what are none."""
    if _SCALES not in arrays.headers:
        return ()
    scales = arrays[_SCALES]
    if (
        scales.ndim != 1
        or scales.dtype.kind not in "iu"
        or not np.all((scales > 1) & (scales < MOST_SCALE))
    ):
        raise npz.NotArrays(f"{_SCALES} are {scales!r:.40}")
    return tuple(scales.tolist())


def _shapes(path: str, arrays: npz.Arrays) -> dict[str, Shape]:
    """Of each array of weights. Raises UsageError where one holds no numbers."""
    shapes = {}
    for name, header in arrays.headers.items():
        if name in _MOST_BYTES:
            if math.prod(header.shape) * header.dtype.itemsize > _MOST_BYTES[name]:
                raise npz.NotArrays(f"{name} is too large")
        elif header.dtype.kind not in "fiu":
            held = "pickled objects" if header.dtype.hasobject else str(header.dtype)
            raise UsageError(f"{path}: {name} holds {held}: save it as float32 numbers")
        else:
            shapes[name] = header.shape
    return shapes


def _checked(path: str, shapes: Mapping[str, Shape], name: str) -> Network:
    """The network, of that name if it is told, of exactly these weights. Raises UsageError."""
    if name and name not in NETWORKS:
        raise UsageError(f"{path} is of the network {name}, not of {', '.join(NETWORKS)}")

    def found(shapes: Mapping[str, Shape]) -> Network | None:
        return recognise(_with_biases(shapes), name)

    network = found(shapes)
    if network is not None:
        return network
    for extra in shapes:
        if found({other: shape for other, shape in shapes.items() if other != extra}):
            raise UsageError(f"{path}: {extra} is none of the network's arrays: leave it out")
    if found({name.lower(): shape for name, shape in shapes.items()}):
        wrong = next(name for name in shapes if name != name.lower())
        raise UsageError(f"{path}: {wrong} must be called {wrong.lower()}, and so on")
    if found({name: shape[2:] + shape[1::-1] for name, shape in shapes.items()}):
        wrong, shape = next((name, shape) for name, shape in shapes.items() if len(shape) == 4)
        raise UsageError(
            f"{path}: {wrong} {list(shape)} has output and input channels first, as PyTorch has "
            "them: transpose each kernel to height, width, in, out by w.transpose(2, 3, 1, 0)"
        )
    shown = ", ".join(f"{name} {list(shape)}" for name, shape in [*shapes.items()][:_SHOWN])
    more = f", … ({len(shapes)} arrays)" if len(shapes) > _SHOWN else ""
    raise UsageError(
        f"{path} holds the weights of no known network ({', '.join(NETWORKS)}): {shown}{more}"
    )


def _with_biases(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """One for each of w1, w2, ... that has none."""
    kernels = [name for name in shapes if _KERNEL.fullmatch(name)]
    return {f"b{name[1:]}": shapes[name][-1:] for name in kernels} | {**shapes}
