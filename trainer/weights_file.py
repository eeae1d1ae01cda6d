"""Weights files: an .npz of w1, b1, w2, b2, ... (kernels HWIO), written here or elsewhere.

Names and shapes are read from the headers first, and only what fits a known network is unpacked.
"""

import hashlib
import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.command.cli import UsageError
from trainer import files
from trainer.models import NETWORKS, Network, Shape, recognise
from trainer.models.network import Weights

_NPY_MAGIC = b"\x93NUMPY"
_READ_HEADER: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile, zlib and numpy raise for a damaged or an unusual archive.
_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RuntimeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_SHOWN = 6


def read_weights(path: str) -> tuple[Network, Weights, str]:
    """The network recognised from the shapes, its weights as float32, and the file's sha256.

    A layer without a bias gets one of zeros. Raises UsageError for anything else, with the name of
    the array that is wrong and what to do about it.
    """
    try:
        data = files.read(path)
        if data.startswith(_NPY_MAGIC):
            raise UsageError(f"{path} is one array (.npy): put w1, b1, w2, b2, … into an .npz file")
        shapes = _shapes(path, data)
        network = _checked(path, shapes)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays, np.errstate(over="ignore"):
            named = {name: arrays[name].astype(np.float32) for name in shapes}
    except _DAMAGE as error:
        raise UsageError(f"{path} is not a weights file (.npz): {error}") from None
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: {name} holds numbers that are not finite: train it anew")
    weights = [
        named[name] if name in named else np.zeros(shape, np.float32)
        for name, shape in _layers(shapes).items()
    ]
    return network, weights, hashlib.sha256(data).hexdigest()


def _shapes(path: str, data: bytes) -> dict[str, Shape]:
    """Of each array, from its header."""
    shapes = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            shapes[name], dtype = _header(archive, member)
            if dtype.kind not in "fiu":
                held = "pickled objects" if dtype.hasobject else str(dtype)
                raise UsageError(f"{path}: {name} holds {held}: save it as float32 numbers")
    return shapes


def _header(archive: zipfile.ZipFile, member: str) -> tuple[Shape, "np.dtype[Any]"]:
    with archive.open(member) as file:
        version: tuple[int, int] = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        if version not in _READ_HEADER:
            raise ValueError(f"{member} has the unknown version {version}")
        shape, _, dtype = _READ_HEADER[version](file)
        return shape, dtype


def _checked(path: str, shapes: Mapping[str, Shape]) -> Network:
    """The network that has exactly these weights. Raises UsageError."""
    network = _network(shapes)
    others = [name for name in shapes if name not in _layers(shapes)]
    if network is not None and not others:
        return network
    if network is not None:
        raise UsageError(f"{path}: {others[0]} is none of w1, b1, w2, b2, …: leave it out")
    if _network({name.lower(): shape for name, shape in shapes.items()}):
        raise UsageError(f"{path}: {others[0]} must be called {others[0].lower()}, and so on")
    if _network({name: shape[2:] + shape[1::-1] for name, shape in shapes.items()}):
        raise UsageError(
            f"{path}: w1 {list(shapes['w1'])} has output and input channels first, as PyTorch has "
            "them: transpose each kernel to height, width, in, out by w.transpose(2, 3, 1, 0)"
        )
    shown = ", ".join(f"{name} {list(shape)}" for name, shape in [*shapes.items()][:_SHOWN])
    more = f", … ({len(shapes)} arrays)" if len(shapes) > _SHOWN else ""
    raise UsageError(
        f"{path} holds the weights of no known network ({', '.join(NETWORKS)}): {shown}{more}"
    )


def _network(shapes: Mapping[str, Shape]) -> Network | None:
    return recognise([*_layers(shapes).values()])


def _layers(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """w1, b1, w2, ... as long as there are kernels, with a bias for each."""
    layers: dict[str, Shape] = {}
    while (kernel := f"w{len(layers) // 2 + 1}") in shapes:
        bias = f"b{kernel[1:]}"
        layers[kernel] = shapes[kernel]
        layers[bias] = shapes.get(bias, shapes[kernel][-1:])
    return layers
