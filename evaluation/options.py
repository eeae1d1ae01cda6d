"""The options that the commands share, and what they open."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from evaluation.pictures import PictureSet, dataset_pictures, folder_pictures
from evaluation.protocols import PROTOCOLS, Protocol
from evaluation.upscalers import BICUBIC, Upscaler
from pipelines.command.cli import ArgumentParser, UsageError, output_path
from pipelines.command.fields import argument_type
from trainer import files

DEFAULT_SCALES = (2, 3, 4)
# Few networks are made for it, and bicubic alone tells little there.
_RARE_SCALE = 8
# Beyond it nobody has published a PSNR.
MAX_SCALE = 16


def add_picture_options(parser: ArgumentParser, *, required: bool = True) -> None:
    """--data and --split, or --images."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--data", metavar="DIR", help="dataset folder, local or s3://")
    source.add_argument("--images", metavar="DIR", help="local folder of whole HR pictures")
    parser.add_argument("--split", default="test", help="of the dataset")


def add_model_options(parser: ArgumentParser) -> None:
    """--models, --self-ensemble and --scales."""
    parser.add_argument(
        "--models",
        nargs="+",
        default=[BICUBIC],
        metavar="MODEL",
        help="run folders and .npz weights files, local or s3://, and the models of "
        "python -m evaluation.models; bicubic is always scored too",
    )
    parser.add_argument(
        "--scales",
        type=argument_type(tuple[int, ...], at_least=2, below=MAX_SCALE + 1),
        metavar="N,N",
        help="such as 2,4,8 (default: the dataset's, else 2,3,4, and 8 where a model is made for "
        "it)",
    )
    add_self_ensemble_option(parser)


def add_self_ensemble_option(parser: ArgumentParser) -> None:
    """--self-ensemble."""
    parser.add_argument(
        "--self-ensemble",
        action="store_true",
        help="networks work on eight flips and turns of each picture, and the mean is the result; "
        "it takes eight times as long, and is named with a +, as vdsr+",
    )


PROTOCOL_HELP = " ".join(f"{name}: {one.sentence}" for name, one in sorted(PROTOCOLS.items()))


def add_protocol_options(parser: ArgumentParser) -> None:
    """--protocol and --shave."""
    parser.add_argument(
        "--protocol",
        choices=sorted(PROTOCOLS),
        default="article",
        help=PROTOCOL_HELP,
    )
    parser.add_argument(
        "--shave",
        type=argument_type(int, at_least=0),
        metavar="PX",
        help="pixels of each side that are not scored (default: article 0, paper the scale)",
    )


def open_pictures(arguments: argparse.Namespace) -> PictureSet:
    """What --data or --images names. Raises UsageError."""
    if arguments.data is not None:
        return dataset_pictures(arguments.data, arguments.split)
    return folder_pictures(arguments.images)


def scales_to_score(
    wanted: tuple[int, ...] | None,
    pictures: PictureSet,
    protocol: Protocol,
    upscalers: Iterable[Upscaler] = (),
) -> tuple[int, ...]:
    """``wanted``, or those there are. Raises UsageError for a scale that is not stored."""
    if wanted is None:
        rare = any(_RARE_SCALE in upscaler.scales for upscaler in upscalers)
        return pictures.scales or DEFAULT_SCALES + (_RARE_SCALE,) * rare
    stored = pictures.scales if protocol.degradation is None else ()
    missing = [scale for scale in wanted if stored and scale not in stored]
    if missing:
        raise UsageError(
            f"--scales {missing[0]}: the pictures of {pictures.dataset} are stored at "
            f"{','.join(map(str, stored))} only"
        )
    return wanted


def output_file(text: str) -> str:
    """An argparse type: the path of a file, in a local folder that exists or on a store."""
    files.check(text)
    return str(output_path(text)) if files.is_local(text) else text


def output_folder(text: str) -> str:
    """An argparse type: the path of a folder, which need not exist."""
    files.check(text)
    if files.is_local(text):
        path = Path(text)
        nearest = next((part for part in (path, *path.parents) if part.exists()), path)
        if not nearest.is_dir():
            raise argparse.ArgumentTypeError(f"{nearest} is a file")
    return text
