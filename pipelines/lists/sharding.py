"""From selected lines to shards: what the list holds, and which shard each line belongs to."""

import hashlib
import itertools
import logging
import tempfile
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import UsageError
from pipelines.dataset.options import SPLITS, DatasetOptions, wnid_of
from pipelines.dataset.outcome import Row
from pipelines.lists.url_list import Parser, Rejected, host_family, parse_line

_BLOCK = 1 << 16
"""Lines."""
_logger = logging.getLogger(__name__)

LINES_PER_SHARD = 5_000
MIN_SHARDS = 16
# Families with more than this part of the lines are spread over all shards.
_LARGE_PART = 1 / 1_000
_FAMILIES_KEPT = 1 << 14
"""Whose hash is known without computing it."""


@dataclass(frozen=True)
class Survey:
    """What the first pass over the selected lines finds."""

    sha256: str
    """Of the selected lines, each ended by a newline."""
    lines: int
    rejected: dict[str, int]
    """Lines that name no picture, by outcome."""
    families: Counter[str]
    """Lines of each host family."""
    duplicates: int | None
    """Lines whose URL an earlier line has; None where they were not counted."""

    @property
    def large_families(self) -> list[str]:
        """The families that are spread over all shards by URL, sorted."""
        least = self.lines * _LARGE_PART
        return sorted(family for family, count in self.families.items() if count > least)


def select(lines: Iterable[bytes], options: DatasetOptions) -> Iterator[bytes]:
    """The lines of the wanted classes, as many as wanted. Raises UsageError where none is left."""
    wnids = frozenset(options.wnids)
    if wnids:
        lines = (line for line in lines if _wnid(line) in wnids)
    selected = itertools.islice(lines, options.limit)
    first = next(selected, None)
    if first is None:
        raise UsageError("no line of the list is selected: check --wnids and --limit")
    return itertools.chain([first], selected)


def _wnid(line: bytes) -> str:
    return wnid_of(line.partition(b"\t")[0].decode("latin-1"))


class Points:
    """What decides the shard of each line: the hash of its host family, and one of its own.

    The first pass keeps them in a file for the second, because parsing takes longer than all else.
    The seed salts the hashes.
    """

    def __init__(self, seed: int) -> None:
        self._hash = _hash_of(seed)
        self._hash_of_family = lru_cache(_FAMILIES_KEPT)(lambda name: self._hash(name.encode()))
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()

    def __bool__(self) -> bool:
        return self._file.tell() > 0

    def add(self, key: bytes, family: str = "") -> None:
        """A line; of no family, where it goes by its own key in any case."""
        self._file.write(self._hash_of_family(family) + self._hash(key))

    def blocks(self) -> Iterator[npt.NDArray[np.uint64]]:
        """The two hashes of each line, some lines at a time. Takes no more lines."""
        self._file.seek(0)
        while block := self._file.read(16 * _BLOCK):
            yield np.frombuffer(block, ">u8").astype(np.uint64).reshape(-1, 2)


def survey(
    lines: Iterable[bytes],
    parse: Parser,
    *,
    count_duplicates: bool = False,
    points: Points | None = None,
) -> Survey:
    """The first pass, from which ``points`` get every line."""
    digest = hashlib.sha256()
    rejected: Counter[str] = Counter()
    families: Counter[str] = Counter()
    urls = array("q")
    count = further_columns = 0
    for line in _digested(lines, digest.update):
        count += 1
        try:
            entry = parse(line)
        except Rejected as reason:
            rejected[reason.row.outcome] += 1
            if points is not None:
                points.add(_rejected_key(reason.row))
            continue
        families[family := host_family(entry.host)] += 1
        if points is not None:
            points.add(entry.request_url.encode(), family)
        if line.count(b"\t") > 1 and not entry.checksum:
            further_columns += 1
        if count_duplicates:
            urls.append(hash(entry.request_url))
    if further_columns and parse is parse_line:  # another parser's lines have them
        _logger.warning(
            "%s lines have more than an image id and a URL: what follows another TAB is left out",
            f"{further_columns:,}",
        )
    duplicates = _count_repeated(urls) if count_duplicates else None
    return Survey(digest.hexdigest(), count, dict(sorted(rejected.items())), families, duplicates)


