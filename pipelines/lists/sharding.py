"""From selected lines to shards: what the list holds, and which shard each line belongs to."""

import hashlib
import itertools
import logging
import tempfile
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import UsageError
from pipelines.dataset.options import SPLITS, DatasetOptions, wnid_of
from pipelines.dataset.outcome import Row
from pipelines.lists.url_list import Parser, Rejected, host_family, parse_line, plain_lines

_BLOCK = 1 << 18
"""Lines that are dealt out at once: some for each shard, but no more than memory has room for."""
_logger = logging.getLogger(__name__)

LINES_PER_SHARD = 5_000
MIN_SHARDS = 16
_CHANGED = "the list changed while its plan was made: start again"
# Families with more than this part of the lines are spread over all shards.
_LARGE_PART = 1 / 1_000


@dataclass(frozen=True)
class Survey:
    """What the first pass over the selected lines finds."""

    sha256: str
    """Of the selected lines, each ended by a newline."""
    lines: int
    rejected: dict[str, int]
    """Lines that name no picture, by outcome."""
    families: dict[str, int]
    """Lines of each host family."""
    duplicates: int | None
    """Lines whose URL an earlier line has; None where they were not counted."""

    @property
    def busiest(self) -> tuple[str, int]:
        """The family with the most lines, and how many; of several the first in the list."""
        return max(self.families.items(), key=itemgetter(1))

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


_POINT = np.dtype([("family", "<i4"), ("own", ">u8")])


class Points:
    """What decides the shard of each line: the hash of its host family, and one of its own.

    The first pass keeps them in a file for the second, because parsing takes longer than all else;
    a family as its number. The seed salts the hashes.
    """

    def __init__(self, seed: int) -> None:
        self._hash = _hash_of(seed)
        self._families = np.empty(0, np.uint64)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()

    def __bool__(self) -> bool:
        return self._file.tell() > 0

    def add(self, families: npt.NDArray[np.int32], keys: Iterable[bytes]) -> None:
        """Some lines: the number of each one's family, and what it goes by itself."""
        block = np.empty(len(families), _POINT)
        block["family"] = families
        block["own"] = np.frombuffer(b"".join(map(self._hash, keys)), ">u8")
        self._file.write(block.tobytes())

    def name(self, families: Iterable[str]) -> None:
        """The names of the families, from number 0."""
        hashes = map(self._hash, map(str.encode, families))
        self._families = np.fromiter(map(int.from_bytes, hashes), np.uint64)

    def blocks(self) -> Iterator[npt.NDArray[np.uint64]]:
        """The two hashes of each line, some lines at a time. Takes no more lines."""
        self._file.seek(0)
        while data := self._file.read(_POINT.itemsize * _BLOCK):
            block = np.frombuffer(data, _POINT)
            yield np.stack([self._families[block["family"]], block["own"].astype(np.uint64)], 1)


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
    numbers = _Numbers({"": 0})
    counts = np.zeros(1 << 10, np.int64)
    count = further_columns = 0
    with tempfile.TemporaryFile() as url_hashes:
        for some in _blocks(lines):
            text = b"\n".join([*some, b""])
            digest.update(text)
            found = _Lines.of(some, text, parse)
            families = np.fromiter(map(numbers.__getitem__, found.families), np.int32, len(some))
            if len(numbers) > len(counts):
                counts = np.concatenate([counts, np.zeros(len(numbers), np.int64)])
            np.add.at(counts, families, 1)
            count += len(some)
            rejected.update(row.outcome for row in found.rejected.values())
            further_columns += found.further_columns
            if count_duplicates:
                url_hashes.write(array("q", map(hash, filter(None, found.urls))))
            if points is not None:
                points.add(families, found.keys())
        duplicates = _count_repeated(url_hashes) if count_duplicates else None
    if further_columns and parse is parse_line:  # another parser's lines have them
        _logger.warning(
            "%s lines have more than an image id and a URL: what follows another TAB is left out",
            f"{further_columns:,}",
        )
    if points is not None:
        points.name(numbers)
    counts[0] -= rejected.total()
    # The names are many: in their place.
    for name, number in zip(numbers, counts.tolist(), strict=False):
        numbers[name] = number
    if not numbers[""]:
        del numbers[""]
    return Survey(digest.hexdigest(), count, dict(sorted(rejected.items())), numbers, duplicates)


