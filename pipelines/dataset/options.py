"""What a build is told: the options that decide bytes, and apart from them those that do not."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SPLITS = ("train", "validation", "test")


class Degradation(StrEnum):
    """The ways from HR to LR."""

    ARTICLE = "article"
    """Pillow's bicubic, then BLUR: what the article's code does today."""
    ARTICLE_NEAREST = "article-nearest"
    """Nearest neighbour, then BLUR: what it did under Pillow before version 7."""
    BICUBIC = "bicubic"
    """MATLAB's antialiased bicubic: what the papers use."""


@dataclass(frozen=True)
class DatasetOptions:
    """Everything that, beside the list and the servers' answers, decides the dataset's bytes."""

    wnids: tuple[str, ...] = ()
    """Only lines of these classes; none means all."""
    limit: int | None = None
    """Only so many lines, in the list's order."""
    seed: int = 0
    num_shards: int | None = None
    """Of the train split; None: one per 5,000 selected lines, at least 16."""
    crop_size: int = 200
    crops_per_image: int = 1
    crop_margin: float = 0.1
    """The part of each side that no crop touches."""
    scales: tuple[int, ...] = (2, 3, 4)
    degradation: Degradation = Degradation.ARTICLE
    splits: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.98, "validation": 0.01, "test": 0.01}
    )
    max_bytes: int = 20_000_000
    robots: bool = True
    """robots.txt is obeyed."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts whose private or loopback address may be reached."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for build.json and dataset.json; from_json gives the same options."""
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DatasetOptions":
        """Raises KeyError, TypeError or ValueError for what to_json did not write."""
        options = dict(values)
        for name in ("wnids", "scales", "allow_hosts"):
            options[name] = tuple(options[name])
        options["degradation"] = Degradation(options["degradation"])
        return cls(**options)
