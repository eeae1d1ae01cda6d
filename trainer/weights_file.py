"""Weights files: an .npz of w1, b1, w2, b2, ... (kernels HWIO), written here or elsewhere.

Names and shapes are read from the headers first, and only what fits a known network is unpacked.
"""

from collections.abc import Mapping

import numpy as np

from pipelines.command.cli import UsageError
from trainer import files, npz
from trainer.models import NETWORKS, Network, Shape, recognise
from trainer.models.network import Weights

_NPY_MAGIC = b"\x93NUMPY"
_SHOWN = 6


def read_weights(path: str) -> tuple[Network, Weights, str]:
    """The network recognised from the shapes, its weights as float32, and the file's sha256.

    A layer without a bias gets one of zeros. Raises UsageError for anything else, with the name of
    the array that is wrong and what to do about it.
    """
    try:
        with files.opened(path) as file:
            if file.read(len(_NPY_MAGIC)) == _NPY_MAGIC:
                raise UsageError(
                    f"{path} is one array (.npy): put w1, b1, w2, b2, … into an .npz file"
                )
        with npz.opened(path) as arrays, np.errstate(over="ignore"):
            shapes = _shapes(path, arrays)
            network = _checked(path, shapes)
            named = {name: arrays[name].astype(np.float32) for name in shapes}
        sha256 = files.sha256(path)
    except (OSError, npz.NotArrays) as error:
        raise UsageError(f"{path} is not a weights file (.npz): {error}") from None
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: {name} holds numbers that are not finite: train it anew")
    weights = [
        named[name] if name in named else np.zeros(shape, np.float32)
        for name, shape in _layers(shapes).items()
    ]
    return network, weights, sha256


def _shapes(path: str, arrays: npz.Arrays) -> dict[str, Shape]:
    """Of each array. Raises UsageError where one holds no numbers."""
    for name, header in arrays.headers.items():
        if header.dtype.kind not in "fiu":
            held = "pickled objects" if header.dtype.hasobject else str(header.dtype)
            raise UsageError(f"{path}: {name} holds {held}: save it as float32 numbers")
    return {name: header.shape for name, header in arrays.headers.items()}


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
