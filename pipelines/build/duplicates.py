"""The same picture under several URLs or ids: which copy is kept, and what is no picture at all.

A shard settles the copies of a content, by sha256, among its own lines, so that a content costs at
most four rows, however often the list has it. These rows meet by their look: the perceptual hash,
or the content where a picture is too flat to have one. They meet as well those that share a band of
their hash: there the best of each look is dropped if a better one differs in few bits. All meet in
one shuffle, as a cluster starts workers anew for each.

Each decision is local: a picture is dropped if any better one is near, even one that is dropped
itself, and names the best that is near. So nothing depends on an order, the names lead from copy
to copy to a picture that is kept, and two near pictures are never both kept, in one split or two.
"""

import dataclasses
import logging
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from apache_beam.metrics import Metrics

from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.outcome import Outcome, Row, picture_name
from pipelines.lists.url_list import host_family, request_url
from pipelines.pictures.perceptual_hash import MAX_DISTANCE, bands

_logger = logging.getLogger(__name__)

PLACEHOLDER_FAMILIES = 10
"""So many host families do not have the very same bytes but for pictures that are gone: copies
that people make are resized and encoded again. Where this errs, it costs one picture."""
PARTS = 256
"""Groups of the shuffle; what meets, meets in one of them."""
LARGE_BUCKET = 5_000
"""Looks that share a band; more are not compared with each other, which takes seconds."""
_BAND_BYTES = 4  # no look has so few
_SPLIT_RANK = {"test": 0, "validation": 1, "train": 2}


class Copy(NamedTuple):
    """A shard's best picture of one content; the least is kept: test before validation before
    train, then by image id and URL."""

    rank: int
    image_id: str
    url: str
    shard: str
    sha256: str
    phash: bytes | None = None
    families: tuple[str, ...] = ()
    """Of the hosts that the shard has the content from; no more than decide."""

    @property
    def name(self) -> str:
        """How a row's duplicate_of names it."""
        return picture_name(self.image_id, self.url)

    @property
    def look(self) -> bytes:
        """What all copies of the content share, and those whose hash is the same."""
        return self.phash or self.sha256.encode()

    @property
    def keys(self) -> list[bytes]:
        """Where it meets others: its look, and the bands of its hash."""
        near = bands(self.phash) if self.phash else []
        return [self.look, *(band.to_bytes(_BAND_BYTES, "big") for band in near)]


class Placeholder(NamedTuple):
    """The verdict on a content that many unrelated hosts give."""

    families: tuple[str, ...]


Verdict = tuple[str, Copy | Placeholder]
"""The sha256 of a shard's content, and the better copy, or what it is instead of a picture."""


def split_rank(shard: str) -> int:
    """0 of a shard of the test split, 1 of validation, 2 of train."""
    return _SPLIT_RANK[shard.partition("-")[0]]


def best_copies(shard: str, fetched: Iterable[Fetched]) -> list[Copy]:
    """The copy that is kept of each content among a shard's lines."""
    rank = split_rank(shard)
    best: dict[str, Copy] = {}
    families: dict[str, set[str]] = {}
    for line in fetched:
        row = line.row
        if row.outcome is Outcome.OK and row.sha256:
            url = row.url or ""
            copy = Copy(rank, row.image_id or "", url, shard, row.sha256, line.phash)
            best[row.sha256] = min(copy, best.get(row.sha256, copy))
            families.setdefault(row.sha256, set()).add(_family(url))
    return [
        copy._replace(families=_first(families[sha256])) for sha256, copy in sorted(best.items())
    ]


def _family(url: str) -> str:
    try:
        return host_family(request_url(url).raw_host or "")
    except ValueError:  # a path, where the pictures come from a folder
        return ""


def _first(families: set[str]) -> tuple[str, ...]:
    return tuple(sorted(families)[:PLACEHOLDER_FAMILIES])


