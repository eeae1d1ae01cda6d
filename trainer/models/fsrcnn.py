"""FSRCNN: layers at LR size, then a deconvolution (Dong et al. 2016, arXiv:1608.00367)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from pipelines.pictures.resampling import cubic
from trainer.models.network import (
    Initial,
    Network,
    Options,
    Shape,
    Tensor,
    Weights,
    convolution,
    deconvolution,
    he_initial,
    pass_on,
    replicate_border,
)

_DECONVOLUTION = 9
_ONE_PX = ((0, 0), (1, 1), (1, 1), (0, 0))
_OUTPUT_FACTOR = 0.1


@dataclass(frozen=True)
class Fsrcnn(Network):
    """FSRCNN(56, 12, 4). Every convolution's input goes on with its outermost pixels.

    The weights fit any scale, which is the deconvolution's stride.
    """

    name: ClassVar[str] = "fsrcnn"
    takes: ClassVar[Literal["upscaled", "lr"]] = "lr"
    sizes: ClassVar[tuple[int, int, int]] = (56, 12, 4)
    """d maps of the picture, s shrunken ones, m layers between those."""
    channels: int = 1
    identity_start: bool = False
    scale: int = 2
    """At which the identity start enlarges."""
    channel_slopes: bool = False
    """A slope of PReLU for each map, in place of one a layer."""
    zero_padding: bool = False

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes channels, identity_start and scale."""
        return cls(options.channels, options.identity_start, options.scale)

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """Of one or three channels, with slopes a layer or a map."""
        for channels in (1, 3):
            for channel_slopes in (False, True):
                yield cls(channels, channel_slopes=channel_slopes)

    @property
    def shapes(self) -> dict[str, Shape]:
        """w1 b1 a1 ..., of the deconvolution no slope a."""
        maps, shrunken, layers = self.sizes
        kernels = (5, 1, *[3] * layers, 1, _DECONVOLUTION)
        widths = (self.channels, maps, *[shrunken] * (layers + 1), maps, self.channels)
        shapes: dict[str, Shape] = {}
        for number, (size, fan, out) in enumerate(
            zip(kernels, widths, widths[1:], strict=False), 1
        ):
            shapes |= {f"w{number}": (size, size, fan, out), f"b{number}": (out,)}
            if number < len(kernels):
                shapes[f"a{number}"] = (out if self.channel_slopes else 1,)
        return shapes

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """With identity_start such that the output is about bicubic plus a little noise."""
        weights = super().initial_weights(rng, initial)
        *inner, last = (weights[name] for name in self.shapes if name.startswith("w"))
        if self.identity_start:
            inner[0] -= inner[0].mean(axis=(0, 1), keepdims=True)
            last *= _OUTPUT_FACTOR
            for kernel in inner:
                pass_on(kernel, self.channels)
            last[..., : self.channels, :] = 0.0
            for channel in range(self.channels):
                last[..., channel, channel] = np.outer(*[self._enlarging()] * 2)
        return weights

    def _enlarging(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Bicubic as far as the deconvolution reaches, each pixel's weights summing to 1."""
        places = np.arange(_DECONVOLUTION)
        kernel = cubic((places - _cut_px(self.scale) + self.scale + 0.5) / self.scale - 0.5)
        for phase in range(self.scale):
            kernel[phase :: self.scale] /= kernel[phase :: self.scale].sum()
        return kernel

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """At full size."""
        import tensorflow as tf

        height, width = (tf.shape(images)[axis] * scale for axis in (1, 2))
        maps = tf.cast(images, weights["w1"].dtype)
        last = sum(name.startswith("w") for name in weights)
        for number in range(1, last):
            kernel, bias = weights[f"w{number}"], weights[f"b{number}"]
            maps = convolution(maps, kernel, bias, "SAME" if self.zero_padding else "REPLICATE")
            maps = tf.nn.relu(maps) - weights[f"a{number}"] * tf.nn.relu(-maps)
        maps = tf.pad(maps, _ONE_PX) if self.zero_padding else replicate_border(maps, 1)
        enlarged = deconvolution(maps, weights[f"w{last}"], scale)
        cut = scale + _DECONVOLUTION // 2 if self.zero_padding else _cut_px(scale)
        return enlarged[:, cut : cut + height, cut : cut + width] + weights[f"b{last}"]


@dataclass(frozen=True)
class FsrcnnS(Fsrcnn):
    """FSRCNN(32, 5, 1), the small one."""

    name: ClassVar[str] = "fsrcnn-s"
    sizes: ClassVar[tuple[int, int, int]] = (32, 5, 1)


def _cut_px(scale: int) -> int:
    """Of the deconvolution's rows and columns, at top and left, as the authors' weights want it."""
    return scale + (3 if scale == 3 else 4)
