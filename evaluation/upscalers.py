"""Anything that turns LR into SR: the protocol's bicubic, or a network on top of it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evaluation.metrics import UInt8Array
from evaluation.protocols import Float32Array, Sample
from pipelines.command.cli import UsageError
from pipelines.dataset.options import Degradation

if TYPE_CHECKING:
    from trainer.trained import TrainedModel

BICUBIC = "bicubic"
# 64 feature maps of a tile with its surroundings take 167 MB in float32; few are alive at once.
TILE_PX = 768

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
        """The results for samples of one size and scale, each of its reference's shape."""


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
        """Upscaled in one batch, float32, large pictures in tiles."""
        channels = self.model.description.channels
        inputs = np.stack([sample.network_input(channels) for sample in samples])
        network = partial(self.model, scale=samples[0].scale)
        outputs = in_tiles(network, inputs, self.model.reach_px)
        return [
            sample.result(output, channels) for sample, output in zip(samples, outputs, strict=True)
        ]


def in_tiles(
    network: Callable[[Float32Array], Float32Array],
    images: Float32Array,
    reach_px: int,
    tile_px: int = TILE_PX,
) -> Float32Array:
    """``network(images)``, [N, H, W, C], computed a tile after the other in bounded memory.

    Each tile is given ``reach_px`` pixels of its surroundings, as far as an output pixel of the
    network sees, so that only the picture's own borders are padded and no pixel changes.
    """
    height, width = images.shape[1:3]
    if max(height, width) <= tile_px:
        return network(images)
    outputs = np.empty_like(images)
    for y in range(0, height, tile_px):
        for x in range(0, width, tile_px):
            top, left = max(y - reach_px, 0), max(x - reach_px, 0)
            bottom, right = y + tile_px + reach_px, x + tile_px + reach_px
            output = network(images[:, top:bottom, left:right])
            tile = outputs[:, y : y + tile_px, x : x + tile_px]
            tile[...] = output[:, y - top :, x - left :][:, : tile.shape[1], : tile.shape[2]]
    return outputs


def load_upscalers(names: Sequence[str]) -> list[Upscaler]:
    """'bicubic', run folders, .npz files and shipped models. Raises UsageError for anything else.

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
    """A run folder, weights file or shipped model. Raises UsageError for what is neither."""
    from trainer.trained import load_model  # TensorFlow takes seconds to import

    model = load_model(path)
    # Traced and set up once, so that this is no picture's time.
    for scale in model.weights:
        model(np.zeros((1, 32, 32, model.description.num_channels), np.float32), scale)
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
