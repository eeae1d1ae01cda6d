"""For programs of one's own: a model by its name, what it makes of a picture, what it is worth."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import UInt8Array
from evaluation.pictures import Picture
from evaluation.protocols import PROTOCOLS
from evaluation.scoring import Means, means, refuse_networks, score_image
from evaluation.tiles import bands
from evaluation.upscalers import BICUBIC, Bicubic, Levels, Network, Upscaler, load_network
from pipelines.command.cli import UsageError

_WHITE = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Model:
    """A network, or bicubic; by ``load_model``."""

    upscaler: Upscaler

    @property
    def name(self) -> str:
        """As in results.csv."""
        return self.upscaler.name

    @property
    def scales(self) -> tuple[int, ...]:
        """Those it was trained for; none: all."""
        return self.upscaler.scales

    def upscale(self, image: Levels, scale: int = 2) -> Levels:
        """A picture of any size, in tiles: [h, w] or [h, w, 3] to [scale h, scale w(, 3)].

        uint8 or uint16, RGB where it has channels; the result is of the same kind. Raises
        ValueError for another array, UsageError for a scale that the model cannot do.
        """
        white = _WHITE.get(image.dtype.name)
        if white is None or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            given = f"{image.dtype} {list(image.shape)}"
            raise ValueError(f"a picture is uint8 or uint16, [h, w] or [h, w, 3], not {given}")
        self._check(scale)

        def enlarge(tile: Levels) -> Levels:
            return self.upscaler.enlarge(tile, white, scale)

        samples = image.reshape(*image.shape[:2], -1)
        reach_px = self.upscaler.lr_reach_px(scale)
        result = np.concatenate([*bands(enlarge, samples, reach_px, scale)])
        return result[..., 0] if image.ndim == 2 else result

    def _check(self, scale: int) -> None:
        if self.scales and scale not in self.scales:
            trained = ", ".join(f"x{one}" for one in self.scales)
            raise UsageError(f"{self.name} was trained for {trained}, not x{scale}")


def load_model(name: str, *, self_ensemble: bool = False) -> Model:
    """Of a shipped model, a run folder, an .npz file, or 'bicubic'. Raises UsageError.

    With ``self_ensemble`` a network's result is the mean over eight flips and turns of the input:
    a little better, in eight times the time.
    """
    network = None if name == BICUBIC else Network(load_network(name), self_ensemble)
    return Model(network or Bicubic())


def evaluate(
    model: Model, images: Iterable[UInt8Array], scale: int = 2, protocol: str = "paper"
) -> Means:
    """Mean PSNR in dB, its deviation and mean SSIM over HR pictures, uint8 [H, W] or [H, W, 3].

    LR is made of each as the protocol has it, so that the figures are those of results.csv. Raises
    UsageError for a scale that the model was not trained for or a protocol that does not score it,
    KeyError for an unknown protocol.
    """
    model._check(scale)
    rules = PROTOCOLS[protocol]
    refuse_networks([model.upscaler], rules)
    scores = {}
    for number, image in enumerate(images):
        sample = rules.sample(Picture(str(number), image), scale)
        result = model.upscaler([sample])[0]
        scores[number] = score_image(sample, result, rules.shave_px(scale))
    return means(scores)
