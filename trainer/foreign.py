"""Arrays by name from files of other programs. Kernels come as height, width, in, out (HWIO).

Those of deconvolutions come as height, width, out, in. Nothing but arrays is unpickled, and a
package that only one kind of file needs is imported for that kind.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import UsageError

Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(path: str) -> Arrays:
    """Of a .pth (.pt, .bin), .safetensors, .mat or .h5 (.hdf5). Raises UsageError.

    Parts of a part are named 'state_dict.conv1.weight'; what Keras wrote kernel.1, bias.1, ...
    """
    read, package = _READERS.get(PurePath(path).suffix.lower(), (None, ""))
    if read is None:
        raise UsageError(f"{path}: only {', '.join(_READERS)} are read here")
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise UsageError(
            f"{path} is read with {package}, which is not installed: pip install "
            "'imagenet-superres[import]'"
        ) from None
    try:
        return read(path, module)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # each package has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is no file of tensors alone: {reason:.200}") from None


def _read_torch(path: str, torch: Any) -> Arrays:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {
        name: _channels_last(value.detach().float().numpy())
        for name, value in _flattened("", content)
        if isinstance(value, torch.Tensor)
    }


def _read_safetensors(path: str, safetensors: Any) -> Arrays:
    return {name: _channels_last(array) for name, array in safetensors.load_file(path).items()}


def _channels_last(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _read_mat(path: str, scipy: Any) -> Arrays:
    content = scipy.loadmat(path, simplify_cells=True)
    return {
        name: np.asarray(value)
        for name, value in _flattened("", content)
        if np.asarray(value).dtype.kind in "fiu"
    }


def _flattened(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of dicts, and of lists by number from 1; a list of names and values is a dict."""
    if isinstance(value, Mapping) or _is_cells(value):
        for key, part in _parts(value):
            yield from _flattened(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, value


def _is_cells(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
        return
    for number, part in enumerate(value, 1):
        if isinstance(part, Mapping) and {"name", "value"} <= part.keys():
            yield part["name"], part["value"]
        else:
            yield number, part


def _read_keras(path: str, h5py: Any) -> Arrays:
    arrays: Arrays = {}
    kernels = 0
    with h5py.File(path, "r") as file:
        for layer in _keras_layers(file, h5py):
            kernels += any(array.ndim == 4 for array in layer)
            for array in layer:
                if array.ndim == 4:
                    arrays[f"kernel.{kernels}"] = array
                else:
                    arrays[f"bias.{kernels}"] = array
    return arrays


def _keras_layers(file: Any, h5py: Any) -> Iterator[list[npt.NDArray[Any]]]:
    """The arrays of each layer, in the order of Keras 2; of Keras 3 by name and number."""
    if "layers" in file:
        for name in sorted(file["layers"], key=_number):
            layer = file["layers"][name]
            if "vars" in layer:
                yield [np.asarray(layer["vars"][part]) for part in sorted(layer["vars"])]
        return
    root = file.get("model_weights", file)
    for name in root.attrs["layer_names"]:
        layer = root[_text(name)]
        yield [np.asarray(layer[_text(part)]) for part in layer.attrs["weight_names"]]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _number(name: str) -> tuple[str, int]:
    """conv2d, conv2d_1, ..., conv2d_10"""
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert found is not None
    return found[1], int(found[2] or 0)


_TORCH = (_read_torch, "torch")
_KERAS = (_read_keras, "h5py")
_READERS: dict[str, tuple[Callable[[str, Any], Arrays], str]] = {
    ".pth": _TORCH,
    ".pt": _TORCH,
    ".bin": _TORCH,
    ".safetensors": (_read_safetensors, "safetensors.numpy"),
    ".mat": (_read_mat, "scipy.io"),
    ".h5": _KERAS,
    ".hdf5": _KERAS,
}
