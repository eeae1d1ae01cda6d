"""python -m evaluation.upscale: one picture, enlarged, for a person to look at."""

import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath

import numpy as np
from PIL import Image

from evaluation.metrics import UInt8Array
from evaluation.options import output_file
from evaluation.pictures import read_picture
from evaluation.tiles import bands
from evaluation.upscalers import BICUBIC, Bicubic, Network, Upscaler, load_network
from pipelines.command import cli
from pipelines.command.fields import argument_type
from trainer import files

# Of the shipped models the best that has all of x2, x3 and x4.
DEFAULT_MODEL = "srcnn-915"
JPEG_QUALITY = 95


def main(argv: Sequence[str]) -> None:
    """Runs the command. Raises UsageError, and writes nothing, for wrong arguments or input."""
    arguments = parser().parse_args(argv)
    save_format = _save_format(arguments.output)
    picture = read_picture(arguments.input)
    upscaler = _upscaler(arguments.model, arguments.scale)
    enlarged = Image.fromarray(upscale(picture.rgb, upscaler, arguments.scale))
    buffer = io.BytesIO()
    enlarged.save(buffer, save_format, quality=JPEG_QUALITY)
    files.write(arguments.output, buffer.getvalue())
    sys.stdout.write(
        f"{arguments.output}: {enlarged.width}x{enlarged.height} pixels by {upscaler.name}\n"
    )


def upscale(lr: UInt8Array, upscaler: Upscaler, scale: int) -> UInt8Array:
    """An RGB picture [H, W, 3] enlarged to [scale * H, scale * W, 3]."""
    enlarge = partial(upscaler.enlarge, white=255, scale=scale)
    return np.concatenate([*bands(enlarge, lr, upscaler.lr_reach_px(scale), scale)])


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.upscale", "Enlarges one picture; transparent parts become white."
    )
    options.add_argument("input", metavar="INPUT", help="the picture")
    options.add_argument(
        "output",
        type=output_file,
        metavar="OUTPUT",
        help="its suffix is its format: .png, .jpg",
    )
    options.add_argument(
        "--model", default=DEFAULT_MODEL, help="run folder, .npz file, shipped model or bicubic"
    )
    options.add_argument(
        "--scale", type=argument_type(int, at_least=2), default=2, metavar="N", help="of each side"
    )
    return options


def _upscaler(model: str, scale: int) -> Upscaler:
    if model == BICUBIC:
        return Bicubic()
    network = Network(load_network(model))
    if network.scales and scale not in network.scales:
        trained = ",".join(map(str, network.scales))
        raise cli.UsageError(f"--scale {scale}: {network.name} was trained for {trained}")
    return network


def _save_format(path: str) -> str:
    suffix = PurePath(path).suffix
    name = Image.registered_extensions().get(suffix.lower())
    if name not in Image.SAVE:
        raise cli.UsageError(f"{path}: no picture format is known by {suffix!r}, use .png")
    return name


if __name__ == "__main__":
    cli.run(main, leave=os._exit)  # tensorflow-io would abort while Python shuts down
