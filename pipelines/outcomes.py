"""python -m pipelines.outcomes: what became of each line of the list."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.fields import argument_type
from pipelines.command.stores import store_reason


def main(arguments: Sequence[str]) -> None:
    """Prints totals and samples, or writes all rows. Raises UsageError or WorkError."""
    options, beam_flags = parser().parse_known_args(arguments)
    to = options.to and _to(*options.to)
    # With Beam and pyarrow, which take seconds to import.
    from pipelines.dataset.build_record import BuildRecord
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.manifest import Manifest
    from pipelines.inspect.outcome_report import Report, render, shard_tables, write

    reach_stores(beam_flags)
    folder = DatasetFolder(options.data.rstrip("/"))
    Manifest.load(folder.root)
    try:
        if to:
            count = write(shard_tables(folder), *to)
            sys.stdout.write(f"{to[1]}: {count:,} rows\n")
            return
        report = Report()
        for _, table in shard_tables(folder):
            report.add(table)
    except (OSError, ValueError) as error:
        raise cli.WorkError(
            f"{store_reason(error)} (python -m pipelines.verify checks all of it)"
        ) from None
    build = BuildRecord.load(folder)
    can_retry = build is not None and not build.source["is_folder"]
    sys.stdout.write(render(folder.root, report, options.samples, can_retry=can_retry))


def _to(kind: str, path: str) -> tuple[str, Path]:
    if kind not in ("csv", "parquet"):
        raise cli.UsageError(f"--to {kind}: it must be csv or parquet, then the file")
    try:
        return kind, cli.output_path(path)
    except argparse.ArgumentTypeError as error:
        raise cli.UsageError(f"--to: {error}") from None


def parser() -> cli.ArgumentParser:
    """The command's options."""
    result = cli.ArgumentParser(
        "python -m pipelines.outcomes",
        "Tells what became of each line of a finished dataset's list: totals, and of each outcome "
        "its most frequent causes with a line of each. Lines that the network lost can be tried "
        "again: python -m pipelines --output DIR --retry OUTCOME,... Options not listed here go "
        "to Beam (--s3_endpoint_url, ...).",
    )
    result.add_argument("data", metavar="DIR", help="dataset folder, local, gs:// or s3://")
    result.add_argument(
        "--to",
        nargs=2,
        metavar=("csv|parquet", "FILE"),
        help="write a row for each line into one file instead",
    )
    result.add_argument(
        "--samples",
        type=argument_type(int, at_least=0),
        default=3,
        metavar="N",
        help="causes shown of each outcome",
    )
    return result


if __name__ == "__main__":
    cli.run(main)
