"""VDSR: twenty 3x3 convolutions that predict the residual (Kim et al. 2016, arXiv:1511.04587)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from trainer.models.network import (
    Initial,
    Network,
    Options,
    Shape,
    Tensor,
    Weights,
    conv_shapes,
    convolutions,
    he_initial,
)

_LAYERS = 20
_FILTERS = 64


@dataclass(frozen=True)
class Vdsr(Network):
    """Zero padding throughout, so that the output has the input's size."""

    name: ClassVar[str] = "vdsr"
    stands_bfloat16: ClassVar[bool] = True
    channels: int = 3
    identity_start: bool = False

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes channels and identity_start."""
        return cls(options.channels, identity_start=options.identity_start)

    @property
    def shapes(self) -> dict[str, Shape]:
        """w1 b1 ... w20 b20."""
        widths = (self.channels, *[_FILTERS] * (_LAYERS - 1), self.channels)
        return conv_shapes([3] * _LAYERS, widths)

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """With identity_start the last layer's kernel is zero, and the residual with it."""
        weights = super().initial_weights(rng, initial)
        if self.identity_start:
            weights[f"w{_LAYERS}"][:] = 0.0
        return weights

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """The input plus the residual; no ReLU after the last layer, residuals have both signs.

        The sum is the input's precision: bfloat16's steps are as coarse as an 8-bit picture's.
        """
        import tensorflow as tf

        return images + tf.cast(convolutions(weights, images, "SAME"), images.dtype)
