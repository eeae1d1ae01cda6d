"""Trained networks by name: of a run folder, a weights file, or one that comes with the package."""

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.options import Degradation
from trainer import cards, files
from trainer.cards import Card
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import MOST_TEXT_BYTES, Config, read_values
from trainer.export import (
    CHANNELS,
    DESCRIPTION,
    MODEL_FOLDER,
    WEIGHTS,
    Images,
    ModelDescription,
    is_exported,
)
from trainer.models import NETWORKS, Network, Shape
from trainer.models.network import INITIAL, Weights
from trainer.weights_file import MOST_SCALE, read_weights

EVERY_SCALE = 0
_logger = logging.getLogger(__name__)


class TrainedModel:
    """A network with its weights, computing in float32.

    ``weights`` are those of each scale, or of EVERY_SCALE.
    """

    def __init__(
        self,
        name: str,
        description: ModelDescription,
        network: Network,
        weights: Mapping[int, Weights],
        sha256: str,
    ) -> None:
        # With it a GPU's pixels were up to 0.9 levels off a CPU's (published VDSR on Set5).
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.name = name
        self.description = description
        self.network = network
        self.weights = weights
        self.weights_sha256 = sha256
        self.reach_px = network.reach_px
        self._function = cache(self._traced)

    @property
    def scales(self) -> tuple[int, ...]:
        """Those that it is for; none: any."""
        return self.description.scales or self.network.scales

    def __call__(self, images: Images, scale: int) -> Images:
        """float32 [N, H, W, C] in 0..1, as the network takes them -> the HR size, not clipped.

        Raises WorkError for pixels that are not finite.
        """
        own = self.network.takes == "lr" or EVERY_SCALE not in self.weights
        output = self._function(scale if own else EVERY_SCALE)(images).numpy()
        if not np.isfinite(output).all():
            raise WorkError(f"{self.name} gives pixels that are not finite: its weights are no use")
        return output

    def weights_at(self, scale: int) -> Weights:
        """Those that enlarge by ``scale``."""
        return self.weights.get(EVERY_SCALE) or self.weights[scale]

    def _traced(self, scale: int) -> Any:
        """For one scale; a network that takes the upscaled picture is the same at all."""
        weights = self.weights_at(scale)
        constants = {name: tf.constant(weight) for name, weight in weights.items()}
        pixels = tf.TensorSpec([None, None, None, self.description.num_channels], tf.float32)
        return tf.function(
            lambda images: self.network(constants, images, scale),
            input_signature=[pixels],
            autograph=False,
        )


def load_model(name: str) -> TrainedModel:
    """The model of a run or model folder, a WEIGHTS.npz, or of that name among the shipped ones.

    Of a run that is not finished, its best checkpoint so far. Turns TensorFloat-32 off in this
    process. Raises UsageError for anything else, naming the shapes where the weights are unknown.
    """
    files.check(name)
    if files.is_folder(name):
        if files.exists(files.join(name, DESCRIPTION)):
            return _load_exported(name)
        return _load_run(name)
    folder, _, file = name.rpartition("/")
    if file == WEIGHTS and files.exists(files.join(folder, DESCRIPTION)):
        return _load_exported(folder)
    if files.exists(name):
        found = read_weights(name)
        description = ModelDescription(
            found.network.name, _channels(found.network), found.scales, None
        )
        return TrainedModel(
            PurePath(name).stem,
            description,
            found.network,
            {EVERY_SCALE: found.weights},
            found.sha256,
        )
    card = cards.find_card(name)
    if card is None:
        shipped = ", ".join(cards.shipped_names())
        raise UsageError(
            f"{name} is no run folder, no weights file (.npz) and none of the shipped models "
            f"({shipped})"
        )
    return _load_shipped(card)


def _load_shipped(card: Card) -> TrainedModel:
    description = ModelDescription(card.architecture, card.channels, card.scales, card.degradation)
    weights: dict[int, Weights] = {}
    digests = []
    for file, scales in card.weights.items():
        found = read_weights(str(cards.WEIGHTS / file))
        weights |= dict.fromkeys(scales if len(card.weights) > 1 else [EVERY_SCALE], found.weights)
        digests.append(found.sha256)
    sha256 = digests[0] if len(digests) == 1 else _sha256("".join(digests).encode())
    return TrainedModel(card.name, description, found.network, weights, sha256)


def _load_run(run: str) -> TrainedModel:
    if is_exported(run):
        return _load_exported(files.join(run, MODEL_FOLDER))
    return _load_unfinished(run, _absolute(run).name)


def _load_exported(folder: str) -> TrainedModel:
    """A model folder, called as the run that it lies in."""
    path = _absolute(folder)
    name = path.parent.name if path.name == MODEL_FOLDER else path.name
    description = _read_description(files.join(folder, DESCRIPTION))
    found = read_weights(files.join(folder, WEIGHTS))
    of_weights = (found.network.name, _channels(found.network))
    if of_weights != (description.architecture, description.channels):
        raise UsageError(f"{folder}: {WEIGHTS} and {DESCRIPTION} are of different networks")
    return TrainedModel(
        name, description, found.network, {EVERY_SCALE: found.weights}, found.sha256
    )


