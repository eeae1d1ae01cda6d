"""python -m evaluation.benchmark: the scheduled rerun, its history, and what became worse."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath

from evaluation import baseline, results
from evaluation.baseline import Baseline, Key, folder_of, key_of
from evaluation.memory import Memory
from evaluation.options import PROTOCOL_HELP, add_model_options, output_folder, scales_to_score
from evaluation.pictures import HASH_DIGITS, PictureSet, dataset_pictures, folder_pictures
from evaluation.protocols import PROTOCOLS, Protocol
from evaluation.results import Result, format_table
from evaluation.rows import degradation_of, evaluate
from evaluation.scoring import fits, refuse_networks, refuse_unfit
from evaluation.upscalers import BICUBIC, Upscaler, load_upscalers, trained_on, warn_of_scales
from pipelines.command import cli
from pipelines.command.cli import UsageError, WorkError
from pipelines.command.fields import argument_type
from trainer import files

HISTORY, REPORT, UNFINISHED = "history.csv", "report.html", "unfinished"
Scales = tuple[int, ...]
Made = tuple[Key, str, str]
"""What is scored, the set with the hash of its pictures, and the weights."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """One set of pictures at one scale."""

    pictures: PictureSet
    protocol: Protocol
    scale: int
    upscalers: tuple[Upscaler, ...]

    def __str__(self) -> str:
        return f"{self.pictures}, {self.protocol.name}, x{self.scale}"

    def key(self, upscaler: Upscaler) -> Key:
        """That of the row which scoring ``upscaler`` gives."""
        return Key(
            folder_of(self.pictures.dataset), self.pictures.split, self.protocol.name, self.scale,
            self.protocol.shave_px(self.scale), upscaler.name,
        )  # fmt: skip

    def made(self, upscaler: Upscaler) -> Made:
        """As ``made_of`` says of that row."""
        return self.key(upscaler), self.pictures.dataset, upscaler.weights[:HASH_DIGITS]


def made_of(row: Result) -> Made:
    """With which pictures and weights a row was made."""
    return key_of(row), row.dataset, row.weights


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises UsageError for wrong arguments or input, among them a baseline that has other pictures
    or nothing of what is scored; WorkError where a PSNR dropped, or something was not scored.
    """
    arguments = parser().parse_args(argv)
    history = files.join(arguments.output, HISTORY)
    before = _read_baseline(arguments, history)
    pieces = _pieces(arguments)
    if arguments.baseline and not arguments.update_baseline:
        check_comparable(pieces, before, arguments.baseline)
    files.make_folder(arguments.output)
    rows, failures = run(pieces, history, reuse=arguments.reuse)
    now = {key_of(row): row for row in rows} if arguments.update_baseline else before
    report = _write_report(arguments, history, now)
    sys.stdout.write(f"{_tables(rows)}{report}: open it in a browser\n")
    if arguments.baseline is None:
        sys.stdout.write(f"{len(rows)} scored, compared with nothing: there is no --baseline\n")
    else:
        failures = _compare(arguments, rows, before, failures)
    if failures:
        raise WorkError("; ".join(failures))


def _compare(
    arguments: argparse.Namespace, rows: Sequence[Result], before: Baseline, failures: list[str]
) -> list[str]:
    """Prints what came of the comparison; ``failures`` and those that it adds."""
    verdict = baseline.judge(rows, before, arguments.tolerance_db)
    if before:
        sys.stdout.write("".join(f"{line}\n" for line in verdict.lines))
    if arguments.update_baseline:
        if not failures:
            baseline.write(arguments.baseline, rows)
            sys.stdout.write(f"{arguments.baseline}: the baseline from now on, {len(rows)} rows\n")
    else:
        # Such a run was left out with no more than a warning.
        paths = [PurePath(name) for name in arguments.models]
        asked = {name for path in paths for name in (path.name, path.stem)}
        lost = sorted({key.model for key in verdict.missing if key.model in asked})
        failures = [*failures, *(f"{model} of the baseline was not scored" for model in lost)]
        if verdict.drops:
            failures.insert(
                0, f"{verdict.drops} PSNRs dropped by more than {arguments.tolerance_db} dB"
            )
    sys.stdout.write(f"{verdict}\n")
    return failures


