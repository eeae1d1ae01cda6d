"""python -m evaluation.report: one self-contained HTML page of results and pictures."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from evaluation import results
from evaluation.options import (
    add_model_options,
    add_picture_options,
    add_protocol_options,
    open_pictures,
    output_file,
    output_folder,
    scales_to_score,
)
from evaluation.protocols import PROTOCOLS
from evaluation.results import Cost, Result
from evaluation.upscalers import load_upscalers
from pipelines.command import cli
from pipelines.command.fields import argument_type
from trainer import files


def main(argv: Sequence[str]) -> None:
    """Runs the command. Raises UsageError, and writes nothing, for wrong arguments or input."""
    arguments = parser().parse_args(argv)
    # With matplotlib and scipy, which take a second to import.
    from evaluation import page
    from evaluation.charts import to_png
    from evaluation.comparison import Comparison, compare

    rows = results.read(arguments.results, Result)
    if not rows:
        raise cli.UsageError(f"{arguments.results} has no row: make some by python -m evaluation")
    costs = results.read(arguments.costs, Cost) if arguments.costs else []
    comparisons: list[Comparison] = []
    if arguments.data or arguments.images:
        protocol = PROTOCOLS[arguments.protocol]
        pictures = open_pictures(arguments)
        upscalers = load_upscalers(arguments.models, self_ensemble=arguments.self_ensemble)
        scales = scales_to_score(arguments.scales, pictures, protocol, upscalers)
        comparisons = compare(
            replace(pictures, size=min(len(pictures), arguments.at_most)),
            protocol,
            upscalers,
            scales,
            arguments.shave,
            arguments.pictures,
        )
    linked = [replace(one, source=_address(one.source, arguments.output)) for one in comparisons]
    html = page.render(rows, linked, costs=costs)
    files.write(arguments.output, html.encode())
    if arguments.plots is not None:
        files.make_folder(arguments.plots)
        for stem, figure in page.plots(rows, costs):
            files.write(files.join(arguments.plots, f"{stem}.png"), to_png(figure))
    sys.stdout.write(f"{arguments.output}: open it in a browser\n")


def _address(source: str, page: str) -> str:
    """Of a picture as the page can link to it; empty where it cannot."""
    if "://" in source:
        return source
    known = source and files.is_local(page)
    return quote(os.path.relpath(source, Path(page).parent)) if known else ""


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.report",
        "One HTML page of a results CSV; with --data or --images also pictures to look at.",
    )
    options.add_argument(
        "--results", required=True, metavar="CSV", help="what python -m evaluation wrote"
    )
    options.add_argument(
        "--costs",
        metavar="CSV",
        help="what python -m evaluation.models --measure --output CSV wrote: PSNR is drawn against "
        "it, beside published networks",
    )
    add_picture_options(options, required=False)
    add_model_options(options)
    add_protocol_options(options)
    options.add_argument(
        "--pictures",
        type=argument_type(int, at_least=1),
        default=4,
        metavar="N",
        help="to show, of each scale",
    )
    options.add_argument(
        "--at-most",
        type=argument_type(int, at_least=1),
        default=200,
        metavar="N",
        help="pictures to choose them from: the first of the split or folder",
    )
    options.add_argument(
        "--output", type=output_file, default="report.html", metavar="HTML", help="the page"
    )
    options.add_argument(
        "--plots", type=output_folder, metavar="DIR", help="the page's plots go there as PNG too"
    )
    return options


if __name__ == "__main__":
    cli.run(main)
