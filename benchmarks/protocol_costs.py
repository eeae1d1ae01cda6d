"""What each wrong choice of protocol costs: one change at a time against the paper's protocol.

    python -m benchmarks.protocol_costs --images …/benchmarks/set5 \
        --weights …/weights/srcnn_9-1-5_91images_x2.npz --scale 2

takes about 20 s on 2 cores and prints the Markdown table of docs/evaluation.md: PSNR in dB, the
mean over the set, of bicubic and of an SRCNN of one channel (Y).
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.colour import replace_y, rgb_to_y
from evaluation.metrics import shave
from evaluation.pictures import Picture, folder_pictures
from pipelines.command import cli
from pipelines.command.fields import argument_type
from pipelines.pictures.resampling import cubic, matlab_bicubic_matrix, resize, to_uint8

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

from trainer.models.network import convolutions

Array = npt.NDArray[np.float64]
Network = Callable[[Array], Array]


@dataclass(frozen=True)
class Choices:
    """A protocol in its parts; the defaults are the paper's."""

    luma: Callable[[Array], Array] = rgb_to_y
    round_luma: bool = True
    resample: Callable[[Array, int, int], Array] = lambda image, height, width: resize(
        image, height, width, matlab_bicubic_matrix
    )
    round_lr: bool = False
    crop: bool = True
    padding: str = "REPLICATE"
    dtype: str = "float32"
    round_result: bool = True
    shave: bool = True
    score_rgb: bool = False


def full_range_luma(rgb: Array) -> Array:
    """Y over 0..255, as OpenCV and Pillow have it."""
    return rgb @ np.array([0.299, 0.587, 0.114])


def pillow_resample(image: Array, height: int, width: int) -> Array:
    """Pillow's bicubic on 8 bits, both ways."""
    small = Image.fromarray(to_uint8(image))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)


def aliased_resample(image: Array, height: int, width: int) -> Array:
    """Bicubic that does not widen its kernel when downscaling, as OpenCV's and TensorFlow's."""
    return resize(image, height, width, aliased_matrix)


def aliased_matrix(input_size: int, output_size: int) -> Array:
    """Keys' kernel of four taps whatever the scale, edges repeated."""
    centres = (np.arange(output_size) + 0.5) * input_size / output_size - 0.5
    taps = np.floor(centres)[:, None] + np.arange(-1, 3)
    matrix = np.zeros((output_size, input_size))
    columns = np.clip(taps, 0, input_size - 1).astype(int)
    np.add.at(matrix, (np.arange(output_size)[:, None], columns), cubic(centres[:, None] - taps))
    return matrix


PAPER = Choices()
VARIANTS = {
    "protocol `paper`": PAPER,
    "Y over the full range 0..255 (OpenCV, Pillow)": replace(PAPER, luma=full_range_luma),
    "PSNR over RGB, colour by bicubic": replace(PAPER, score_rgb=True),
    "no shave": replace(PAPER, shave=False),
    "result not rounded to 8 bits": replace(PAPER, round_result=False),
    "LR rounded to 8 bits": replace(PAPER, round_lr=True),
    "Pillow's bicubic on 8 bits, down and up": replace(PAPER, resample=pillow_resample),
    "bicubic without antialiasing (OpenCV, TensorFlow)": replace(PAPER, resample=aliased_resample),
    "no crop to a multiple of the scale": replace(PAPER, crop=False),
    "zero padding, scored to the edge but for the shave": replace(PAPER, padding="SAME"),
    "zero padding, no shave": replace(PAPER, padding="SAME", shave=False),
    "network in bfloat16": replace(PAPER, dtype="bfloat16"),
}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    options = cli.ArgumentParser("python -m benchmarks.protocol_costs", "Costs of protocols in dB.")
    options.add_argument("--images", required=True, metavar="DIR", help="folder of HR pictures")
    options.add_argument("--weights", required=True, metavar="NPZ", help="an SRCNN of Y")
    options.add_argument(
        "--scale", type=argument_type(int, at_least=1), default=2, help="that of the weights"
    )
    arguments = options.parse_args(argv)
    pictures = list(folder_pictures(arguments.images))
    with np.load(arguments.weights) as arrays:
        weights = [arrays[f"{kind}{layer}"] for layer in (1, 2, 3) for kind in "wb"]
    sys.stdout.write("| choice | bicubic | cost | SRCNN | cost |\n|---|---|---|---|---|\n")
    bests = None
    for name, choices in VARIANTS.items():
        means = [
            np.mean([psnr_db(picture, arguments.scale, choices, network) for picture in pictures])
            for network in (lambda image: image, network_of(weights, choices))
        ]
        bests = bests or means
        cells = [
            f"{mean:.2f} | {mean - best:+.2f}" for mean, best in zip(means, bests, strict=True)
        ]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


def network_of(weights: Sequence[npt.NDArray[np.float32]], choices: Choices) -> Network:
    """The SRCNN of ``weights`` on Y [H, W], 0..255."""

    def apply(luma: Array) -> Array:
        images = tf.constant(luma[None, ..., None] / 255, choices.dtype)
        cast = [tf.constant(weight, choices.dtype) for weight in weights]
        output = convolutions(cast, images, choices.padding)
        return output.numpy()[0, ..., 0].astype(np.float64) * 255

    return apply


def psnr_db(picture: Picture, scale: int, choices: Choices, network: Network) -> float:
    """Of one picture, where ``network`` is what follows the bicubic upscaling of Y."""
    height, width = picture.hr.shape[:2]
    if choices.crop:
        height, width = height // scale * scale, width // scale * scale
    rgb = picture.rgb[:height, :width].astype(np.float64)
    luma = choices.luma(rgb)
    luma = to_uint8(luma).astype(np.float64) if choices.round_luma else luma
    reference, result = luma, network(upscaled(luma, scale, choices))
    if choices.score_rgb:
        colour = np.stack([upscaled(rgb[..., c], scale, choices) for c in range(3)], axis=-1)
        reference, result = rgb, replace_y(colour, result)
    result = np.clip(result, 0, 255)
    if choices.round_result:
        result = to_uint8(result).astype(np.float64)
    px = scale if choices.shave else 0
    error = np.mean((shave(reference, px) - shave(result, px)) ** 2)
    return float(10 * np.log10(255**2 / error))


def upscaled(image: Array, scale: int, choices: Choices) -> Array:
    """``image`` [H, W] down and up again."""
    height, width = image.shape
    lr = choices.resample(image, height // scale, width // scale)
    lr = to_uint8(lr).astype(np.float64) if choices.round_lr else lr
    return choices.resample(lr, height, width)


if __name__ == "__main__":
    cli.run(main)
