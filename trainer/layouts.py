"""Where other programs keep the arrays that our networks have: a table for each network.

A layout names, for each of our kernels and PReLU slopes, the array of the other program. Biases go
by the name of their kernel. What differs beside the names is converted: the order of a kernel's
axes, kernels as columns, pixels of 0..255.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.models import NETWORKS, Network, Shape
from trainer.models.network import Weights

Arrays = Mapping[str, npt.NDArray[Any]]
Names = dict[str, str]
_TORCH, _MATCONVNET = (r"weight$", "bias"), (r"_f$", "_b")
_CELLS, _STRUCT, _KERAS = ("weights_", "biases_"), (r"\.weight\.", ".bias."), ("kernel", "bias")
# Their kernels have outputs before inputs, as TensorFlow's, PyTorch's and MatConvNet's own.
_DECONVOLUTION = {"fsrcnn": r"w8", "fsrcnn-s": r"w5", "lapsrn": r"l\d_(up|img)_w"}
_DIV2K_RED = 0.4488


class Unfit(ValueError):
    """Arrays of the names that a layout has, but of other shapes."""


@dataclass(frozen=True)
class Layout:
    """How one program, or repository, writes a network down."""

    source: str
    """The repository or program that wrote such files first; many others follow it."""
    names: Callable[[Any], Names]
    """Of a network: kernels and slopes by our name."""
    bias: tuple[str, str] = _TORCH
    """What in a kernel's name gives way to what in its bias's."""
    zero_padding: bool = False
    """Of a network that has both: whether it pads with zeros."""
    columns: bool = False
    """Kernels are [in, height * width, out], column after column."""
    ignored: str = "(?!)"
    """A pattern of arrays that have no part in ours."""
    white: Callable[[Arrays], float] = lambda arrays: 1.0
    """Of the pictures that the network saw; ours is 1."""


class Found(NamedTuple):
    """What a file was found to hold."""

    network: Network
    weights: Weights
    layout: Layout


def convert(name: str, arrays: Arrays) -> Found | None:
    """The weights of the network NAME among ``arrays``, whose kernels are HWIO (HWOI, see above).

    A bias that is not there is zero. None where no layout has these names; raises Unfit.
    """
    unfit: Unfit | None = None
    for layout in LAYOUTS.get(name, ()):
        for network in NETWORKS[name].variants():
            try:
                if weights := _taken(layout, network, arrays):
                    own = network.with_zero_padding() if layout.zero_padding else network
                    return Found(own, weights, layout)
            except Unfit as error:
                unfit = unfit or error
    if unfit:
        raise unfit
    return None


def _taken(layout: Layout, network: Network, arrays: Arrays) -> Weights | None:
    kernels = layout.names(network)
    names = dict(kernels)
    for ours in network.shapes:
        kernel = re.sub(r"(^|_)b", r"\1w", ours)
        if ours not in names and kernel in kernels:
            names[ours] = re.sub(*layout.bias, kernels[kernel])
    for prefix in _prefixes(arrays, next(iter(kernels.values()))):
        theirs = {ours: prefix + name for ours, name in names.items()}
        if not all(theirs[ours] in arrays for ours in kernels):
            continue
        rest = {
            name for name, array in arrays.items() if name.startswith(prefix) and array.ndim > 1
        } - set(theirs.values())
        if all(re.search(layout.ignored, name) for name in rest):
            return _arranged(layout, network, arrays, theirs)
    return None


def _prefixes(arrays: Arrays, name: str) -> Iterator[str]:
    """What stands before this name, as 'state_dict.module.'; averaged weights come first."""
    found = [key.removesuffix(name) for key in arrays if f".{key}".endswith(f".{name}")]
    yield from sorted(found, key=lambda prefix: "ema" not in prefix)


def _arranged(layout: Layout, network: Network, arrays: Arrays, theirs: Names) -> Weights:
    white = layout.white(arrays)
    weights = {}
    for ours, shape in network.shapes.items():
        if theirs[ours] not in arrays:
            weights[ours] = np.zeros(shape, np.float32)
            continue
        array = arrays[theirs[ours]]
        is_deconvolution = bool(re.fullmatch(_DECONVOLUTION.get(network.name, "(?!)"), ours))
        try:
            weight = _axes(array, shape, layout.columns, is_deconvolution)
        except ValueError:
            weight = array
        if weight.shape != shape:
            raise Unfit(
                f"{theirs[ours]} {list(array.shape)} is not the {ours} {list(shape)} of "
                f"{network.name}"
            )
        is_bias = bool(re.search(r"(^|_)b", ours))
        weights[ours] = (weight / white if is_bias else weight).astype(np.float32)
    return weights


def _axes(
    array: npt.NDArray[Any], shape: Shape, columns: bool, is_deconvolution: bool
) -> npt.NDArray[Any]:
    """In the order of ours. Axes of length 1 may be left out, as in MATLAB. Raises ValueError."""
    if len(shape) < 4:
        return array.reshape(shape)
    height, width, *fans = shape
    first, last = reversed(fans) if is_deconvolution else fans
    if columns:
        array = array.reshape(first, width, height, last).transpose(2, 1, 0, 3)
    elif [side for side in array.shape if side > 1] == [
        side for side in (height, width, first, last) if side > 1
    ]:
        array = array.reshape(height, width, first, last)
    return array.swapaxes(2, 3) if is_deconvolution and array.ndim == 4 else array


def _numbered(*names: str) -> Callable[[Network], Names]:
    """Of w1, w2, ... in this order."""
    return lambda network: {f"w{number}": name for number, name in enumerate(names, 1)}


def _in_order(kernel: str, slope: str = "") -> Callable[[Network], Names]:
    """Of w1, a1, w2, ..., with their number in place of {}."""

    def names(network: Network) -> Names:
        forms = {"w": kernel, "a": slope}
        found = {ours: forms.get(ours[0], "").format(ours[1:]) for ours in network.shapes}
        return {ours: name for ours, name in found.items() if name}

    return names


def _fsrcnn(modules: Callable[[int], list[str]], last: str) -> Callable[[Any], Names]:
    """``modules``: the convolutions before the last of m between; PReLUs are numbered one more."""

    def names(network: Any) -> Names:
        found = {}
        convolutions = modules(network.sizes[2])
        for number, module in enumerate(convolutions, 1):
            parent, _, place = module.rpartition(".")
            found[f"w{number}"] = f"{module}.weight"
            found[f"a{number}"] = f"{parent}.{int(place) + 1}.weight"
        return found | {f"w{len(convolutions) + 1}": f"{last}.weight"}

    return names


def _lapsrn_matconvnet(network: Any) -> Names:
    """Their level 1 is the last."""
    names = {"in_w": "net.params.input_conv_f"}
    for level in range(1, network.levels + 1):
        theirs = f"net.params.level{network.levels + 1 - level}"
        for layer in range(1, network.layers + 1):
            names[f"l{level}_w{layer}"] = f"{theirs}_conv{layer}_f"
        for ours, part in (("up", "upconv"), ("res", "residual_conv"), ("img", "img_up")):
            names[f"l{level}_{ours}_w"] = f"{theirs}_{part}_f"
    return names


def _lapsrn_torch(network: Any) -> Names:
    names = {"in_w": "conv_input.weight"}
    for level in range(1, network.levels + 1):
        block = f"convt_F{level}.0.cov_block"
        for layer in range(network.layers):
            names[f"l{level}_w{layer + 1}"] = f"{block}.{2 * layer}.weight"
        names[f"l{level}_up_w"] = f"{block}.{2 * network.layers}.weight"
        names[f"l{level}_res_w"] = f"convt_R{level}.weight"
        names[f"l{level}_img_w"] = f"convt_I{level}.weight"
    return names


def _pan(network: Any) -> Names:
    parts = {
        "a1": "conv1_a",
        "a2": "k1.0",
        "b1": "conv1_b",
        "att": "PAConv.k2",
        "b2": "PAConv.k3",
        "b3": "PAConv.k4",
        "out": "conv3",
    }
    layers = {"in": "conv_first", "trunk": "trunk_conv", "out": "conv_last"}
    for ours in network.shapes:
        if block := re.match(r"k(\d+)_(\w+)_w", ours):
            layers[ours[:-2]] = f"SCPA_trunk.{int(block[1]) - 1}.{parts[block[2]]}"
    for number in range(1, network.enlargements + 1):
        layers[f"up{number}"] = f"upconv{number}"
        layers[f"att{number}"] = f"att{number}.conv"
        layers[f"hr{number}"] = f"HRconv{number}"
    return {f"{ours}_w": f"{theirs}.weight" for ours, theirs in layers.items()}


def _edsr(
    first: str, block: tuple[str, str], trunk: str, enlarging: str, last: str
) -> Callable[[Network], Names]:
    """``block``: its two convolutions, with its number in place of {}."""

    def names(network: Network) -> Names:
        layers = {"in": first, "trunk": trunk, "out": last}
        for ours in network.shapes:
            if found := re.match(r"r(\d+)_(\d)_w", ours):
                layers[ours[:-2]] = block[int(found[2]) - 1].format(int(found[1]) - 1)
            elif found := re.match(r"up(\d)_w", ours):
                layers[ours[:-2]] = f"{enlarging}.{2 * int(found[1]) - 2}"
        return {f"{ours}_w": f"{theirs}.weight" for ours, theirs in layers.items()}

    return names


def _edsr_white(arrays: Arrays) -> float:
    """By the mean that the file's first layer takes away; biases grow with the pixels' range."""
    means = [array for name, array in arrays.items() if name.endswith("sub_mean.bias")]
    return round(-float(means[0][0]) / _DIV2K_RED) if means else 255.0


_FSRCNN = (
    Layout(
        "yjn870/FSRCNN-pytorch",
        _fsrcnn(
            lambda m: ["first_part.0", *(f"mid_part.{2 * n}" for n in range(m + 2))], "last_part"
        ),
        zero_padding=True,
    ),
    Layout(
        "Lornatang/FSRCNN-PyTorch",
        _fsrcnn(
            lambda m: [
                *("feature_extraction.0", "shrink.0"),
                *(f"map.{2 * n}" for n in range(m)),
                "expand.0",
            ],
            "deconv",
        ),
        zero_padding=True,
    ),
    Layout(
        "its authors' FSRCNN.m", _in_order("weights_conv.{}", "prelu_conv.{}"), _CELLS, columns=True
    ),
)
LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "srcnn": (
        Layout(
            "yjn870/SRCNN-pytorch",
            _numbered("conv1.weight", "conv2.weight", "conv3.weight"),
            zero_padding=True,
        ),
        Layout(
            "Lornatang/SRCNN-PyTorch",
            _numbered("features.0.weight", "map.0.weight", "reconstruction.weight"),
            zero_padding=True,
        ),
        Layout("its authors' SRCNN.m", _in_order("weights_conv{}"), _CELLS, columns=True),
        Layout("Keras", _in_order("kernel.{}"), _KERAS, zero_padding=True),
    ),
    "vdsr": (
        Layout(
            "twtygqyy/pytorch-vdsr",
            _numbered(
                "input.weight",
                *(f"residual_layer.{n}.conv.weight" for n in range(18)),
                "output.weight",
            ),
        ),
        Layout(
            "Lornatang/VDSR-PyTorch",
            _numbered(
                "conv1.0.weight", *(f"trunk.{n}.conv.weight" for n in range(18)), "conv2.weight"
            ),
        ),
        Layout("its authors' VDSR_Official.mat", _in_order("model.weight.{}"), _STRUCT),
        Layout("Keras", _in_order("kernel.{}"), _KERAS),
    ),
    "fsrcnn": _FSRCNN,
    "fsrcnn-s": _FSRCNN,
    "espcn": (
        Layout(
            "yjn870/ESPCN-pytorch",
            _numbered("first_part.0.weight", "first_part.2.weight", "last_part.0.weight"),
            zero_padding=True,
        ),
        Layout(
            "Lornatang/ESPCN-PyTorch",
            _numbered("feature_maps.0.weight", "feature_maps.2.weight", "sub_pixel.0.weight"),
            zero_padding=True,
        ),
    ),
    "lapsrn": (
        Layout("phoenix104104/LapSRN", _lapsrn_matconvnet, _MATCONVNET),
        Layout("twtygqyy/pytorch-LapSRN", _lapsrn_torch),
    ),
    "pan": (Layout("zhaohengyuan1/PAN", _pan),),
    "edsr-baseline": (
        Layout(
            "sanghyun-son/EDSR-PyTorch",
            _edsr("head.0", ("body.{}.body.0", "body.{}.body.2"), "body.16", "tail.0", "tail.1"),
            ignored=r"(sub|add)_mean",
            white=_edsr_white,
        ),
        Layout(
            "XPixelGroup/BasicSR",
            _edsr(
                "conv_first",
                ("body.{}.conv1", "body.{}.conv2"),
                "conv_after_body",
                "upsample",
                "conv_last",
            ),
            white=_edsr_white,
        ),
    ),
}