def in_parts(copies: Iterable[Copy]) -> Iterator[tuple[int, bytes]]:
    """(part, copies in bytes): each copy in every part where one of its keys lies."""
    parts: dict[int, list[tuple[object, ...]]] = {}
    for copy in copies:
        for part in {_part(key) for key in copy.keys}:
            parts.setdefault(part, []).append(tuple(copy))
    for part, batch in parts.items():
        yield part, zlib.compress(pickle.dumps(batch), 1)


def _part(key: bytes) -> int:
    return zlib.crc32(key) % PARTS


def settle(part: int, batches: Iterable[bytes]) -> Iterator[tuple[str, Verdict]]:
    """(shard, verdict) for what is decided among all copies, from all shards, in a part."""
    meeting: dict[bytes, list[Copy]] = {}
    for batch in batches:
        for fields in pickle.loads(zlib.decompress(batch)):
            copy = Copy(*fields)
            for key in copy.keys:
                if _part(key) == part:
                    meeting.setdefault(key, []).append(copy)
    for key, copies in meeting.items():
        if len(key) == _BAND_BYTES:
            yield from _settle_near(key, copies)
        else:
            yield from _settle_same(copies)[1]


def _settle_same(copies: Iterable[Copy]) -> tuple[Copy | None, list[tuple[str, Verdict]]]:
    """The best of all copies of one look, if any is a picture, and the verdicts on the others."""
    copies = sorted(copies)
    families: dict[str, set[str]] = {}
    for copy in copies:
        families.setdefault(copy.sha256, set()).update(copy.families)
    best, verdicts = None, list[tuple[str, Verdict]]()
    for copy in copies:
        if len(families[copy.sha256]) >= PLACEHOLDER_FAMILIES:
            placeholder = Placeholder(_first(families[copy.sha256]))
            verdicts.append((copy.shard, (copy.sha256, placeholder)))
        elif best is None:
            best = copy
        elif copy.name != best.name:  # as where an attempt was made twice
            verdicts.append((copy.shard, (copy.sha256, best)))
    return best, verdicts


def _settle_near(band: bytes, copies: Iterable[Copy]) -> Iterator[tuple[str, Verdict]]:
    looks: dict[bytes, list[Copy]] = {}
    for copy in copies:
        looks.setdefault(copy.look, []).append(copy)
        if len(looks) > LARGE_BUCKET:
            Metrics.counter("duplicates", "large_buckets").inc()
            _logger.warning("band 0x%s has over %d looks: not compared", band.hex(), LARGE_BUCKET)
            return
    best_of_each = (_settle_same(same)[0] for same in looks.values())
    better: list[tuple[int, Copy]] = []
    for copy in sorted(filter(None, best_of_each)):
        bits = int.from_bytes(copy.phash or b"", "big")
        near = (
            other for other_bits, other in better if (bits ^ other_bits).bit_count() <= MAX_DISTANCE
        )
        if (best := next(near, None)) is not None:
            yield copy.shard, (copy.sha256, best)
        better.append((bits, copy))


def mark_duplicates(
    shard: str, fetched: Sequence[Fetched], verdicts: Iterable[Verdict]
) -> list[Row]:
    """The rows of a shard's lines, every good picture that is not kept marked with why."""
    kept = {copy.sha256: copy for copy in best_copies(shard, fetched)}
    placeholders: dict[str, Placeholder] = {}
    for sha256, verdict in verdicts:
        if isinstance(verdict, Placeholder):
            placeholders[sha256] = verdict
        else:
            # An attempt that does not count may have met another content.
            kept[sha256] = min(kept.get(sha256, verdict), verdict)
    return [_marked(line.row, kept, placeholders) for line in fetched]


def _marked(row: Row, kept: dict[str, Copy], placeholders: dict[str, Placeholder]) -> Row:
    if row.outcome is not Outcome.OK or not row.sha256:
        return row
    if placeholder := placeholders.get(row.sha256):
        detail = f"the same bytes from {', '.join(placeholder.families)}"
        return dataclasses.replace(row, outcome=Outcome.PLACEHOLDER, detail=detail)
    copy = kept[row.sha256]
    if (row.image_id, row.url) == (copy.image_id, copy.url):
        return row
    return row.as_duplicate_image(of=copy.name)
