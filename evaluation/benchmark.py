"""python -m evaluation.benchmark: the scheduled rerun, its history, and what became worse."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from evaluation import results
from evaluation.evaluate import evaluate
from evaluation.options import add_model_options, output_folder, scales_to_score
from evaluation.pictures import HASH_DIGITS, PictureSet, dataset_pictures, folder_pictures
from evaluation.protocols import PROTOCOLS, Protocol
from evaluation.results import Result, format_table
from evaluation.scoring import fits
from evaluation.upscalers import BICUBIC, Upscaler, load_upscalers
from pipelines.command import cli
from pipelines.command.cli import UsageError, WorkError
from pipelines.command.fields import argument_type
from trainer import files

HISTORY, REPORT = "history.csv", "report.html"
Key = tuple[str, str, str, int, int, str, str]
"""Dataset, split, protocol, scale, shave, model, weights: what is scored once."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """What an interrupted run loses at most: one set of pictures at one scale."""

    pictures: PictureSet
    protocol: Protocol
    scale: int
    upscalers: tuple[Upscaler, ...]

    def key(self, upscaler: Upscaler) -> Key:
        """That of the row which scoring ``upscaler`` gives."""
        return (
            self.pictures.dataset,
            self.pictures.split,
            self.protocol.name,
            self.scale,
            self.protocol.shave_px(self.scale),
            upscaler.name,
            upscaler.weights[:HASH_DIGITS],
        )

    def run(self, done: set[Key]) -> list[Result]:
        """The rows whose keys are not in ``done``."""
        missing = [upscaler for upscaler in self.upscalers if self.key(upscaler) not in done]
        if not missing:
            return []
        # Without bicubic there is no gain.
        scored = missing if missing[0].name == BICUBIC else [self.upscalers[0], *missing]
        rows, _ = evaluate(self.pictures, self.protocol, scored, [self.scale])
        return [row for row in rows if key_of(row) not in done]


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises UsageError for wrong arguments or input, among them pictures or weights that are not
    those of the same name in the baseline; WorkError where a PSNR dropped.
    """
    arguments = parser().parse_args(argv)
    baseline = results.read(arguments.baseline, Result) if arguments.baseline else []
    pieces = list(_pieces(arguments))
    check_same_inputs(pieces, baseline)
    rows = run(pieces, arguments.output, again=arguments.again)
    report = files.join(arguments.output, REPORT)
    sys.stdout.write(f"{_tables(rows)}{report}: open it in a browser\n")
    drops = regressions(rows, baseline, arguments.tolerance_db)
    if drops:
        sys.stdout.write("".join(f"{line}\n" for line in drops))
        raise WorkError(f"{len(drops)} PSNRs dropped by more than {arguments.tolerance_db} dB")


def run(pieces: Sequence[Piece], output: str, *, again: bool = False) -> list[Result]:
    """Appends to the history what it does not hold, or everything; the newest row of each."""
    from evaluation import page  # with matplotlib, which takes a second to import

    history = files.join(output, HISTORY)
    before = results.read(history, Result) if files.exists(history) else []
    done = {key_of(row) for row in before}
    files.make_folder(output)
    for number, piece in enumerate(pieces, 1):
        _logger.info(
            "%d of %d: %s, %s, x%d",
            number, len(pieces), piece.pictures, piece.protocol.name, piece.scale,
        )  # fmt: skip
        results.append(history, piece.run(set() if again else done))
    everything = results.read(history, Result)
    files.write(files.join(output, REPORT), page.render(everything, []).encode())
    newest = {key_of(row): row for row in everything}
    return [newest[piece.key(upscaler)] for piece in pieces for upscaler in piece.upscalers]


def key_of(row: Result) -> Key:
    """Of a row of results."""
    return (
        row.dataset, row.split, row.protocol, row.scale, row.shave_px, row.model, row.weights
    )  # fmt: skip


