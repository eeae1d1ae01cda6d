"""python -m pipelines.show: a finished dataset as one HTML page, or how far its build has come."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.fields import argument_type
from pipelines.command.stores import store_reason

if TYPE_CHECKING:
    from pipelines.build.view import View
    from pipelines.dataset.folder import DatasetFolder


def main(arguments: Sequence[str]) -> None:
    """Writes the page that the arguments ask for, once the dataset is finished.

    Raises UsageError or WorkError.
    """
    options, beam_flags = parser().parse_known_args(arguments)
    # With Beam and pyarrow, which take seconds to import.
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.manifest import Manifest
    from pipelines.inspect.dataset_page import render
    from pipelines.inspect.selection import choose
    from pipelines.inspect.summary import summarize

    reach_stores(beam_flags)
    folder = DatasetFolder(options.data.rstrip("/"))
    if not _is_finished(folder):
        return
    manifest = Manifest.load(folder.root)
    try:
        summary = summarize(folder)
        examples = list(choose(folder, manifest, options.count))
    except (OSError, ValueError) as error:
        raise cli.WorkError(
            f"{store_reason(error)} (python -m pipelines.verify checks all of it)"
        ) from None
    html = render(folder, manifest, summary, examples)
    try:
        options.output.write_text(html, "utf-8")
    except OSError as error:
        raise cli.WorkError(f"{options.output} cannot be written: {error.strerror}") from None
    sys.stdout.write(f"{options.output}: open it in a browser\n")


def _is_finished(folder: "DatasetFolder") -> bool:
    """Whether no build is under way; else tells of it, on a terminal as long as it goes on."""
    shown = 0
    while True:
        view = _view(folder)
        if view is None:
            return True
        lines = view.text.splitlines()
        again = view.goes_on and sys.stdout.isatty()
        if again:
            lines = [line[: shutil.get_terminal_size().columns - 1] for line in lines]
        # Over what was shown before.
        over = f"\x1b[{shown}F\x1b[J" if shown else ""
        sys.stdout.write(over + "\n".join(lines) + "\n")
        sys.stdout.flush()
        if not again:
            return False
        shown = len(lines)
        time.sleep(folder.progress_interval_s)


def _view(folder: "DatasetFolder") -> "View | None":
    from pipelines.build.view import look

    try:
        return look(folder)
    except FileNotFoundError:  # the build has just removed it
        time.sleep(folder.progress_interval_s)
        return look(folder)


def parser() -> cli.ArgumentParser:
    """The command's options."""
    result = cli.ArgumentParser(
        "python -m pipelines.show",
        "Writes one HTML page: a contact sheet of a dataset's examples, and what became of the "
        "list. While the dataset is built it prints how far the build has come instead, on a "
        "terminal again and again until it is finished. Options not listed here go to Beam "
        "(--s3_endpoint_url, ...).",
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
