"""EDSR-baseline: sixteen residual blocks of 64 maps (Lim et al. 2017, arXiv:1707.02921)."""

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
    he_initial,
    pixel_shuffle,
)

_BLOCKS, _FILTERS = 16, 64
_MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K, in R, G and B."""
_FACTORS = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
_OUTPUT_FACTOR = 0.1


@dataclass(frozen=True)
class Edsr(Network):
    """On RGB less DIV2K's mean, zero padding, residual scaling 1."""

    name: ClassVar[str] = "edsr-baseline"
    takes: ClassVar[Literal["upscaled", "lr"]] = "lr"
    scale: int = 2
    channels: int = 3

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes scale. Raises ValueError for others than 2, 3, 4 and 8, and for Y."""
        if options.scale not in _FACTORS or options.channels != 3:
            raise ValueError("EDSR has scales 2, 3, 4 and 8, and channels rgb")
        return cls(options.scale)

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """One a scale."""
        yield from map(cls, _FACTORS)

    @property
    def shapes(self) -> dict[str, Shape]:
        """in_w in_b, of each block r1_1_w r1_1_b r1_2_w r1_2_b, trunk, up1 ..., out."""
        widths = {"in": (3, _FILTERS)}
        for block in range(1, _BLOCKS + 1):
            widths |= {f"r{block}_{part}": (_FILTERS, _FILTERS) for part in (1, 2)}
        widths["trunk"] = (_FILTERS, _FILTERS)
        for number, factor in enumerate(_FACTORS[self.scale], 1):
            widths[f"up{number}"] = (_FILTERS, _FILTERS * factor**2)
        widths["out"] = (_FILTERS, 3)
        shapes: dict[str, Shape] = {}
        for name, (fan, out) in widths.items():
            shapes |= {f"{name}_w": (3, 3, fan, out), f"{name}_b": (out,)}
        return shapes

    @property
    def scales(self) -> tuple[int, ...]:
        """The one of its enlarging layers."""
        return (self.scale,)

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """A tenth of ``initial`` in what each block adds."""
        weights = super().initial_weights(rng, initial)
        for block in range(1, _BLOCKS + 1):
            weights[f"r{block}_2_w"] *= _OUTPUT_FACTOR
        return weights

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """At full size; ``scale`` is that of the weights."""
        import tensorflow as tf

        def conv(maps: Tensor, name: str) -> Tensor:
            return convolution(maps, weights[f"{name}_w"], weights[f"{name}_b"])

        first = maps = conv(tf.cast(images - _MEAN, weights["in_w"].dtype), "in")
        for block in range(1, _BLOCKS + 1):
            maps += conv(tf.nn.relu(conv(maps, f"r{block}_1")), f"r{block}_2")
        maps = first + conv(maps, "trunk")
        for number, factor in enumerate(_FACTORS[scale], 1):
            maps = pixel_shuffle(conv(maps, f"up{number}"), factor)
        return tf.cast(conv(maps, "out"), images.dtype) + _MEAN