def check_same_inputs(pieces: Sequence[Piece], baseline: Sequence[Result]) -> None:
    """Raises UsageError where the baseline has other pictures or weights under the same name."""
    datasets = {(_folder(row.dataset), row.split): row.dataset for row in baseline}
    weights = {row.model: row.weights for row in baseline}
    for piece in pieces:
        dataset, split = piece.pictures.dataset, piece.pictures.split
        known = datasets.get((_folder(dataset), split), dataset)
        if known != dataset:
            raise UsageError(
                f"the pictures are {dataset}, those of the baseline {known}: that is no "
                "regression; restore them, or make a new baseline"
            )
        for upscaler in piece.upscalers:
            digest = upscaler.weights[:HASH_DIGITS]
            if weights.get(upscaler.name, digest) != digest:
                raise UsageError(
                    f"the weights of {upscaler.name} are {digest}, those of the baseline "
                    f"{weights[upscaler.name]}: rename the model, or make a new baseline"
                )


def regressions(
    rows: Sequence[Result], baseline: Sequence[Result], tolerance_db: float
) -> list[str]:
    """A line for each row whose PSNR is more than the tolerance below the baseline's."""
    before = {key_of(row): row for row in baseline}
    return [
        f"dropped: {row.dataset} {row.protocol} {row.model} x{row.scale} {row.psnr_db:.4f} dB, "
        f"{row.psnr_db - known.psnr_db:+.4f} since {known.run_at} ({known.commit})"
        for row in rows
        # A PSNR that is no number any more is a drop too.
        if (known := before.get(key_of(row))) and not row.psnr_db >= known.psnr_db - tolerance_db
    ]


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.benchmark",
        "Scores every set of pictures with every model and keeps the history. What was scored "
        "before, with the same pictures and weights, is not scored again.",
    )
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--benchmarks", metavar="DIR", help="folder of folders of HR pictures")
    source.add_argument("--data", metavar="DIR", help="dataset folder: its test split instead")
    add_model_options(options)
    options.add_argument(
        "--protocols",
        nargs="+",
        choices=sorted(PROTOCOLS),
        default=sorted(PROTOCOLS),
        help="how to score: each of them in turn",
    )
    options.add_argument(
        "--output",
        type=output_folder,
        required=True,
        metavar="DIR",
        help=f"of {HISTORY} (on s3:// a folder of one CSV a run) and {REPORT}",
    )
    options.add_argument("--again", action="store_true", help="score everything again")
    options.add_argument("--baseline", metavar="CSV", help="results to compare with")
    options.add_argument(
        "--tolerance-db",
        type=argument_type(float, at_least=0),
        default=0.02,
        metavar="DB",
        help="a larger drop is an error",
    )
    return options


def _pieces(arguments: argparse.Namespace) -> Iterator[Piece]:
    upscalers = load_upscalers(arguments.models)
    for pictures in _picture_sets(arguments):
        for protocol in (PROTOCOLS[name] for name in arguments.protocols):
            for scale in scales_to_score(arguments.scales, pictures, protocol):
                fitting = tuple(upscaler for upscaler in upscalers if fits(upscaler, scale))
                yield Piece(pictures, protocol, scale, fitting)


def _picture_sets(arguments: argparse.Namespace) -> list[PictureSet]:
    if arguments.data:
        return [dataset_pictures(arguments.data, "test")]
    root = Path(arguments.benchmarks)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not folders:
        raise UsageError(f"{arguments.benchmarks} is not a local folder of folders of pictures")
    return [folder_pictures(str(folder)) for folder in folders]


def _tables(rows: Sequence[Result]) -> str:
    groups = groupby(rows, key=lambda row: (row.dataset, row.split, row.protocol))
    return "".join(
        f"{dataset} {split}".rstrip() + f", protocol {protocol}\n{format_table(list(group))}\n"
        for (dataset, split, protocol), group in groups
    )


def _folder(dataset: str) -> str:
    return dataset.partition("@")[0]


if __name__ == "__main__":
    cli.run(main, leave=os._exit)  # tensorflow-io would abort while Python shuts down
