"""python -m evaluation.models: the models that come with the package, and what they reach."""

import itertools
import sys
from collections.abc import Sequence

from pipelines.command import cli
from trainer.cards import Card, CardResult, find_card, shipped_names


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    cli.ArgumentParser(
        "python -m evaluation.models",
        "The models that come with the package; a name goes wherever a run folder does.",
    ).parse_args(argv)
    for card in filter(None, map(find_card, shipped_names())):
        sys.stdout.write(_text(card))


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
