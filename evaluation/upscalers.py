"""Anything that turns LR into SR: the protocol's bicubic, or a network on top of it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evaluation.metrics import UInt8Array
from evaluation.protocols import Sample
from pipelines.cli import UsageError
from pipelines.degradation import Degradation

if TYPE_CHECKING:
    from trainer.export import TrainedModel

BICUBIC = "bicubic"

_logger = logging.getLogger(__name__)


class Upscaler(Protocol):
    """What is scored."""

    @property
    def name(self) -> str:
        """As in the results' column ``model``."""

    @property
    def weights(self) -> str:
        """The sha256 of the weights, in hexadecimal; empty where there are none."""

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales it is meant for; none: all."""

    def __call__(self, samples: Sequence[Sample]) -> list[UInt8Array]:
        """The results for samples of one size, each of its reference's shape."""


@dataclass(frozen=True)
class Bicubic:
    """The baseline of the protocol."""

    name: str = BICUBIC
    weights: str = ""
    scales: tuple[int, ...] = ()

    def __call__(self, samples: Sequence[Sample]) -> list[UInt8Array]:
        """Bicubic interpolation, one sample after the other."""
        return [sample.bicubic() for sample in samples]


@dataclass(frozen=True)
class Network:
    """A trained network."""

    model: "TrainedModel"

    @property
    def name(self) -> str:
        """'srcnn' of runs/srcnn."""
        return self.model.name

    @property
    def weights(self) -> str:
        """The sha256 of the weights."""
        return self.model.weights_sha256

    @property
    def scales(self) -> tuple[int, ...]:
        """Those it was trained for."""
        return self.model.description.scales

    def __call__(self, samples: Sequence[Sample]) -> list[UInt8Array]:
        """Upscaled in one batch, float32."""
        channels = self.model.description.channels
        outputs = self.model(np.stack([sample.network_input(channels) for sample in samples]))
        return [
            sample.result(output, channels) for sample, output in zip(samples, outputs, strict=True)
        ]


def load_upscalers(names: Sequence[str]) -> list[Upscaler]:
    """'bicubic', run folders and .npz files. Raises UsageError for anything else.

    Bicubic comes first whether it is named or not: every gain is over it.
    """
    upscalers: list[Upscaler] = [Bicubic()]
    upscalers += [Network(load_network(name)) for name in names if name != BICUBIC]
    seen = set[str]()
    for upscaler in upscalers:
        if upscaler.name in seen:
            raise UsageError(f"two models are called {upscaler.name!r}: rename one of them")
        seen.add(upscaler.name)
    return upscalers


def load_network(path: str) -> "TrainedModel":
    """A run folder or weights file. Raises UsageError for what is neither."""
    # Without a GPU TensorFlow logs errors about registering CUDA plugins; what matters raises.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from trainer.export import load_model  # TensorFlow takes seconds to import

    model = load_model(path)
    # Traced and set up once, so that this is no picture's time.
    model(np.zeros((1, 32, 32, model.description.num_channels), np.float32))
    return model


def warn_of_degradation(upscalers: Sequence[Upscaler], degradation: Degradation) -> None:
    """Logs a warning for every network trained on LR made in another way."""
    for upscaler in upscalers:
        if not isinstance(upscaler, Network):
            continue
        trained = upscaler.model.description.degradation
        if trained not in (None, degradation):
            _logger.warning(
                "%s was trained on LR by %s and is scored on LR by %s: expect a loss",
                upscaler.name, trained, degradation,
            )  # fmt: skip
