"""python -m pipelines.show: a finished dataset as one HTML page to look at."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.fields import argument_type


def main(arguments: Sequence[str]) -> None:
    """Writes the page that the arguments ask for. Raises UsageError or WorkError."""
    options, beam_flags = parser().parse_known_args(arguments)
    # With Beam and pyarrow, which take seconds to import.
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.manifest import Manifest
    from pipelines.inspect.dataset_page import render
    from pipelines.inspect.selection import choose
    from pipelines.inspect.summary import summarize

    reach_stores(beam_flags)
    folder = DatasetFolder(options.data.rstrip("/"))
    manifest = Manifest.load(folder.root)
    try:
        summary = summarize(folder)
        examples = list(choose(folder, manifest, options.count))
    except (OSError, ValueError) as error:
        raise cli.WorkError(f"{error} (python -m pipelines.verify checks all of it)") from None
    html = render(folder, manifest, summary, examples)
    try:
        options.output.write_text(html)
    except OSError as error:
        raise cli.WorkError(f"{options.output} cannot be written: {error.strerror}") from None
    sys.stdout.write(f"{options.output}: open it in a browser\n")


def parser() -> cli.ArgumentParser:
    """The command's options."""
    result = cli.ArgumentParser(
        "python -m pipelines.show",
        "Writes one HTML page: a contact sheet of a dataset's examples, and what became of the "
        "list. Options not listed here go to Beam (--s3_endpoint_url, ...).",
    )
    result.add_argument("data", metavar="DIR", help="dataset folder, local, gs:// or s3://")
    result.add_argument(
        "--output",
        type=cli.output_path,
        default=Path("dataset.html"),
        metavar="HTML",
        help="the page",
    )
    result.add_argument(
        "--count",
        type=argument_type(int, at_least=1),
        default=48,
        metavar="N",
        help="examples shown, evenly chosen; about 150 KB each at 200 px",
    )
    return result


if __name__ == "__main__":
    cli.run(main)