def _channels(network: Network) -> str:
    return "y" if network.channels == 1 else "rgb"


def _absolute(path: str) -> PurePath:
    return Path(path).resolve() if files.is_local(path) else PurePath(path)


def _load_unfinished(run: str, name: str) -> TrainedModel:
    checkpoint = best_checkpoint(run)
    if checkpoint is None:
        raise UsageError(
            f"{run} holds neither an exported model ({MODEL_FOLDER}/{DESCRIPTION}) nor a "
            f"checkpoint: train it with: python -m trainer --output {run} …"
        )
    config = Config(**read_values(files.join(run, "config.yaml")))
    shapes = {name: weight.shape for name, weight in checkpoint.weights.items()}
    if shapes != config.network().shapes:
        raise UsageError(f"{run}: checkpoints and config.yaml are of different networks")
    _logger.warning(
        "%s is not finished: this is its checkpoint of step %s of %s",
        run, f"{checkpoint.step:,}", f"{config.steps:,}",
    )  # fmt: skip
    degradation = Degradation.BICUBIC.value if config.lr != "stored" else None
    description = ModelDescription(config.model, config.channels, config.scales, degradation)
    sha256 = _sha256(b"".join(weight.tobytes() for weight in checkpoint.result.values()))
    return TrainedModel(
        name, description, config.network(), {EVERY_SCALE: checkpoint.result}, sha256
    )


def best_checkpoint(run: str) -> Checkpoint | None:
    """The one of best validation PSNR; without any validation the last; None without any."""
    checkpoints = Checkpoints(run)
    return checkpoints.best() or checkpoints.last()


def starting_weights(config: Config) -> Weights:
    """What the recipe's ``from`` names. Raises UsageError where it does not fit the network.

    A smaller kernel becomes the middle of a larger one, which then does the same. Of the same
    network for another scale what has other shapes there begins anew: its enlarging layers.
    """
    model = load_model(config.from_)
    wanted = config.network()
    found = [
        model.weights[scale] for scale in (EVERY_SCALE, *config.scales) if scale in model.weights
    ] or list(model.weights.values())
    shapes = {name: weight.shape for name, weight in found[0].items()}
    anew = [
        name for name, shape in wanted.shapes.items()
        if name not in shapes or not _fits(shapes[name], shape)
    ]  # fmt: skip
    same = shapes.keys() == wanted.shapes.keys() and not anew
    if not same and not _is_for_another_scale(model.network, wanted):
        raise UsageError(
            f"--from {config.from_} has the weights {_text(shapes)}, but the recipe's network "
            f"{_text(wanted.shapes)}"
        )
    if len(found) != 1:
        raise UsageError(
            f"--from {config.from_} has weights for each of the scales "
            f"{','.join(map(str, model.weights))}: choose one of its files, or by --scales"
        )
    if not anew:
        return {name: _grown(found[0][name], shape) for name, shape in wanted.shapes.items()}
    _logger.info("%s is for another scale: %s begin anew", config.from_, ", ".join(anew))
    rng = np.random.default_rng(config.seed)
    weights = wanted.initial_weights(rng, INITIAL[config.init])
    kept = [name for name in weights if name not in anew]
    return weights | {name: _grown(found[0][name], wanted.shapes[name]) for name in kept}


def _fits(shape: Shape, wanted: Shape) -> bool:
    """Whether only kernel sizes differ, and none is larger than wanted."""
    return shape[-2:] == wanted[-2:] and shape[0] <= wanted[0]


def _is_for_another_scale(network: Network, wanted: Network) -> bool:
    same = (network.name, network.channels) == (wanted.name, wanted.channels)
    return same and network.scales != wanted.scales


def _grown(weight: npt.NDArray[np.float32], shape: Shape) -> npt.NDArray[np.float32]:
    px = (shape[0] - weight.shape[0]) // 2 if weight.ndim == 4 else 0
    return np.pad(weight, [(px, px)] * 2 + [(0, 0)] * 2) if px else weight


def _text(shapes: Mapping[str, Shape]) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes.values() if len(shape) == 4)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_description(path: str) -> ModelDescription:
    try:
        values = json.loads(files.read(path, at_most=MOST_TEXT_BYTES))
        description = ModelDescription(**{**values, "scales": tuple(values["scales"])})
        known = description.architecture in NETWORKS and description.channels in CHANNELS
        if description.degradation is not None:
            Degradation(description.degradation)
        if not all(type(scale) is int and 1 < scale < MOST_SCALE for scale in description.scales):
            raise ValueError(f"scales are {description.scales!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is not a model's description: {error!r:.200}") from None
    if not known:
        raise UsageError(
            f"{path} describes an unknown network: {description.architecture!s:.40}, "
            f"{description.channels!s:.40}"
        )
    return description
