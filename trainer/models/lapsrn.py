"""LapSRN: a picture twice as large at each level (Lai et al. 2017, arXiv:1704.03915)."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

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
)

_FILTERS = 64
_SLOPE = 0.2
_LAYERS = {2: (1, 10), 4: (2, 10), 8: (3, 5)}
"""Levels, and the layers of each, by scale."""
_OUTPUT_FACTOR = 0.1
_BILINEAR = (0.25, 0.75, 0.75, 0.25)


@dataclass(frozen=True)
class Lapsrn(Network):
    """On Y, zero padding. The levels below the last are its smaller scales."""

    name: ClassVar[str] = "lapsrn"
    takes: ClassVar[Literal["upscaled", "lr"]] = "lr"
    levels: int = 1
    layers: int = 10
    up_size: int = 3
    """Of the kernel that enlarges the maps: 4 in the paper, 3 in its authors' weights."""
    channels: int = 1

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes scale. Raises ValueError for scales that are no power of two, and for RGB."""
        if options.scale not in _LAYERS or options.channels != 1:
            raise ValueError("LapSRN has scales 2, 4 and 8, and channels y")
        return cls(*_LAYERS[options.scale])

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """Of one to three levels, of ten layers each or of five, enlarged by 3x3 or 4x4."""
        yield from itertools.starmap(cls, itertools.product((1, 2, 3), (10, 5), (3, 4)))

    @property
    def shapes(self) -> dict[str, Shape]:
        """in_w in_b, of each level l1_w1 l1_b1 ... l1_up_w l1_up_b l1_res_w l1_res_b l1_img_w."""
        inner = (3, 3, _FILTERS, _FILTERS)
        shapes: dict[str, Shape] = {"in_w": (3, 3, 1, _FILTERS), "in_b": (_FILTERS,)}
        for level in range(1, self.levels + 1):
            for layer in range(1, self.layers + 1):
                shapes |= {f"l{level}_w{layer}": inner, f"l{level}_b{layer}": (_FILTERS,)}
            shapes[f"l{level}_up_w"] = (self.up_size, self.up_size, _FILTERS, _FILTERS)
            shapes[f"l{level}_up_b"] = (_FILTERS,)
            shapes |= {f"l{level}_res_w": (3, 3, _FILTERS, 1), f"l{level}_res_b": (1,)}
            shapes[f"l{level}_img_w"] = (4, 4, 1, 1)
        return shapes

    @property
    def scales(self) -> tuple[int, ...]:
        """One a level."""
        return tuple(2**level for level in range(1, self.levels + 1))

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """The picture's enlargement starts as bilinear, with little beside it."""
        weights = super().initial_weights(rng, initial)
        for level in range(1, self.levels + 1):
            weights[f"l{level}_img_w"][..., 0, 0] = np.outer(_BILINEAR, _BILINEAR)
            weights[f"l{level}_res_w"] *= _OUTPUT_FACTOR
        return weights

    def training_outputs(
        self, weights: Mapping[str, Tensor], images: Tensor, scale: int
    ) -> dict[int, Tensor]:
        """Of each level."""
        levels = self._levels(weights, images, scale)
        return {scale // 2**level: image for level, image in enumerate(levels, 1)}

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """By as many levels as the scale needs."""
        return self._levels(weights, images, scale)[-1]

    def _levels(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> list[Tensor]:
        """The picture after each, twice as large as before."""
        import tensorflow as tf

        def layer(maps: Tensor, name: str) -> Tensor:
            bias = name.replace("_w", "_b")
            maps = convolution(maps, weights[name], weights[bias])
            return tf.nn.leaky_relu(maps, _SLOPE)

        found = []
        maps = layer(tf.cast(images, weights["in_w"].dtype), "in_w")
        for level in range(1, self.scales.index(scale) + 2):
            for number in range(1, self.layers + 1):
                maps = layer(maps, f"l{level}_w{number}")
            cut = self.up_size - 3
            enlarged = deconvolution(maps, weights[f"l{level}_up_w"], 2)[:, cut:-1, cut:-1]
            maps = tf.nn.leaky_relu(enlarged + weights[f"l{level}_up_b"], _SLOPE)
            residual = convolution(maps, weights[f"l{level}_res_w"], weights[f"l{level}_res_b"])
            kernel = tf.cast(weights[f"l{level}_img_w"], images.dtype)
            images = deconvolution(images, kernel, 2)[:, 1:-1, 1:-1]
            images += tf.cast(residual, images.dtype)
            found.append(images)
        return found
