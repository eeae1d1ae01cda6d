"""model/: a trained network for others, and reading it or published weights back.

A model folder holds weights.npz (w1, b1, w2, b2, ...; kernels HWIO, float32), model.json
(ModelDescription) and saved_model/ with the signatures ``upscaled`` (``images``, float32
[N, H, W, C], bicubic-upscaled, 0..1 -> the same, not clipped) and, for each scale, ``x2``, ...
(``lr``, uint8 [N, h, w, 3] -> uint8 [N, 2h, 2w, 3]).
"""

import dataclasses
import hashlib
import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.command.cli import UsageError
from pipelines.dataset.options import Degradation
from trainer import files
from trainer.colour import replace_y, rgb_to_y
from trainer.models import NETWORKS, Network, recognise
from trainer.models.network import Weights, weights_by_name

MODEL_FOLDER = "model"
_WEIGHTS, _DESCRIPTION, _SAVED_MODEL = "weights.npz", "model.json", "saved_model"
_CHANNELS = {"y": 1, "rgb": 3}
_UNKNOWN_SCALES = (2, 3, 4)
Images = npt.NDArray[np.float32]
Tensor = Any


@dataclass(frozen=True)
class ModelDescription:
    """model.json."""

    architecture: str
    """'srcnn' or 'vdsr'."""
    channels: str
    """'rgb', or 'y': Y of MATLAB's rgb2ycbcr (16..235) divided by 255."""
    scales: tuple[int, ...]
    """Trained scales; () where unknown: it may be used at any."""
    degradation: str | None
    """Of the training data, a value of Degradation; None where unknown."""

    @property
    def num_channels(self) -> int:
        """3 for 'rgb', 1 for 'y'."""
        return _CHANNELS[self.channels]


class TrainedModel:
    """A network with its weights, computing in float32."""

    def __init__(
        self, name: str, description: ModelDescription, network: Network, weights: Weights, sha: str
    ) -> None:
        self.name = name
        self.description = description
        self.weights_sha256 = sha
        self.reach_px = network.reach_px
        signature = tf.TensorSpec([None, None, None, description.num_channels], tf.float32)
        constants = [tf.constant(weight) for weight in weights]
        self._apply = tf.function(
            lambda images: network(constants, images), input_signature=[signature]
        )

    def __call__(self, upscaled: Images) -> Images:
        """Bicubic-upscaled float32 [N, H, W, C] in 0..1 -> [N, H, W, C], not clipped."""
        return self._apply(upscaled).numpy()


def load_model(path: str) -> TrainedModel:
    """The model of a run folder (reads RUN/model/) or of a WEIGHTS.npz.

    Turns TensorFloat-32 off in this process. Raises UsageError for anything else, naming the
    shapes where the weights are unknown.
    """
    # With it a GPU's pixels were up to 0.9 levels off a CPU's (published VDSR on Set5).
    tf.config.experimental.enable_tensor_float_32_execution(False)
    files.check(path)
    if files.is_folder(path):
        return _load_run(path)
    if not files.exists(path):
        raise UsageError(f"{path} is neither a run folder nor a weights file (.npz)")
    network, weights, sha = _read_weights(path)
    channels = "y" if weights[0].shape[2] == 1 else "rgb"
    description = ModelDescription(network.name, channels, (), None)
    return TrainedModel(PurePath(path).stem, description, network, weights, sha)


def _load_run(run: str) -> TrainedModel:
    folder = files.join(run, MODEL_FOLDER)
    if not is_exported(run):
        raise UsageError(
            f"{run} holds no exported model ({MODEL_FOLDER}/{_DESCRIPTION}): finish its "
            f"training with: python -m trainer --output {run} …"
        )
    description = _read_description(files.join(folder, _DESCRIPTION))
    network, weights, sha = _read_weights(files.join(folder, _WEIGHTS))
    if (network.name, weights[0].shape[2]) != (description.architecture, description.num_channels):
        raise UsageError(f"{folder}: {_WEIGHTS} and {_DESCRIPTION} are of different networks")
    name = Path(run).resolve().name if files.is_local(run) else PurePath(run).name
    return TrainedModel(name, description, network, weights, sha)


def is_exported(run: str) -> bool:
    """Whether RUN/model/ is there, whole."""
    return files.exists(files.join(run, MODEL_FOLDER, _DESCRIPTION))