def _read_baseline(arguments: argparse.Namespace, history: str) -> Baseline:
    """Raises UsageError where there is none to read, but for one that this run begins."""
    path = arguments.baseline
    if not arguments.update_baseline:
        if path and not files.exists(path):
            raise UsageError(f"there is no baseline {path}: --update-baseline begins one")
        before = baseline.read(path) if path else {}
        if path and not before:
            raise UsageError(f"{path} has no row to compare with: --update-baseline writes some")
        return before
    if path is None:
        raise UsageError("--update-baseline needs --baseline CSV, the file to write")
    if path == history or files.is_folder(path):
        raise UsageError(f"--update-baseline would replace {path}: name a file of its own")
    return baseline.read(path) if files.exists(path) else {}


def check_comparable(pieces: Sequence[Piece], before: Baseline, path: str) -> None:
    """Raises UsageError where the baseline has other pictures, or nothing of what is scored."""
    datasets = {(key.folder, key.split): row.dataset for key, row in before.items()}
    for piece in pieces:
        dataset = piece.pictures.dataset
        known = datasets.get((folder_of(dataset), piece.pictures.split), dataset)
        if known != dataset:
            raise UsageError(
                f"the pictures are {dataset}, those of the baseline {known}: that is no "
                "regression; restore them, or make a new baseline by --update-baseline"
            )
    keys = [piece.key(upscaler) for piece in pieces for upscaler in piece.upscalers]
    if not before.keys() & set(keys):
        raise UsageError(
            f"nothing of {keys[0]}, … is in the baseline {path}, which has "
            f"{next(iter(before))}, …: nothing could be compared"
        )


def run(
    pieces: Sequence[Piece], history: str, *, reuse: bool = False
) -> tuple[list[Result], list[str]]:
    """Scores everything and appends it to the history; its rows, and what could not be scored.

    With ``reuse`` what the history has with the same pictures and weights is not scored again.
    """
    if files.exists(history):
        results.check(history, Result)
    known = results.read(history, Result) if reuse and files.exists(history) else []
    made = {made_of(row): row for row in known}
    new: list[Result] = []
    failures: list[str] = []
    with Memory(files.join(history.removesuffix(HISTORY), UNFINISHED)) as memory:
        for number, piece in enumerate(pieces, 1):
            missing = [one for one in piece.upscalers if piece.made(one) not in made]
            if not missing:
                continue
            _logger.info("%d of %d: %s", number, len(pieces), piece)
            # Without bicubic there is no gain.
            scored = missing if missing[0].name == BICUBIC else [piece.upscalers[0], *missing]
            done = evaluate(piece.pictures, piece.protocol, scored, [piece.scale], memory=memory)
            new += [row for row in done.rows if made_of(row) not in made]
            failures += [f"{piece}: {failure}" for failure in done.failures]
        results.append(history, new)
        memory.forget()
    made |= {made_of(row): row for row in new}
    wanted = (piece.made(upscaler) for piece in pieces for upscaler in piece.upscalers)
    return [made[one] for one in wanted if one in made], failures


def _write_report(arguments: argparse.Namespace, history: str, before: Baseline) -> str:
    from evaluation import page  # with matplotlib, which takes a second to import

    report = files.join(arguments.output, REPORT)
    line = page.Line(before, arguments.tolerance_db)
    text = page.render(results.read(history, Result), [], line)
    files.write(report, text.encode())
    return report


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.benchmark",
        "Scores every set of pictures with every model, keeps the history, and compares with a "
        "baseline: status 1 where a PSNR dropped, 2 where nothing could be compared.",
    )
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--benchmarks", metavar="DIR", help="folder of folders of HR pictures")
    source.add_argument("--data", metavar="DIR", help="dataset folder: its test split instead")
    add_model_options(options)
    options.add_argument(
        "--protocols",
        nargs="+",
        choices=sorted(PROTOCOLS),
        help=f"how to score, each in turn. {PROTOCOL_HELP} (default: for each model those that "
        "make LR as its training did)",
    )
    options.add_argument(
        "--output",
        type=output_folder,
        required=True,
        metavar="DIR",
        help=f"of {HISTORY} (on s3:// a folder of one CSV a run) and {REPORT}",
    )
    options.add_argument(
        "--reuse",
        action="store_true",
        help="do not score again what the history has with the same pictures and weights",
    )
    options.add_argument(
        "--baseline",
        metavar="CSV",
        help="results to compare with, by set, protocol, scale and the model's name",
    )
    options.add_argument(
        "--update-baseline",
        action="store_true",
        help="write this run's results to the baseline's file; a drop is no error then",
    )
    options.add_argument(
        "--tolerance-db",
        type=argument_type(float, at_least=0),
        default=0.02,
        metavar="DB",
        help="a larger drop of any PSNR is an error; tables have two digits, so less is seen by "
        "nobody",
    )
    return options


