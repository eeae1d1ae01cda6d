"""SRCNN: three convolutions (Dong et al. 2015, arXiv:1501.00092)."""

from collections.abc import Iterator, Mapping
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
    pass_on,
)

KERNELS = {"9-1-5": (9, 1, 5), "9-3-5": (9, 3, 5), "9-5-5": (9, 5, 5)}
_FILTERS = (64, 32)
# With the identity start the other filters begin as detail: kernels that sum to zero (a picture's
# brightness would drown it), quiet in the output.
_OUTPUT_FACTOR = 0.1


@dataclass(frozen=True)
class Srcnn(Network):
    """Trained on valid convolutions; applied at full size, the border replicated at each layer."""

    name: ClassVar[str] = "srcnn"
    channels: int = 3
    kernels: str = "9-1-5"
    identity_start: bool = False
    zero_padding: bool = False

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Takes channels, kernels and identity_start."""
        if options.kernels not in KERNELS:
            raise ValueError(f"SRCNN has kernels {', '.join(KERNELS)}, not {options.kernels!r}")
        return cls(options.channels, options.kernels, options.identity_start)

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """Of one or three channels and any of KERNELS."""
        for channels in (1, 3):
            for kernels in KERNELS:
                yield cls(channels, kernels)

    @property
    def border_px(self) -> int:  # type: ignore[override]
        """6 for 9-1-5: half of what the kernels overlap."""
        return sum(size // 2 for size in KERNELS[self.kernels])

    @property
    def shapes(self) -> dict[str, Shape]:
        """w1 b1 w2 b2 w3 b3."""
        return conv_shapes(KERNELS[self.kernels], (self.channels, *_FILTERS, self.channels))

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """With identity_start such that the output is the input plus a little noise."""
        weights = super().initial_weights(rng, initial)
        if self.identity_start:
            weights["w1"] -= weights["w1"].mean(axis=(0, 1), keepdims=True)
            weights["w3"] *= _OUTPUT_FACTOR
            for name in ("w1", "w2", "w3"):
                pass_on(weights[name], self.channels)
        return weights

    def training_outputs(
        self, weights: Mapping[str, Tensor], images: Tensor, scale: int
    ) -> dict[int, Tensor]:
        """Valid convolutions: 188x188 of 200x200 for 9-1-5."""
        return {1: convolutions(weights, images, "VALID")}

    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """The same, the border of each layer's input replicated as in the authors' code."""
        return convolutions(weights, images, "SAME" if self.zero_padding else "REPLICATE")