def _digested(lines: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    """The lines. A thousand at a time ``update`` gets them, each ended by a newline."""
    rest = iter(lines)
    while some := list(itertools.islice(rest, 1_000)):
        update(b"\n".join(some) + b"\n")
        yield from some


def _count_repeated(hashes: "array[int]") -> int:
    if not hashes:
        return 0
    values = np.frombuffer(hashes, np.int64)
    values.sort()  # where it lies: the full list's take 114 MB
    return int(np.count_nonzero(values[1:] == values[:-1]))


def shard_names(options: DatasetOptions, lines: int) -> dict[str, list[str]]:
    """The shards of each split for so many selected lines."""
    train = options.num_shards or max(MIN_SHARDS, -(-lines // LINES_PER_SHARD))
    names = {}
    for split in SPLITS:
        share = options.splits.get(split, 0.0)
        whole = options.splits.get("train") or 1.0
        count = max(1, round(train * share / whole)) if share else 0
        names[split] = [f"{split}-{index:05}-of-{count:05}" for index in range(count)]
    return names


def deal(shards: Mapping[str, float], crawlers: int) -> list[list[str]]:
    """Shards to so many crawlers, in parts that are about equal by the shards' lines."""
    loads = [0.0] * crawlers
    dealt: list[list[str]] = [[] for _ in loads]
    for shard in sorted(shards, key=lambda name: (-shards[name], name)):
        crawler = loads.index(min(loads))
        loads[crawler] += shards[shard]
        dealt[crawler].append(shard)
    return dealt


class Sharding:
    """Which shard a line belongs to: a pure function of the line, the options and the survey.

    A line of a large host family goes by the hash of its URL, one of a small family by the hash
    of the family, so that a dead host is met once, and splits are disjoint by small host.
    """

    def __init__(
        self, options: DatasetOptions, large_families: Iterable[str], lines: int, parse: Parser
    ) -> None:
        self._parse = parse
        self._large = frozenset(["", *large_families])
        self._hash = _hash_of(options.seed)
        self._names: list[str] = []
        self._starts: list[float] = []
        start = 0.0
        for split, names in shard_names(options, lines).items():
            share = options.splits.get(split, 0.0)
            self._names += names
            self._starts += [start + share * index / len(names) for index in range(len(names))]
            start += share

    def shard_of(self, line: bytes) -> str:
        """The name of one line's shard."""
        try:
            entry = self._parse(line)
            key, family = entry.request_url.encode(), host_family(entry.host)
        except Rejected as reason:
            key, family = _rejected_key(reason.row), ""
        return self._name(self._hash(key if family in self._large else family.encode()))

    def shards(self, points: Points) -> Iterator[str]:
        """The name of every line's shard, from what the first pass has kept."""
        names = [int.from_bytes(self._hash(name.encode())) for name in self._large]
        large = np.array(names, np.uint64)
        for hashes in points.blocks():
            of_family, own = hashes.T
            chosen = np.where(np.isin(of_family, large), own, of_family)
            places = np.searchsorted(self._starts, chosen / 2.0**64, "right") - 1
            yield from map(self._names.__getitem__, places.tolist())

    def _name(self, digest: bytes) -> str:
        point = int.from_bytes(digest) / (1 << 64)
        return self._names[bisect(self._starts, point) - 1]


def _rejected_key(row: Row) -> bytes:
    return row.line or f"{row.image_id}\t{row.url}".encode()


def _hash_of(seed: int) -> Callable[[bytes], bytes]:
    """BLAKE2b of 8 bytes, salted by the seed."""
    salted = hashlib.blake2b(digest_size=8, salt=seed.to_bytes(8, "little", signed=True))

    def hash_of(key: bytes) -> bytes:
        copy = salted.copy()  # takes half the time of a new one
        copy.update(key)
        return copy.digest()

    return hash_of
