"""A baseline: the results that a rerun is compared with, whatever weights or code made them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evaluation import results
from evaluation.results import Result
from trainer import files


class Key(NamedTuple):
    """What is compared with each other."""

    folder: str
    """The set's name, without the hash of its pictures."""
    split: str
    protocol: str
    scale: int
    shave_px: int
    model: str

    def __str__(self) -> str:
        parts = (self.folder, self.split, self.protocol, f"x{self.scale}", self.model)
        return " ".join(filter(None, parts))


Baseline = Mapping[Key, Result]


def key_of(row: Result) -> Key:
    """Of a row of results."""
    return Key(
        folder_of(row.dataset), row.split, row.protocol, row.scale, row.shave_px, row.model
    )  # fmt: skip


def folder_of(dataset: str) -> str:
    """'set5' of 'set5@0a1b2c3d4e5f'."""
    return dataset.partition("@")[0]


def read(path: str) -> Baseline:
    """The last row of each key. Raises UsageError for what is no results CSV."""
    return {key_of(row): row for row in results.read(path, Result)}


def write(path: str, rows: Sequence[Result]) -> None:
    """Makes ``rows`` the baseline. Raises WorkError where that is not possible."""
    files.write(path, results.format_csv(rows))


@dataclass(frozen=True)
class Verdict:
    """Of comparing rows with a baseline."""

    lines: list[str]
    """What a person should know: other weights or code, what was not compared, what dropped."""
    drops: int
    compared: int
    unknown: int
    missing: list[Key]
    """What the baseline has of the same sets, protocols and scales, but nobody scored."""
    worst_db: float
    """The lowest change; NaN where a PSNR is no number any more, or nothing was compared."""

    def __str__(self) -> str:
        counts = f"{self.compared} compared, {self.unknown} not in the baseline"
        # 0.0 makes no minus of a change that the digits of a CSV hide.
        return (
            f"{counts}, worst {round(self.worst_db, 3) + 0.0:+.3f} dB" if self.compared else counts
        )


def judge(rows: Sequence[Result], baseline: Baseline, tolerance_db: float) -> Verdict:
    """Compares each row with the baseline's of its key; more than the tolerance below is a drop."""
    pairs, unknown = [], []
    for row in rows:
        known = baseline.get(key_of(row))
        if known is None:
            unknown.append(f"not in the baseline: {key_of(row)}")
        elif (row.dataset, row.images) != (known.dataset, known.images):
            unknown.append(
                f"not compared: {key_of(row)}, {row.images} pictures of {row.dataset}, in the "
                f"baseline {known.images} of {known.dataset}"
            )
        else:
            pairs.append((row, known))
    changes = [_change_db(row, known) for row, known in pairs]
    drops = [
        f"dropped: {key_of(row)} {row.psnr_db:.4f} dB, {change:+.4f} since {known.run_at} "
        f"({known.commit})"
        for (row, known), change in zip(pairs, changes, strict=True)
        if not change >= -tolerance_db
    ]
    scored = {key_of(row) for row in rows}
    settings = {key[:-1] for key in scored}
    missing = [key for key in baseline if key[:-1] in settings and key not in scored]
    gone = [f"in the baseline, but not scored: {key}" for key in missing]
    return Verdict(
        lines=[*_other_makers(pairs), *unknown, *gone, *drops],
        drops=len(drops),
        compared=len(pairs),
        unknown=len(unknown),
        missing=missing,
        worst_db=min(changes, key=lambda change: -math.inf if math.isnan(change) else change)
        if changes
        else math.nan,
    )


def _change_db(row: Result, known: Result) -> float:
    """NaN where only the new PSNR is no number, as that of a set without a mean is."""
    if row.psnr_db == known.psnr_db or math.isnan(known.psnr_db):
        return 0.0
    return row.psnr_db - known.psnr_db


def _other_makers(pairs: Iterable[tuple[Result, Result]]) -> list[str]:
    """A line for each model with other weights, and each other commit."""
    lines: dict[str, None] = {}
    for row, known in pairs:
        if row.weights != known.weights:
            was, now = known.weights or "none", row.weights or "none"
            lines[f"the weights of {row.model} changed: {now}, in the baseline {was}"] = None
        if row.commit != known.commit:
            lines[f"the code changed: {row.commit}, in the baseline {known.commit}"] = None
    return list(lines)
