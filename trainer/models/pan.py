"""PAN: pixel attention in 261,000 weights (Zhao et al. 2020, arXiv:2010.01073)."""

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
)

_BLOCKS, _FILTERS, _HALF, _UP_FILTERS = 16, 40, 20, 24
_SLOPE = 0.2
_OUTPUT_FACTOR = 0.1


@dataclass(frozen=True)
class Pan(Network):
    """On RGB, zero padding; adds to the bilinear picture. One enlargement (x2, x3) or two (x4)."""

    name: ClassVar[str] = "pan"
    takes: ClassVar[Literal["upscaled", "lr"]] = "lr"
    enlargements: int = 1
    channels: int = 3

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes scale. Raises ValueError for others than 2, 3 and 4, and for Y."""
        if options.scale not in (2, 3, 4) or options.channels != 3:
            raise ValueError("PAN has scales 2, 3 and 4, and channels rgb")
        return cls(2 if options.scale == 4 else 1)

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """Of one enlargement and of two."""
        yield from map(cls, (1, 2))

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of in, the blocks k1 ... k16, trunk, the enlargements up1 att1 hr1 ..., out."""
        shapes = _layer("in", 3, 3, _FILTERS)
        for number in range(1, _BLOCKS + 1):
            block = f"k{number}_"
            shapes[f"{block}a1_w"] = (1, 1, _FILTERS, _HALF)
            shapes[f"{block}a2_w"] = (3, 3, _HALF, _HALF)
            shapes[f"{block}b1_w"] = (1, 1, _FILTERS, _HALF)
            shapes |= _layer(f"{block}att", 1, _HALF, _HALF)
            shapes[f"{block}b2_w"] = (3, 3, _HALF, _HALF)
            shapes[f"{block}b3_w"] = (3, 3, _HALF, _HALF)
            shapes[f"{block}out_w"] = (1, 1, _FILTERS, _FILTERS)
        shapes |= _layer("trunk", 3, _FILTERS, _FILTERS)
        fan = _FILTERS
        for number in range(1, self.enlargements + 1):
            shapes |= _layer(f"up{number}", 3, fan, _UP_FILTERS)
            shapes |= _layer(f"att{number}", 1, _UP_FILTERS, _UP_FILTERS)
            shapes |= _layer(f"hr{number}", 3, _UP_FILTERS, _UP_FILTERS)
            fan = _UP_FILTERS
        return shapes | _layer("out", 3, _UP_FILTERS, 3)

    @property
    def scales(self) -> tuple[int, ...]:
        """Two for the same shapes: the enlargement itself has no weights."""
        return (2, 3) if self.enlargements == 1 else (4,)

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """A tenth of ``initial`` in what blocks and network add to their input."""
        weights = super().initial_weights(rng, initial)
        for name in weights:
            if name.endswith("out_w"):
                weights[name] *= _OUTPUT_FACTOR
        return weights

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """At full size."""
        import tensorflow as tf

        def conv(maps: Tensor, name: str) -> Tensor:
            return convolution(maps, weights[f"{name}_w"], weights.get(f"{name}_b"))

        def leaky(maps: Tensor, name: str) -> Tensor:
            return tf.nn.leaky_relu(conv(maps, name), _SLOPE)

        first = maps = conv(tf.cast(images, weights["in_w"].dtype), "in")
        for number in range(1, _BLOCKS + 1):
            block = f"k{number}_"
            a = leaky(leaky(maps, f"{block}a1"), f"{block}a2")
            b = leaky(maps, f"{block}b1")
            b = conv(b, f"{block}b2") * tf.sigmoid(conv(b, f"{block}att"))
            b = leaky(b, f"{block}b3")
            maps += conv(tf.concat([a, b], axis=3), f"{block}out")
        maps = first + conv(maps, "trunk")
        factor = scale if self.enlargements == 1 else 2
        for number in range(1, self.enlargements + 1):
            maps = conv(_enlarged(maps, factor, "nearest"), f"up{number}")
            maps = tf.nn.leaky_relu(maps * tf.sigmoid(conv(maps, f"att{number}")), _SLOPE)
            maps = leaky(maps, f"hr{number}")
        residual = tf.cast(conv(maps, "out"), images.dtype)
        return residual + _enlarged(images, scale, "bilinear")


def _layer(name: str, size: int, fan: int, out: int) -> dict[str, Shape]:
    return {f"{name}_w": (size, size, fan, out), f"{name}_b": (out,)}


def _enlarged(images: Tensor, factor: int, method: str) -> Tensor:
    import tensorflow as tf

    height, width = (tf.shape(images)[axis] * factor for axis in (1, 2))
    return tf.cast(tf.image.resize(images, [height, width], method), images.dtype)