def _pieces(arguments: argparse.Namespace) -> list[Piece]:
    sets, named = _picture_sets(arguments), arguments.protocols
    protocols = [PROTOCOLS[name] for name in named or sorted(PROTOCOLS)]
    refuse_unfit(
        _work(arguments, [(each, protocol, []) for each in sets for protocol in protocols])
    )
    upscalers = load_upscalers(arguments.models, self_ensemble=arguments.self_ensemble)
    if named:
        scored = {each.name: _scored_by(each, upscalers, protocols) for each in protocols}
        chosen = [
            (each, protocol, scored[protocol.name]) for each in sets for protocol in protocols
        ]
    else:
        chosen = [
            (each, protocol, ours) for each in sets for protocol, ours in made_for(each, upscalers)
        ]
    work = _work(arguments, chosen)
    refuse_unfit(work)
    warn_of_scales(upscalers, {scale for *_, scales in work for scale in scales})
    return [
        Piece(pictures, protocol, scale, tuple(one for one in ours if fits(one, scale)))
        for (pictures, protocol, ours), (*_, scales) in zip(chosen, work, strict=True)
        for scale in scales
    ]


def _work(
    arguments: argparse.Namespace, chosen: Sequence[tuple[PictureSet, Protocol, list[Upscaler]]]
) -> list[tuple[PictureSet, Protocol, Scales]]:
    return [
        (pictures, protocol, scales_to_score(arguments.scales, pictures, protocol, upscalers))
        for pictures, protocol, upscalers in chosen
    ]


def made_for(
    pictures: PictureSet, upscalers: Sequence[Upscaler]
) -> list[tuple[Protocol, list[Upscaler]]]:
    """The protocols whose LR is made as in a network's training, each with bicubic and those
    networks: of Y by ``paper``, of RGB by ``paper-rgb``, of either by ``article``. That also has
    the networks that none is made for; with no network at all there are ``article`` and ``paper``.
    """
    networks = [one for one in upscalers if one.weights]
    found: dict[str, list[Upscaler]] = {name: [] for name in sorted(PROTOCOLS)}
    for network in networks:
        suited = [
            name
            for name, other in {"article": "", "paper": "rgb", "paper-rgb": "y"}.items()
            if network.channels != other
            and trained_on(network) in (None, degradation_of(pictures, PROTOCOLS[name]))
        ]
        for name in suited or ["article"]:
            found[name].append(network)
    return [
        (PROTOCOLS[name], [one for one in upscalers if one in ours or not one.weights])
        for name, ours in found.items()
        if ours or not (networks or name == "paper-rgb")
    ]


def _scored_by(
    protocol: Protocol, upscalers: Sequence[Upscaler], protocols: Sequence[Protocol]
) -> list[Upscaler]:
    """Those that it scores. Raises UsageError for a network that none of ``protocols`` scores."""
    found = []
    for upscaler in upscalers:
        if protocol.scores(upscaler.channels):
            found.append(upscaler)
        elif any(other.scores(upscaler.channels) for other in protocols):
            _logger.warning(
                "%s makes RGB and is left out of protocol %s; paper-rgb scores it",
                upscaler.name, protocol.name,
            )  # fmt: skip
        else:
            refuse_networks([upscaler], protocol)
    return found


def _picture_sets(arguments: argparse.Namespace) -> list[PictureSet]:
    if arguments.data:
        return [dataset_pictures(arguments.data, "test")]
    root = Path(arguments.benchmarks)
    inside = sorted(root.iterdir()) if root.is_dir() else []
    folders = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        raise UsageError(f"{arguments.benchmarks} is not a local folder of folders of pictures")
    return [folder_pictures(str(folder)) for folder in folders]


def _tables(rows: Sequence[Result]) -> str:
    groups = groupby(rows, key=lambda row: (row.dataset, row.split, row.protocol))
    return "".join(
        f"{dataset} {split}".rstrip() + f", protocol {protocol}\n{format_table(list(group))}\n"
        for (dataset, split, protocol), group in groups
    )


if __name__ == "__main__":
    cli.run(main)
