"""ESPCN: three convolutions at LR size, a pixel shuffle (Shi et al. 2016, arXiv:1609.05158)."""

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
    conv_shapes,
    convolution,
    he_initial,
    pass_on,
    pixel_shuffle,
    replicate_border,
)

_KERNELS, _FILTERS = (5, 3, 3), (64, 32)
_SCALES = (2, 3, 4, 8)
# tanh(x / 4) is x / 4 but for 0.5 % where x is in -1/2..1/2, as grey levels around their middle.
_GAIN = 0.25
# Edges are faint, and tanh of what is faint is a line: a network that cannot bend learns little.
_EDGE_GAIN = 10.0
_OUTPUT_FACTOR = 0.02


@dataclass(frozen=True)
class Espcn(Network):
    """The LR picture goes on with its outermost pixels; the convolutions are valid ones."""

    name: ClassVar[str] = "espcn"
    takes: ClassVar[Literal["upscaled", "lr"]] = "lr"
    channels: int = 1
    scale: int = 2
    identity_start: bool = False
    zero_padding: bool = False

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes channels, scale and identity_start."""
        return cls(options.channels, options.scale, options.identity_start)

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """Of one or three channels and any scale."""
        for channels in (1, 3):
            for scale in _SCALES:
                yield cls(channels, scale)

    @property
    def shapes(self) -> dict[str, Shape]:
        """w1 b1 w2 b2 w3 b3."""
        widths = (self.channels, *_FILTERS, self.channels * self.scale**2)
        return conv_shapes(_KERNELS, widths)

    @property
    def scales(self) -> tuple[int, ...]:
        """The one of the last layer's width."""
        return (self.scale,)

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """With identity_start such that the output is about bicubic plus a little noise."""
        weights = super().initial_weights(rng, initial)
        if self.identity_start:
            weights["w1"] -= weights["w1"].mean(axis=(0, 1), keepdims=True)
            weights["w1"] *= _EDGE_GAIN
            pass_on(weights["w1"], self.channels, _GAIN)
            weights["b1"][: self.channels] = -_GAIN / 2
            weights["b3"][:] = 0.5
            pass_on(weights["w2"], self.channels)
            weights["w3"] *= _OUTPUT_FACTOR
            weights["w3"][:, :, : self.channels] = 0.0
            for channel in range(self.channels):
                own = slice(channel * self.scale**2, (channel + 1) * self.scale**2)
                weights["w3"][:, :, channel, own] = self._enlarging() / _GAIN
        return weights

    def _enlarging(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        """Bicubic as far as 3x3 pixels reach, [3, 3, scale * scale], each sum 1."""
        centres = (np.arange(self.scale) + 0.5) / self.scale - 0.5
        taps = cubic(centres - np.arange(-1, 2)[:, None])
        taps /= taps.sum(axis=0)
        return np.einsum("ya,xb->yxab", taps, taps).reshape(3, 3, -1)

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """At full size; ``scale`` is that of the weights."""
        import tensorflow as tf

        maps = tf.cast(images, weights["w1"].dtype)
        padding = "SAME" if self.zero_padding else "VALID"
        if not self.zero_padding:
            maps = replicate_border(maps, self.reach_px)
        for number in (1, 2):
            kernel, bias = weights[f"w{number}"], weights[f"b{number}"]
            maps = tf.tanh(convolution(maps, kernel, bias, padding))
        return pixel_shuffle(convolution(maps, weights["w3"], weights["b3"], padding), scale)
