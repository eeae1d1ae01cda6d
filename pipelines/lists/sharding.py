"""From selected lines to shards: what the list holds, and which shard each line belongs to."""

import hashlib
import itertools
import logging
import os
import tempfile
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.command.cli import UsageError
from pipelines.dataset.options import SPLITS, DatasetOptions, wnid_of
from pipelines.dataset.outcome import Row
from pipelines.lists.url_list import Parser, Rejected, parse_line
from pipelines.lists.url_list import host_family as _family_of

# Numbers; two a line.
_BUFFERED = 1 << 16
_logger = logging.getLogger(__name__)

LINES_PER_SHARD = 5_000
MIN_SHARDS = 16
# Families with more than this part of the lines are spread over all shards.
_LARGE_PART = 1 / 1_000
# The full list has about a million hosts, each of which both passes meet again and again.
host_family = lru_cache(maxsize=1 << 21)(_family_of)


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
    count = 0
    for line in lines:
        if wnids and wnid_of(line.partition(b"\t")[0].decode("latin-1")) not in wnids:
            continue
        if count == options.limit:
            return
        count += 1
        yield line
    if not count:
        raise UsageError("no line of the list is selected: check --wnids and --limit")


class Points:
    """What the shard of each line goes by, kept from the first pass for the second, in a file:
    parsing takes longer than all else. Its family, and a hash of its own that the seed salts.
    """

    def __init__(self, seed: int) -> None:
        self._salt = _salt(seed)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._families: dict[str, int] = {"": 0}
        self._buffer: array[int] = array("Q")

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()

    def __len__(self) -> int:
        return self._file.seek(0, os.SEEK_END) // 16 + len(self._buffer) // 2

    def add(self, key: bytes, family: str = "") -> None:
        """A line; of no family, where it goes by its own key in any case."""
        number = self._families.setdefault(family, len(self._families))
        self._buffer.extend((number, _hash(key, self._salt)))
        if len(self._buffer) >= _BUFFERED:
            self._buffer.tofile(self._file)
            del self._buffer[:]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Family and hash of each line."""
        self._buffer.tofile(self._file)
        del self._buffer[:]
        self._file.seek(0)
        names = list(self._families)
        while block := self._file.read(8 * _BUFFERED):
            numbers = array("Q", block)
            for family, own in zip(numbers[::2], numbers[1::2], strict=True):
                yield names[family], own


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
    for line in lines:
        count += 1
        digest.update(line + b"\n")
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
        self._salt = _salt(options.seed)
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
        except Rejected as reason:
            return self._shard("", _hash(_rejected_key(reason.row), self._salt))
        family = host_family(entry.host)
        return self._shard(family, _hash(entry.request_url.encode(), self._salt))

    def shards(self, points: Points) -> Iterator[str]:
        """The same of all lines, from the first pass."""
        return itertools.starmap(self._shard, points)

    def _shard(self, family: str, own: int) -> str:
        point = own if family in self._large else _hash(family.encode(), self._salt)
        return self._names[bisect(self._starts, point / (1 << 64)) - 1]


def _rejected_key(row: Row) -> bytes:
    return row.line or f"{row.image_id}\t{row.url}".encode()


def _salt(seed: int) -> bytes:
    return seed.to_bytes(8, "little", signed=True)


def _hash(key: bytes, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "big")
