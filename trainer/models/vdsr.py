"""VDSR: twenty 3x3 convolutions that predict the residual (Kim et al. 2016, arXiv:1511.04587)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from trainer.models.network import (
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
    border_px: int = 0
    identity_start: bool = False

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes channels and identity_start."""
        return cls(options.channels, identity_start=options.identity_start)

    @classmethod
    def from_shapes(cls, shapes: list[Shape]) -> Self | None:
        """Of one or three channels."""
        networks = (cls(channels) for channels in (1, 3))
        return next((network for network in networks if network.shapes == shapes), None)

    @property
    def shapes(self) -> list[Shape]:
        """w1 b1 ... w20 b20."""
        widths = (self.channels, *[_FILTERS] * (_LAYERS - 1), self.channels)
        return conv_shapes([3] * _LAYERS, widths)

    def initial_weights(self, rng: np.random.Generator) -> Weights:
        """He's; with identity_start the last layer's kernel is zero, and the residual with it."""
        weights = he_initial(self.shapes, rng)
        if self.identity_start:
            weights[-2][:] = 0.0
        return weights

    def training_output(self, weights: Sequence[Tensor], images: Tensor) -> Tensor:
        """The same as at full size."""
        return self(weights, images)

    def __call__(self, weights: Sequence[Tensor], images: Tensor) -> Tensor:
        """The input plus the residual; no ReLU after the last layer, residuals have both signs.

        The sum is the input's precision: bfloat16's steps are as coarse as an 8-bit picture's.
        """
        import tensorflow as tf

        return images + tf.cast(convolutions(weights, images, "SAME"), images.dtype)
