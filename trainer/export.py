"""model/: a trained network for others.

A model folder holds weights.npz (trainer.weights_file), model.json (ModelDescription) and
saved_model/ with, for each scale, the signature ``x2``, ... (``lr``, uint8 [N, h, w, 3] -> uint8
[N, 2h, 2w, 3]) and what is inside: ``upscaled`` (``images``, float32 [N, H, W, C],
bicubic-upscaled, 0..1 -> the same, not clipped), or of a network that takes LR ``lr_x2``, ...
(``images``, float32 [N, h, w, C] -> [N, 2h, 2w, C]).
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.pictures.resampling import cubic
from trainer import files
from trainer.colour import replace_y, rgb_to_y
from trainer.models import Network
from trainer.models.network import Weights
from trainer.weights_file import write_weights

MODEL_FOLDER = "model"
WEIGHTS, DESCRIPTION, _SAVED_MODEL = "weights.npz", "model.json", "saved_model"
CHANNELS = {"y": 1, "rgb": 3}
_UNKNOWN_SCALES = (2, 3, 4)
Images = npt.NDArray[np.float32]
Tensor = Any
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ModelDescription:
    """model.json."""

    architecture: str
    """A name of NETWORKS."""
    channels: str
    """'rgb', or 'y': Y of MATLAB's rgb2ycbcr (16..235) divided by 255."""
    scales: tuple[int, ...]
    """Trained scales; () where unknown: it may be used at any."""
    degradation: str | None
    """Of the training data, a value of Degradation; None where unknown."""

    @property
    def num_channels(self) -> int:
        """3 for 'rgb', 1 for 'y'."""
        return CHANNELS[self.channels]


def is_exported(run: str) -> bool:
    """Whether RUN/model/ is there, whole."""
    return files.exists(files.join(run, MODEL_FOLDER, DESCRIPTION))


def export_model(
    run: str, description: ModelDescription, network: Network, weights: Weights
) -> str:
    """Writes RUN/model/, replacing an older one, and returns it. Raises WorkError.

    Who reads an older one meanwhile finds it whole. On an object store, which cannot rename a
    folder at once, model.json goes first and comes last: without it a folder is no model.
    """
    model = files.join(run, MODEL_FOLDER)
    folder = f"{model}.partial" if files.is_local(run) else model
    files.remove(files.join(folder, DESCRIPTION))
    files.remove(folder)
    files.make_folder(folder)
    content = write_weights(network, weights, description.scales)
    files.write(files.join(folder, WEIGHTS), content)
    with files.writing(folder), files.store():
        _write_saved_model(files.join(folder, _SAVED_MODEL), description, network, weights)
    text = json.dumps(dataclasses.asdict(description), indent=2) + "\n"
    files.write(files.join(folder, DESCRIPTION), text.encode())
    if folder != model:
        _take_place(folder, model)
    return model


def _take_place(new: str, path: str) -> None:
    """Renames ``new`` to ``path``, and removes what was there."""
    old = f"{path}.old"
    files.remove(old)
    if files.exists(path):
        files.rename(path, old)
    files.rename(new, path)
    files.remove(old)


def _write_saved_model(
    path: str, description: ModelDescription, network: Network, weights: Weights
) -> None:
    module = tf.Module()
    module.weights = {name: tf.Variable(weight) for name, weight in weights.items()}
    pixels = tf.TensorSpec([None, None, None, description.num_channels], tf.float32)
    lr = tf.TensorSpec([None, None, None, 3], tf.uint8)

    def network_at(scale: int) -> Function:
        return lambda images: network(module.weights, images, scale)

    def super_resolution_at(scale: int, apply: Function) -> Function:
        def super_resolve(lr: Tensor) -> Tensor:
            rgb = tf.cast(lr, tf.float32) / 255.0
            sr = super_resolved(rgb, scale, description.channels, network, apply)
            return tf.saturate_cast(tf.floor(sr * 255.0 + 0.5), tf.uint8)

        return super_resolve

    functions = {}
    for scale in description.scales or network.scales or _UNKNOWN_SCALES:
        apply = network_at(scale)
        inside = f"lr_x{scale}" if network.takes == "lr" else "upscaled"
        functions[inside] = tf.function(apply, input_signature=[pixels], autograph=False)
        whole = super_resolution_at(scale, apply)
        functions[f"x{scale}"] = tf.function(whole, input_signature=[lr], autograph=False)
    module.functions = functions
    tf.saved_model.save(
        module,
        path,
        {name: function.get_concrete_function() for name, function in functions.items()},
    )


def super_resolved(
    lr: Tensor, scale: int, channels: str, network: Network, apply: Function
) -> Tensor:
    """float32 RGB in 0..1; of a network of Y the colour is bicubic."""
    in_rgb, takes_lr = channels == "rgb", network.takes == "lr"
    if in_rgb and takes_lr:
        return apply(lr)
    upscaled = upscale(lr, scale)
    if in_rgb:
        return apply(upscaled)
    return replace_y(upscaled, apply(rgb_to_y(lr if takes_lr else upscaled)))


def upscale(images: Tensor, scale: int) -> Tensor:
    """float32 [N, h, w, C] in 0..1 enlarged by Pillow's bicubic, clipped after each direction."""
    for axis in (2, 1):
        places, weights = _bicubic_taps(tf.shape(images)[axis], scale)
        taps = tf.gather(images, places, axis=axis)
        subscripts = "nhxtc,xt->nhxc" if axis == 2 else "nytwc,yt->nywc"
        images = tf.clip_by_value(tf.einsum(subscripts, taps, weights), 0.0, 1.0)
    return images


def _bicubic_taps(size: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """resampling.pillow_bicubic_matrix for a size known only when the graph runs, enlarging.

    For each of the size * scale output pixels the four input pixels around it, int32, and their
    weights, float32; those outside have no weight.
    """
    centres = (np.arange(scale) + 0.5) / scale - 0.5
    offsets = (np.floor(centres)[:, None] + np.arange(-1, 3)).astype(np.int32)
    kernel = cubic(centres[:, None] - offsets).astype(np.float32)
    places = tf.reshape(tf.range(size)[:, None, None] + offsets, [-1, 4])
    inside = tf.cast((places >= 0) & (places < size), tf.float32)
    weights = tf.tile(kernel, [size, 1]) * inside
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.clip_by_value(places, 0, size - 1), weights
