"""python -m evaluation: scores models on test pictures and appends the results to a CSV."""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence

from evaluation import results
from evaluation.memory import Memory
from evaluation.options import (
    add_model_options,
    add_picture_options,
    add_protocol_options,
    open_pictures,
    output_file,
    scales_to_score,
)
from evaluation.protocols import PROTOCOLS
from evaluation.results import PictureResult, Result, format_table
from evaluation.rows import degradation_of, evaluate
from evaluation.scoring import refuse_networks, refuse_unfit
from evaluation.upscalers import load_upscalers, warn_of_scales
from pipelines.command import cli
from trainer import files


def main(argv: Sequence[str]) -> None:
    """Runs the command. Raises UsageError, and writes nothing, for wrong arguments or input."""
    arguments = parser().parse_args(argv)
    results.check(arguments.output, Result)
    if arguments.per_image is not None:
        results.check(arguments.per_image, PictureResult)
        if arguments.per_image == arguments.output:
            raise cli.UsageError("--per-image and --output are the same file: they hold other rows")
    protocol = PROTOCOLS[arguments.protocol]
    pictures = open_pictures(arguments)
    scales = scales_to_score(arguments.scales, pictures, protocol)
    refuse_unfit([(pictures, protocol, scales)], arguments.shave)
    upscalers = load_upscalers(arguments.models, self_ensemble=arguments.self_ensemble)
    refuse_networks(upscalers, protocol)
    scales = scales_to_score(arguments.scales, pictures, protocol, upscalers)
    warn_of_scales(upscalers, scales)
    with Memory(_memory_path(arguments)) as memory:
        rows, picture_rows, failures = evaluate(
            pictures, protocol, upscalers, scales, arguments.shave, memory
        )
        results.append(arguments.output, rows)
        if arguments.per_image is not None:
            results.append(arguments.per_image, picture_rows)
        memory.forget()
    sys.stdout.write(
        f"{pictures}, protocol {protocol.name}, LR by {degradation_of(pictures, protocol)}, "
        f"{len(pictures)} pictures, PSNR in dB\n"
        f"{format_table(rows)}"
        f"added to {arguments.output}\n"
    )
    if failures:
        raise cli.WorkError(f"{len(failures)} not scored, all else is: {'; '.join(failures)}")


def _memory_path(arguments: argparse.Namespace) -> str:
    """Of what this very command has scored, should it be interrupted."""
    told = json.dumps(vars(arguments), sort_keys=True)
    name = f"unfinished-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    if files.is_local(arguments.output):
        return f"{arguments.output}.{name}"
    return files.join(arguments.output, name)


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation", "PSNR and SSIM of models on test pictures, appended to a CSV."
    )
    add_picture_options(options)
    add_model_options(options)
    add_protocol_options(options)
    options.add_argument(
        "--output",
        type=output_file,
        default="results.csv",
        metavar="CSV",
        help="one row a model and scale is appended; an s3:// path is a folder, and this run's "
        "rows a CSV of their own in it",
    )
    options.add_argument(
        "--per-image",
        type=output_file,
        metavar="CSV",
        help="a row a picture is appended there, or added to that s3:// folder",
    )
    return options


if __name__ == "__main__":
    cli.run(main)
