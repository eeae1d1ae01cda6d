"""One content under several URLs or ids: which copy is kept.

A shard settles its own copies and names one for each content; only these meet in the shuffle, so
that a content costs at most one row a shard, however often the list has it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pipelines.outcomes import Outcome, Row

_SPLIT_RANK = {"test": 0, "validation": 1, "train": 2}


class Copy(NamedTuple):
    """A shard's best picture of one content; the least is kept: test before validation before
    train, then by image id and URL."""

    rank: int
    image_id: str
    url: str
    shard: str


def split_rank(shard: str) -> int:
    """0 of a shard of the test split, 1 of validation, 2 of train."""
    return _SPLIT_RANK[shard.partition("-")[0]]


def best_copies(shard: str, rows: Iterable[Row]) -> Iterator[tuple[str, Copy]]:
    """(sha256, the copy that is kept of it) for each content among a shard's rows."""
    rank = split_rank(shard)
    best: dict[str, Copy] = {}
    for row in rows:
        if row.outcome is Outcome.OK and row.sha256:
            copy = Copy(rank, row.image_id or "", row.url or "", shard)
            best[row.sha256] = min(copy, best.get(row.sha256, copy))
    yield from sorted(best.items())


def settle(sha256: str, copies: Iterable[Copy]) -> Iterator[tuple[str, tuple[str, Copy]]]:
    """(shard, (sha256, the kept copy)) for each shard that has the content, if several have."""
    copies = sorted(copies)
    if len(copies) > 1:
        for copy in copies:
            yield copy.shard, (sha256, copies[0])


def mark_duplicates(
    shard: str, rows: Sequence[Row], settled: Iterable[tuple[str, Copy]]
) -> list[Row]:
    """The rows with every good picture that is not the kept copy of its content marked so."""
    kept = dict(best_copies(shard, rows)) | dict(settled)
    return [_marked(row, kept) for row in rows]


def _marked(row: Row, kept: dict[str, Copy]) -> Row:
    if row.outcome is not Outcome.OK or not row.sha256:
        return row
    copy = kept[row.sha256]
    if (row.image_id, row.url) == (copy.image_id, copy.url):
        return row
    return row.as_duplicate_image(of=f"{copy.image_id} {copy.url}")
