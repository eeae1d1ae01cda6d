"""python -m pipelines.show: a finished dataset as one HTML page to look at."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.progress import Progress
from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS
from pipelines.dataset.tfrecord import read_records, skip_records
from pipelines.inspect.dataset_page import render
from pipelines.inspect.summary import Summary


def main(arguments: Sequence[str]) -> None:
    """Writes the page that the arguments ask for. Raises UsageError or WorkError."""
    options, beam_flags = parser().parse_known_args(arguments)
    reach_stores(beam_flags)
    folder = DatasetFolder(options.data.rstrip("/"))
    manifest = Manifest.load(folder.root)
    try:
        summary = _summarize(folder)
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
        type=cli.positive_int,
        default=48,
        metavar="N",
        help="examples shown, evenly chosen; about 150 KB each at 200 px",
    )
    return result


def _summarize(folder: DatasetFolder) -> Summary:
    summary = Summary()
    tables = folder.names("outcomes")
    with Progress("read", len(tables), unit="tables") as progress:
        for number, name in enumerate(tables, 1):
            summary.add(folder, name.partition(".")[0])
            progress.update(number)
    return summary


def choose(folder: DatasetFolder, manifest: Manifest, count: int) -> Iterator[tuple[str, Example]]:
    """(shard, example): so many, evenly over all examples of the dataset in its order."""
    total = sum(shard.examples for shard in manifest.shards.values())
    wanted = np.linspace(0, total, min(count, total), endpoint=False).astype(int).tolist()
    start = 0
    for name in [name for split in SPLITS for name in manifest.split(split)]:
        end = start + manifest.shards[name].examples
        inside = [number - start for number in wanted if start <= number < end]
        if inside:
            for example in _read(folder, name, inside):
                yield name, example
        start = end


def _read(folder: DatasetFolder, shard: str, numbers: Sequence[int]) -> Iterator[Example]:
    """The examples of these numbers, ascending, in a shard. Raises ValueError or OSError."""
    path, done = folder.examples(shard), 0
    try:
        with folder.open(path) as file:
            for number in numbers:
                skip_records(file, number - done)
                record = next(read_records(file), None)
                if record is None:
                    raise ValueError(f"no example {number}")
                yield Example.from_bytes(record)
                done = number + 1
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


if __name__ == "__main__":
    cli.run(main)
