"""python -m trainer.export_to: a model for programs without TensorFlow, as ONNX or TFLite.

One graph for one scale, for pictures of any size: ``lr`` and ``sr``, float32 in 0..1, RGB or Y.
ONNX has [N, C, h, w] -> [N, C, scale h, scale w], as is usual there, TFLite [1, h, w, C].
"""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.command import cli
from pipelines.command.cli import UsageError
from pipelines.command.fields import argument_type
from trainer import files

if TYPE_CHECKING:
    from trainer.trained import TrainedModel

_PACKAGES = {"onnx": "tf2onnx", "tflite": "tensorflow"}
_OPSET = 17
"""Of ONNX: onnxruntime reads it from version 1.12 (2022) on."""
Tensor = Any
_logger = logging.getLogger("trainer")


def main(arguments: Sequence[str]) -> None:
    """Raises UsageError for a model without that scale, and where a package is missing."""
    parser = cli.ArgumentParser(
        "python -m trainer.export_to",
        "Writes a model for programs without TensorFlow: pictures of any size, float32 in 0..1, "
        "are enlarged by one scale. ONNX has channels first, TFLite last.",
    )
    add = parser.add_argument
    add("model", metavar="RUN|NAME", help="run folder, weights file (.npz) or shipped model")
    add("file", metavar="FILE", type=cli.output_path, help="the file to write")
    add("--to", required=True, choices=tuple(_PACKAGES), help="the format")
    add("--scale", required=True, type=argument_type(int, at_least=2), metavar="N", help="enlarges")
    add(
        "--luma",
        action="store_true",
        help="Y in and out (MATLAB's rgb2ycbcr, 16..235 of 255) of a network of Y, in place of "
        "RGB whose colour is enlarged by bicubic in the graph",
    )
    add("--overwrite", action="store_true", help="replace FILE where it is there")
    options = parser.parse_args(arguments)
    if options.file.exists() and not options.overwrite:
        raise UsageError(f"{options.file} is there already: use --overwrite")
    if importlib.util.find_spec(_PACKAGES[options.to]) is None:
        raise UsageError(
            f"--to {options.to} needs {_PACKAGES[options.to]}: pip install "
            "'imagenet-superres[export]'"
        )
    from trainer.trained import load_model  # TensorFlow takes seconds to import

    model = load_model(options.model)
    check(model, options.scale, luma=options.luma)
    files.write(str(options.file), WRITERS[options.to](model, options.scale, options.luma))
    _logger.info(
        "%s: %s at x%s as %s, %s", options.file, model.name, options.scale, options.to,
        "Y to Y" if options.luma else "RGB to RGB",
    )  # fmt: skip


def check(model: "TrainedModel", scale: int, *, luma: bool) -> None:
    """Raises UsageError for what the model cannot do."""
    if model.scales and scale not in model.scales:
        there = ",".join(map(str, model.scales))
        raise UsageError(f"{model.name} was trained for the scales {there}, not {scale}")
    if luma and model.description.channels != "y":
        raise UsageError(f"{model.name} is a network of RGB: leave --luma out")


def to_onnx(model: "TrainedModel", scale: int, luma: bool) -> bytes:
    """An ONNX file: lr [N, C, h, w] -> sr [N, C, scale h, scale w]."""
    import tensorflow as tf
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(
        tf.function(_graph(model, scale, luma), autograph=False),
        [tf.TensorSpec([None, None, None, 1 if luma else 3], tf.float32, "lr")],
        opset=_OPSET,
        inputs_as_nchw=["lr"],
        outputs_as_nchw=["sr"],
    )
    return proto.SerializeToString()


def to_tflite(model: "TrainedModel", scale: int, luma: bool) -> bytes:
    """A TFLite file: lr [1, h, w, C] -> sr [1, scale h, scale w, C].

    Its h and w are 1 until the interpreter's resize_tensor_input says what they are.
    """
    import tensorflow as tf

    lr = tf.TensorSpec([1, None, None, 1 if luma else 3], tf.float32, "lr")
    module = tf.Module()
    module.function = tf.function(_graph(model, scale, luma), input_signature=[lr], autograph=False)
    concrete = module.function.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()


WRITERS: dict[str, Callable[["TrainedModel", int, bool], bytes]] = {
    "onnx": to_onnx,
    "tflite": to_tflite,
}


def _graph(model: "TrainedModel", scale: int, luma: bool) -> Callable[[Tensor], dict[str, Tensor]]:
    """The whole way from LR to SR, with the weights as constants."""
    import tensorflow as tf

    from trainer.export import super_resolved, upscale

    network = model.network
    weights = model.weights_at(scale)

    def apply(images: Tensor) -> Tensor:
        return network(weights, images, scale)

    def super_resolve(lr: Tensor) -> dict[str, Tensor]:
        if luma:
            sr = apply(lr if network.takes == "lr" else upscale(lr, scale))
        else:
            sr = super_resolved(lr, scale, model.description.channels, network, apply)
        return {"sr": tf.clip_by_value(sr, 0.0, 1.0)}

    return super_resolve


if __name__ == "__main__":
    cli.run(main)
