"""The models that come with the package: weights/NAME.yaml, a card, and the weights it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class CardResult:
    """A mean over a set of pictures."""

    pictures: str
    """As a folder of them is called: set5."""
    protocol: str
    scale: int
    bicubic_psnr_db: float
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Card:
    """What a shipped model is, how it was made, and what it reaches."""

    name: str
    summary: str
    architecture: str
    """'srcnn' or 'vdsr'."""
    channels: str
    """'rgb' or 'y'."""
    degradation: str
    """Of the training data, a value of Degradation."""
    weights: Mapping[str, list[int]]
    """The scales that each file in weights/ is for."""
    training: Mapping[str, Any]
    """Data, commands, commit, steps, device, seed: for a person to read."""
    licence: str
    """What limits the use of the training pictures."""
    results: list[Mapping[str, Any]]

    @property
    def scales(self) -> tuple[int, ...]:
        """Of all files."""
        return tuple(sorted(scale for scales in self.weights.values() for scale in scales))

    @cached_property
    def scores(self) -> list[CardResult]:
        """The results by name."""
        return [CardResult(**row) for row in self.results]


def shipped_names() -> list[str]:
    """Of all shipped models, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.yaml"))


def find_card(name: str) -> Card | None:
    """The shipped model of that name, or None."""
    if name not in shipped_names():
        return None
    return Card(name, **yaml.safe_load((WEIGHTS / f"{name}.yaml").read_text()))
