"""Anything that turns LR into SR: the protocol's bicubic, or a network on top of it."""

import logging
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.colour import replace_y, rgb_to_y, y_to_grey
from evaluation.metrics import ImageArray
from evaluation.protocols import Float32Array, Sample
from evaluation.tiles import in_tiles
from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.options import Degradation
from pipelines.pictures.resampling import enlarge
from trainer import files

if TYPE_CHECKING:
    from trainer.trained import TrainedModel

BICUBIC = "bicubic"
# How far bicubic interpolation sees, in pixels of the LR picture.
_BICUBIC_REACH_PX = 2
Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
SELF_ENSEMBLE = 8
"""So often a network is applied then, to every flip and turn."""
UNKNOWN_SCALES = (2, 3, 4, 8)

# At the end of a name, as in srcnn_9-1-5_x2.
_NAMED_SCALE = re.compile(r"[^a-z]x(\d+)$", re.IGNORECASE)

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

    @property
    def channels(self) -> str:
        """What a network takes and makes, 'rgb' or 'y'; empty where there is none."""

    def __call__(self, samples: Sequence[Sample]) -> list[ImageArray]:
        """The results for samples of one size and scale, each of its reference's shape."""

    def enlarge(self, lr: Levels, white: int, scale: int) -> Levels:
        """A picture without a HR: grey or RGB [h, w, C], 0..white, to [scale h, scale w, C].

        In memory as a whole: larger ones go through ``tiles.bands``.
        """

    def lr_reach_px(self, scale: int) -> int:
        """How far a pixel that ``enlarge`` makes sees the LR picture, on each side."""


@dataclass(frozen=True)
class Bicubic:
    """The baseline of the protocol."""

    name: str = BICUBIC
    weights: str = ""
    scales: tuple[int, ...] = ()
    channels: str = ""

    def __call__(self, samples: Sequence[Sample]) -> list[ImageArray]:
        """Bicubic interpolation, one sample after the other."""
        return [sample.bicubic() for sample in samples]

    def enlarge(self, lr: Levels, white: int, scale: int) -> Levels:
        """Of 8 bits Pillow's own, which rounds between its two directions."""
        if lr.dtype != np.uint8:
            return _levels(enlarge(lr.astype(np.float32), scale), white, lr)
        height, width, channels = lr.shape
        image = Image.fromarray(lr[..., 0] if channels == 1 else lr)
        size = (width * scale, height * scale)
        enlarged = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        return enlarged.reshape(height * scale, width * scale, channels)

    def lr_reach_px(self, scale: int) -> int:
        """Of the four pixels around each, in each direction."""
        return _BICUBIC_REACH_PX