def _read_description(path: str) -> ModelDescription:
    try:
        values = json.loads(files.read(path))
        description = ModelDescription(**{**values, "scales": tuple(values["scales"])})
        known = description.architecture in NETWORKS and description.channels in _CHANNELS
        if description.degradation is not None:
            Degradation(description.degradation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a model's description: {error!r}") from None
    if not known:
        raise UsageError(
            f"{path} describes an unknown network: {description.architecture}, "
            f"{description.channels}"
        )
    return description


def _read_weights(path: str) -> tuple[Network, Weights, str]:
    """The network recognised from the shapes, its weights, and the file's sha256."""
    try:
        data = files.read(path)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            named = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a weights file (.npz): {error}") from None
    weights = _ordered(named)
    network = recognise([weight.shape for weight in weights])
    if network is None:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        raise UsageError(
            f"{path} holds the weights of no known network ({', '.join(NETWORKS)}): {shapes}"
        )
    return network, weights, hashlib.sha256(data).hexdigest()


def _ordered(named: dict[str, npt.NDArray[Any]]) -> Weights:
    """w1, b1, w2, ... as float32; biases of zero where a layer has none; [] for other names."""
    layers = sum(re.fullmatch(r"w\d+", name) is not None for name in named)
    names = {f"{kind}{layer}" for kind in "wb" for layer in range(1, layers + 1)}
    if not names.issuperset(named) or any(f"w{layer + 1}" not in named for layer in range(layers)):
        return []
    weights = []
    for layer in range(1, layers + 1):
        kernel = named[f"w{layer}"]
        bias = named.get(f"b{layer}", np.zeros(kernel.shape[-1:]))
        weights += [kernel.astype(np.float32), bias.astype(np.float32)]
    return weights


def export_model(
    run: str, description: ModelDescription, network: Network, weights: Weights
) -> str:
    """Writes RUN/model/, replacing an older one, and returns it.

    model.json goes first and comes last: without it a folder is no model.
    """
    folder = files.join(run, MODEL_FOLDER)
    files.remove(files.join(folder, _DESCRIPTION))
    files.remove(folder)
    files.make_folder(folder)
    buffer = io.BytesIO()
    np.savez(buffer, **weights_by_name(weights))
    files.write(files.join(folder, _WEIGHTS), buffer.getvalue())
    _write_saved_model(files.join(folder, _SAVED_MODEL), description, network, weights)
    text = json.dumps(dataclasses.asdict(description), indent=2) + "\n"
    files.write(files.join(folder, _DESCRIPTION), text.encode())
    return folder


def _write_saved_model(
    path: str, description: ModelDescription, network: Network, weights: Weights
) -> None:
    module = tf.Module()
    module.weights = [tf.Variable(weight) for weight in weights]

    def apply(images: Tensor) -> Tensor:
        return network(module.weights, images)

    def super_resolve(scale: int, lr: Tensor) -> Tensor:
        rgb = upscale(tf.cast(lr, tf.float32) / 255.0, scale)
        is_rgb = description.channels == "rgb"
        sr = apply(rgb) if is_rgb else replace_y(rgb, apply(rgb_to_y(rgb)))
        return tf.saturate_cast(tf.floor(sr * 255.0 + 0.5), tf.uint8)

    upscaled = tf.TensorSpec([None, None, None, description.num_channels], tf.float32)
    lr = tf.TensorSpec([None, None, None, 3], tf.uint8)
    functions = {"upscaled": tf.function(apply, input_signature=[upscaled])}
    for scale in description.scales or _UNKNOWN_SCALES:
        functions[f"x{scale}"] = tf.function(
            lambda lr, scale=scale: super_resolve(scale, lr), input_signature=[lr]
        )
    module.functions = functions
    tf.saved_model.save(
        module,
        path,
        {name: function.get_concrete_function() for name, function in functions.items()},
    )


def upscale(images: Tensor, scale: int) -> Tensor:
    """float32 [N, h, w, C] in 0..1 enlarged by Pillow's bicubic, clipped after each direction."""
    rows, columns = (_bicubic_matrix(tf.shape(images)[axis], scale) for axis in (1, 2))
    wide = tf.clip_by_value(tf.einsum("xw,nhwc->nhxc", columns, images), 0.0, 1.0)
    return tf.clip_by_value(tf.einsum("yh,nhxc->nyxc", rows, wide), 0.0, 1.0)


def _bicubic_matrix(size: Tensor, scale: int) -> Tensor:
    """resampling.pillow_bicubic_matrix for a size known only when the graph runs, enlarging."""
    centres = (tf.cast(tf.range(size * scale), tf.float32) + 0.5) / scale
    x = tf.abs(centres[:, None] - 0.5 - tf.cast(tf.range(size), tf.float32))
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = tf.where(x <= 1.0, near, tf.where(x < 2.0, far, 0.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
