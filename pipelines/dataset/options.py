"""What a build is told: the options that decide bytes, and apart from them those that do not."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pipelines.command import fields
from pipelines.command.fields import option

SPLITS = ("train", "validation", "test")
ALL = "all"
"""Of a picture's crops: as many as lie side by side."""
_HOST = re.compile(r"[a-z0-9_.-]+")
_WNID = re.compile(r"n\d{8}(?!\d)")
_WNID_BELOW = re.compile(r"(?<=/)n\d{8}(?!\d)")


class Degradation(StrEnum):
    """The ways from HR to LR."""

    ARTICLE = "article"
    """Pillow's bicubic, then BLUR: what the article's code does today."""
    ARTICLE_NEAREST = "article-nearest"
    """Nearest neighbour, then BLUR: what it did under Pillow before version 7."""
    BICUBIC = "bicubic"
    """MATLAB's antialiased bicubic: what the papers use."""


def wnid_of(image_id: str) -> str:
    """The WordNet id that an image id, or a folder or file of its path, begins with: 'n01440764' of
    'n01440764_10120' and of 'train/n01440764/x'; or nothing."""
    match = _WNID.match(image_id) or ("/" in image_id and _WNID_BELOW.search(image_id))
    return match.group() if match else ""


def _wnids(given: str | Iterable[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else list(given)
    wrong = [name for name in names if not _WNID.fullmatch(name)]
    if wrong and isinstance(given, str):
        with suppress(OSError):  # no file, or a list so long that no file can have its name
            names = Path(given).read_text(errors="replace").split()
            wrong = [name for name in names if not _WNID.fullmatch(name)]
    if wrong or (given and not names):
        first = wrong[0] if wrong else given
        raise ValueError(f"{first!r} is neither a file nor a WordNet id such as n01440764")
    return tuple(sorted(set(names)))


def _splits(given: str | Mapping[str, float]) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in given.split(",")] if isinstance(given, str) else given
        parts = {name.strip(): float(part) for name, part in dict(pairs).items()}
    except (ValueError, TypeError):
        example = "train=0.98,validation=0.01,test=0.01"
        raise ValueError(f"must be of the form {example}, not {given!r}") from None
    if unknown := parts.keys() - set(SPLITS):
        raise ValueError(f"has {min(unknown)!r}, which is none of {', '.join(SPLITS)}")
    if not (min(parts.values()) >= 0 and abs(sum(parts.values()) - 1) <= 1e-6):
        raise ValueError(f"must have parts that sum to 1, not {given!r}")
    return {name: parts.get(name, 0.0) for name in SPLITS}


def _crops(given: str | int) -> int | str:
    if given == ALL:
        return ALL
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"must be a whole number of at least 1 or {ALL}, not {given!r}")
    return given


def _hosts(given: str | Iterable[str]) -> tuple[str, ...]:
    hosts = [given] if isinstance(given, str) else given
    return tuple(sorted({_host(host) for host in hosts}))


def _host(text: str) -> str:
    host = text.lower().strip("[]")
    with suppress(ValueError):
        return str(ip_address(host))
    # Numbers alone would be an address in another spelling, or a part of one.
    if not _HOST.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdigit():
        raise ValueError(
            f"must be a host's name or IP address as in its URLs, without port or network, "
            f"not {text!r}"
        )
    return host


@dataclass(frozen=True)
class DatasetOptions:
    """Everything that, beside the list and the servers' answers, decides the dataset's bytes."""

    wnids: tuple[str, ...] = option(
        (), "only lines of these classes", metavar="FILE|ID,...", convert=_wnids
    )
    limit: int | None = option(None, "only so many lines, in the list's order", at_least=1)
    seed: int = option(0, "of splits and crops", at_least=-(1 << 63), below=1 << 63)
    num_shards: int | None = option(
        None,
        "of the train split, others in proportion",
        default_text="one per 5,000 lines, at least 16",
        at_least=1,
    )
    crop_size: int = option(200, "side of HR", metavar="PX", at_least=1)
    crops_per_image: int | str = option(
        1,
        "cut from a picture where it is large enough; no two share more than half of their pixels "
        f"while there is room. {ALL}: as many as lie side by side, for few and large pictures",
        metavar=f"N|{ALL}",
        convert=_crops,
    )
    crop_margin: float = option(
        0.1, "of each side, that no crop touches", metavar="PART", at_least=0, below=0.5
    )
    min_detail: float = option(
        0.0,
        "least mean step between neighbouring pixels of a crop, in grey levels; flatter ones are "
        "left out (2 takes 6 % of photographs' crops of 200 px)",
        metavar="LEVELS",
        at_least=0,
    )
    scales: tuple[int, ...] = option((2, 3, 4), "LR side = crop size // scale", at_least=2)
    degradation: Degradation = option(
        Degradation.ARTICLE,
        "how LR is made. article: Pillow's bicubic, then BLUR, as in the article that this project "
        "began from; article-nearest: the same by nearest neighbour, as its code did before 2020; "
        "bicubic: MATLAB's, as papers do and programs nearly: take it unless pictures are blurred",
    )
    splits: Mapping[str, float] = option(
        {"train": 0.98, "validation": 0.01, "test": 0.01},
        "parts that sum to 1",
        metavar="NAME=PART,...",
        convert=_splits,
    )
    max_bytes: int = option(
        20_000_000,
        "of a picture's file",
        metavar="BYTES",
        default_text="20000000, with --images 200000000",
        at_least=1,
    )
    max_pixels: int = option(
        40_000_000,
        "of a picture; of WebP and AVIF a little less, for the memory that their decoders take",
        metavar="N",
        default_text="40000000, with --images 120000000",
        at_least=1,
    )
    robots: bool = option(
        True,
        "whether robots.txt is asked for and obeyed; ignore is for hosts of your own",
        words=("obey", "ignore"),
    )
    allow_hosts: tuple[str, ...] = option(
        (),
        "may be reached at a private or loopback address (repeatable)",
        flag="--allow-host",
        metavar="HOST",
        repeatable=True,
        convert=_hosts,
    )

    def margin_px(self, side: int) -> int:
        """At each end of a side of so many px, where no crop lies."""
        return int(side * self.crop_margin)

    def to_json(self) -> dict[str, Any]:
        """Plain values for build.json and dataset.json; from_json gives the same options."""
        return fields.to_plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DatasetOptions":
        """Raises TypeError or ValueError for what to_json did not write."""
        return cls(**fields.read(cls, values))


AT_HAND = DatasetOptions(max_bytes=200_000_000, max_pixels=120_000_000)
"""The defaults for pictures at hand: one's own camera is no stranger."""