@dataclass(frozen=True)
class Network:
    """A trained network."""

    model: "TrainedModel"
    self_ensemble: bool = False
    """The mean of its outputs for eight flips and turns of the input (arXiv:1511.02228)."""

    @property
    def name(self) -> str:
        """'srcnn' of runs/srcnn, 'srcnn+' with self-ensemble, as papers write it."""
        return self.model.name + ("+" if self.self_ensemble else "")

    @property
    def weights(self) -> str:
        """The sha256 of the weights."""
        return self.model.weights_sha256

    @property
    def scales(self) -> tuple[int, ...]:
        """Those it was trained for."""
        return self.model.scales

    @property
    def channels(self) -> str:
        """'rgb' or 'y'."""
        return self.model.description.channels

    def __call__(self, samples: Sequence[Sample]) -> list[ImageArray]:
        """Upscaled in one batch, float32, large pictures in tiles."""
        channels, takes = self.channels, self.model.network.takes
        inputs = np.stack([sample.network_input(channels, takes) for sample in samples])
        scale = samples[0].scale
        network, ratio = partial(self._apply, scale=scale), self.model.network.ratio(scale)
        outputs = in_tiles(network, inputs, self.model.reach_px, ratio)
        self._check_size(outputs, samples[0])
        return [
            sample.result(output, channels) for sample, output in zip(samples, outputs, strict=True)
        ]

    def enlarge(self, lr: Levels, white: int, scale: int) -> Levels:
        """As by ``article``, in any depth; grey stays grey, whatever the network's channels."""
        rgb = np.broadcast_to(lr.astype(np.float32) * (255 / white), (*lr.shape[:2], 3))
        upscaled = np.clip(enlarge(rgb, scale), 0, 255)
        given = rgb if self.model.network.takes == "lr" else upscaled
        if self.channels == "rgb":
            output = self._output(given, scale)
        else:
            output = replace_y(upscaled, self._output(rgb_to_y(given)[..., None], scale)[..., 0])
        if lr.shape[2] == 1:
            output = y_to_grey(rgb_to_y(output))[..., None]
        return _levels(output * (white / 255), white, lr)

    def lr_reach_px(self, scale: int) -> int:
        """Of the network, on what it takes, and of bicubic's colour."""
        if self.model.network.takes == "lr":
            return max(self.model.reach_px, _BICUBIC_REACH_PX)
        return math.ceil(self.model.reach_px / scale) + _BICUBIC_REACH_PX

    def _output(self, given: Float32Array, scale: int) -> Float32Array:
        """Of [H, W, C] in 0..255."""
        return self._apply(given[None] / 255, scale)[0] * 255

    def _apply(self, images: Float32Array, scale: int) -> Float32Array:
        """The network's output for [N, H, W, C], or the mean over all flips and turns."""
        if not self.self_ensemble:
            return self.model(images, scale)
        total = np.zeros(1, np.float32)
        for mirror in (slice(None), slice(None, None, -1)):
            for turns in range(4):
                turned = np.rot90(images[:, :, mirror], turns, axes=(1, 2))
                output = np.rot90(self.model(turned, scale), -turns, axes=(1, 2))
                total = total + output[:, :, mirror]
        return total / SELF_ENSEMBLE

    def _check_size(self, outputs: Float32Array, sample: Sample) -> None:
        """Raises UsageError where LR is not a whole part of HR: 66 px of 200 at x3."""
        made, wanted = outputs.shape[1:3], sample.reference.shape[:2]
        if made != wanted:
            raise UsageError(
                f"{sample.name}: {self.name} makes {made[1]}x{made[0]} pixels of the LR at "
                f"x{sample.scale}, HR has {wanted[1]}x{wanted[0]}: leave out that scale, or build "
                f"a dataset with a --crop-size that it divides"
            )


def _levels(image: Float32Array, white: int, like: Levels) -> Levels:
    """Rounded and clipped to 0..white, in the type of ``like``."""
    return np.clip(np.floor(image + 0.5), 0, white).astype(like.dtype)


def load_upscalers(names: Sequence[str], *, self_ensemble: bool = False) -> list[Upscaler]:
    """'bicubic', run folders, .npz files and shipped models. Raises UsageError for anything else.

    Bicubic comes first whether it is named or not: every gain is over it. One of several that is
    there but cannot be loaded, as an unfinished one of runs/*, is left out, and a line says so.
    """
    upscalers: list[Upscaler] = [Bicubic()]
    unusable: list[UsageError | WorkError] = []
    for name in names:
        if name == BICUBIC:
            continue
        try:
            upscalers.append(Network(load_network(name), self_ensemble))
        except (UsageError, WorkError) as error:
            if not files.exists(name):
                raise
            unusable.append(error)
    if unusable and len(upscalers) == 1:
        raise unusable[0]
    for reason in unusable:
        _logger.warning("left out: %s", reason)
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
    for scale in model.scales or UNKNOWN_SCALES:
        model(np.zeros((1, 32, 32, model.description.num_channels), np.float32), scale)
    return model


def trained_on(upscaler: Upscaler) -> str | None:
    """How the LR of a network's training was made; None where that is not known, or no network."""
    if not isinstance(upscaler, Network):
        return None
    return upscaler.model.description.degradation


def warn_of_degradation(upscalers: Sequence[Upscaler], degradation: Degradation) -> None:
    """Logs a warning for every network trained on LR made in another way."""
    for upscaler in upscalers:
        trained = trained_on(upscaler)
        if trained not in (None, degradation):
            _logger.warning(
                "%s was trained on LR by %s and is scored on LR by %s: expect a loss",
                upscaler.name, trained, degradation,
            )  # fmt: skip


def warn_of_scales(upscalers: Sequence[Upscaler], scales: Collection[int]) -> None:
    """Logs a warning for every network that is scored at scales it may not be made for."""
    for upscaler in upscalers:
        if upscaler.scales or not upscaler.weights:
            continue
        named = _NAMED_SCALE.search(upscaler.name)
        if named is None:
            _logger.warning(
                "%s does not say for which scales it was made: rows at others tell nothing of it",
                upscaler.name,
            )
        elif others := sorted(set(scales) - {int(named[1])}):
            _logger.warning(
                "%s is made for x%s, says its name, and is scored at %s: expect a loss there",
                upscaler.name, named[1], ", ".join(f"x{scale}" for scale in others),
            )  # fmt: skip
