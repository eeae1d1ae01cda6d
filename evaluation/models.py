"""python -m evaluation.models: the models that come with the package, what they reach and cost."""

import itertools
import sys
from collections.abc import Sequence

from evaluation import results
from evaluation.options import output_file
from evaluation.published import published
from evaluation.results import Cost
from pipelines.command import cli
from trainer.cards import Card, CardResult, find_card, shipped_names

_SET = "set5"
# Figures of these are on two scales: each has a column.
_PROTOCOLS = ("paper", "paper-rgb")


def main(argv: Sequence[str]) -> None:
    """Runs the command. Raises UsageError for wrong arguments or input."""
    options = parser().parse_args(argv)
    if options.measure is None:
        if options.output is not None:
            raise cli.UsageError("--output is where the costs go: it needs --measure")
        for card in filter(None, map(find_card, shipped_names())):
            sys.stdout.write(_text(card))
        return
    if options.output is not None:
        results.check(options.output, Cost)
    costs = _measured(options.measure)
    if options.output is not None:
        results.append(options.output, costs)
        sys.stdout.write(f"added to {options.output}\n")


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.models",
        "The models that come with the package; a name goes wherever a run folder does. With "
        "--measure what models cost.",
    )
    options.add_argument(
        "--measure",
        nargs="*",
        metavar="MODEL",
        help="weights, GMAC (thousand millions of multiplications, each with an addition) and "
        "milliseconds on this machine for a result of 1280x720, beside the PSNR: of run folders, "
        ".npz files and shipped models, or of all that are shipped and published (minutes)",
    )
    options.add_argument(
        "--output",
        type=output_file,
        metavar="CSV",
        help="the costs are appended there, for python -m evaluation.report --costs",
    )
    return options


def _measured(names: Sequence[str]) -> list[Cost]:
    """A line each as it comes."""
    from evaluation.costs import measure  # with numpy and the networks

    costs: list[Cost] = []
    for cost in measure(names):
        if not costs:
            sys.stdout.write(
                f"on {cost.machine}, for a result of 1280x720; PSNR in dB on Set5 by protocol\n"
                f"{'model':<26}{'weights':>10}{'GMAC':>9}{'ms':>9}"
                f"{''.join(f'{protocol:>11}' for protocol in _PROTOCOLS)}\n"
            )
        name = cost.model if cost.weights else f"{cost.model}, published"
        sys.stdout.write(
            f"{f'{name} x{cost.scale}':<26}{cost.parameters:>10,}{cost.gmac:>9.2f}{cost.ms:>9.1f}"
            f"{''.join(f'{_psnr(cost, protocol):>11}' for protocol in _PROTOCOLS)}\n"
        )
        sys.stdout.flush()
        costs.append(cost)
    return costs


def _psnr(cost: Cost, protocol: str) -> str:
    """'36.99', of the model's card or as published; '-' where neither has it."""
    found: list[float] = []
    if cost.weights:
        card = find_card(cost.model)
        found += [
            score.psnr_db
            for score in (card.scores if card else [])
            if (score.pictures, score.protocol, score.scale) == (_SET, protocol, cost.scale)
        ]
    else:
        values = published(_SET, protocol).get(cost.model, {})
        found += [psnr_db for scale, (psnr_db, _) in values.items() if scale == cost.scale]
    return f"{found[0]:.2f}" if found else "-"


def _text(card: Card) -> str:
    lines = [f"{card.name}: {card.summary}"]
    for (pictures, protocol), rows in itertools.groupby(
        card.scores, lambda score: (score.pictures, score.protocol)
    ):
        lines.append(f"  {pictures}, protocol {protocol}: {', '.join(map(_score, rows))}")
    lines.append(f"  licence: {card.licence}")
    return "\n".join(lines) + "\n\n"


def _score(score: CardResult) -> str:
    gain_db = score.psnr_db - score.bicubic_psnr_db
    return f"x{score.scale} {score.psnr_db:.2f} dB ({gain_db:+.2f}) {score.ssim:.4f}"


if __name__ == "__main__":
    cli.run(main)