class _Numbers(dict[str, int]):
    """A number for each name, in the order of their coming."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


@dataclass(frozen=True)
class _Lines:
    """What the survey counts of some lines."""

    urls: list[str]
    """Empty where the line is rejected."""
    families: list[str]
    rejected: dict[int, Row]
    """By the line's place."""
    further_columns: int
    """Lines with more of them than are read."""

    @classmethod
    def of(cls, lines: Sequence[bytes], text: bytes, parse: Parser) -> Self:
        """Of plain lines all at once, of the others one by one; ``text`` is the same lines."""
        urls, families = plain_lines(text) if parse is parse_line else ([], [])
        if len(urls) != len(lines):  # of another parser, or one has a newline in it
            urls, families = [""] * len(lines), [""] * len(lines)
        rejected = {}
        further_columns = 0
        for place in [place for place, url in enumerate(urls) if not url]:
            line = lines[place]
            try:
                entry = parse(line)
            except Rejected as reason:
                rejected[place] = reason.row
                continue
            urls[place], families[place] = entry.request_url, host_family(entry.host)
            further_columns += line.count(b"\t") > 1 and not entry.checksum
        return cls(urls, families, rejected, further_columns)

    def keys(self) -> list[bytes]:
        """What each line goes by itself."""
        keys = [url.encode() for url in self.urls]
        for place, row in self.rejected.items():
            keys[place] = _rejected_key(row)
        return keys


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """A thousand lines at a time."""
    rest = iter(lines)
    while some := list(itertools.islice(rest, 1_000)):
        yield some


def _count_repeated(hashes: IO[bytes]) -> int:
    """Of 64-bit hashes in a file. An eighth of them at a time: the full list's take 114 MB."""
    repeated = 0
    for part in range(8):
        hashes.seek(0)
        found = [np.empty(0, np.int64)]
        while data := hashes.read(8 * _BLOCK):
            block = np.frombuffer(data, np.int64)
            found.append(block[block & 7 == part])
        values = np.concatenate(found)
        values.sort()
        repeated += int(np.count_nonzero(values[1:] == values[:-1]))
    return repeated


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

    def deal(self, lines: Iterable[bytes], points: Points) -> Iterator[tuple[str, list[bytes]]]:
        """All lines, by what the first pass has kept: again and again the next ones of some shard.

        Raises UsageError where there are more lines, or fewer, than in the first pass.
        """
        rest = iter(lines)
        for hashes in points.blocks():
            some = list(itertools.islice(rest, len(hashes)))
            if len(some) < len(hashes):
                raise UsageError(_CHANGED)
            yield from self._by_shard(some, hashes)
            some.clear()  # before memory holds the next ones
        if next(rest, None) is not None:
            raise UsageError(_CHANGED)

    def _by_shard(
        self, lines: Sequence[bytes], hashes: npt.NDArray[np.uint64]
    ) -> Iterator[tuple[str, list[bytes]]]:
        names = [int.from_bytes(self._hash(name.encode())) for name in self._large]
        of_family, own = hashes.T
        chosen = np.where(np.isin(of_family, np.array(names, np.uint64)), own, of_family)
        places = np.searchsorted(self._starts, chosen / 2.0**64, "right") - 1
        order = np.argsort(places, kind="stable")
        found, starts = np.unique(places[order], return_index=True)
        sorted_ = [*map(lines.__getitem__, order.tolist())]
        for place, start, end in zip(found, starts, [*starts[1:], len(lines)], strict=True):
            yield self._names[place], sorted_[start:end]

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
