"""The plan: one process streams the list twice and writes each shard's lines, once.

The first pass learns the totals and the large host families, the second deals the lines out.
The plan in the dataset folder is what every later run starts from.
"""

import contextlib
import hashlib
import logging
from array import array
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command.cli import UsageError
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS, DatasetOptions
from pipelines.lists.list_file import local_copy, picture_lines, read_lines
from pipelines.lists.originals import Originals
from pipelines.lists.url_list import Parser, Rejected, parse_line, parse_path_line
from pipelines.lists.url_list import host_family as _family_of

_logger = logging.getLogger(__name__)

FORMAT = 1
LINES_PER_SHARD = 5_000
MIN_SHARDS = 16
# Families with more than this part of the lines are spread over all shards.
_LARGE_PART = 1 / 1_000
_BUFFER_BYTES = 64 << 20
# The full list has about a million hosts, each of which both passes meet again and again.
host_family = lru_cache(maxsize=1 << 21)(_family_of)


@dataclass(frozen=True)
class Source:
    """Where the lines come from: a list's name, or a folder of pictures."""

    name: str
    is_folder: bool = False

    @property
    def pictures(self) -> str | None:
        """The folder of pictures."""
        return self.name if self.is_folder else None

    @property
    def parse(self) -> Parser:
        """The parser of its lines."""
        return parse_path_line if self.is_folder else parse_line

    @property
    def as_json(self) -> None:
        """Nothing is known of an earlier build."""

    def identity(self, sha256: str) -> dict[str, Any]:
        """What the list is known by; ``sha256`` of its selected lines."""
        return {
            "name": self.name,
            "size": _size(self),
            "is_folder": self.is_folder,
            "sha256": sha256,
        }

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[], Iterator[bytes]]]:
        """Gives a function that streams the lines from the start, as often as it is called."""
        if self.is_folder:
            yield lambda: picture_lines(Path(self.name))
        else:
            with local_copy(self.name) as path:
                yield lambda: read_lines(path)


AnySource = Source | Originals


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


@dataclass(frozen=True)
class Plan:
    """A written plan."""

    options: DatasetOptions
    source: dict[str, Any]
    """sha256, lines and rejected of the Survey."""
    shards: dict[str, int]
    """The lines of each shard that has any, by name."""


def select(lines: Iterable[bytes], options: DatasetOptions) -> Iterator[bytes]:
    """The lines of the wanted classes, as many as wanted. Raises UsageError where none is left."""
    wanted = tuple(f"{wnid}{mark}".encode() for wnid in options.wnids for mark in "_/")
    count = 0
    for line in lines:
        if wanted and not line.startswith(wanted):
            continue
        if count == options.limit:
            return
        count += 1
        yield line
    if not count:
        raise UsageError("no line of the list is selected: check --wnids and --limit")


def survey(lines: Iterable[bytes], parse: Parser, *, count_duplicates: bool = False) -> Survey:
    """The first pass."""
    digest = hashlib.sha256()
    rejected: Counter[str] = Counter()
    families: Counter[str] = Counter()
    urls = array("q")
    count = 0
    for line in lines:
        count += 1
        digest.update(line + b"\n")
        try:
            entry = parse(line)
        except Rejected as reason:
            rejected[reason.row.outcome] += 1
            continue
        families[host_family(entry.host)] += 1
        if count_duplicates:
            urls.append(hash(entry.request_url))
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
        self._large = frozenset(large_families)
        self._salt = options.seed.to_bytes(8, "little", signed=True)
        self._names: list[str] = []
        self._starts: list[float] = []
        start = 0.0
        for split, names in shard_names(options, lines).items():
            share = options.splits.get(split, 0.0)
            self._names += names
            self._starts += [start + share * index / len(names) for index in range(len(names))]
            start += share

    def shard_of(self, line: bytes) -> str:
        """The name of the line's shard."""
        try:
            entry = self._parse(line)
        except Rejected as reason:
            row = reason.row
            return self._shard(row.line or f"{row.image_id}\t{row.url}".encode())
        family = host_family(entry.host)
        return self._shard((entry.request_url if family in self._large else family).encode())

    def _shard(self, key: bytes) -> str:
        digest = hashlib.blake2b(key, digest_size=8, salt=self._salt).digest()
        point = int.from_bytes(digest, "big") / (1 << 64)
        return self._names[bisect(self._starts, point) - 1]


def refuse_other_options(folder: DatasetFolder, options: DatasetOptions) -> None:
    """Raises UsageError where the folder was begun with other options, with both values."""
    if not folder.exists(folder.build):
        return
    begun, wanted = folder.read_json(folder.build)["options"], options.to_json()
    differing = [
        f"--{name.replace('_', '-')} {begun.get(name)}, not {value}"
        for name, value in wanted.items()
        if begun.get(name) != value
    ]
    if differing:
        raise UsageError(
            f"{folder.root} was begun with {'; '.join(differing)}: use the same options, "
            "--overwrite, or another --output"
        )


def prepare(
    folder: DatasetFolder, options: DatasetOptions, source: AnySource, *, overwrite: bool = False
) -> Plan:
    """The plan of a dataset folder: written, or read where this build was begun before.

    Raises UsageError where the list cannot be used, or the folder was begun with other options or
    another list; with ``overwrite`` that build is forgotten, once the list is known to be good.
    """
    if isinstance(source, Originals) and source.in_place:
        return _prepare_in_place(folder, options, source)
    if folder.exists(folder.build) and not overwrite:
        refuse_other_options(folder, options)
        _refuse_other_originals(folder, source)
        if folder.exists(folder.plan_index) and _is_same_file(folder, source):
            return load(folder)
    with source.open() as lines:
        found = survey(select(lines(), options), source.parse)
        if overwrite:
            folder.begin_again()
        if folder.exists(folder.build):
            _refuse_other_list(folder, source, found)
        else:
            folder.publish_json(folder.build, _build(options, source, found))
        if not folder.exists(folder.plan_index):
            if not folder.exists(folder.manifest):
                folder.set_aside()  # what is fetched is not of this plan
            sharding = Sharding(options, found.large_families, found.lines, source.parse)
            _write(folder, sharding, select(lines(), options))
    return load(folder)


def _prepare_in_place(folder: DatasetFolder, options: DatasetOptions, source: Originals) -> Plan:
    """The plan of a dataset rebuilt from its own originals.

    A finished one is taken apart; build.json knows of that first, so that it is gone on with.
    """
    if folder.exists(folder.manifest):
        manifest = Manifest.load(folder.root)
        is_needed = not source.retry or manifest.outcomes.keys() & set(source.retry)
        if manifest.options == options and folder.exists(folder.plan_index) and not is_needed:
            _logger.info("no line of %s ended with %s", folder.root, ", ".join(source.retry))
            return load(folder)
        folder.clean_up()  # no table that was set aside before may count
        found = survey(select(source.lines(), options), source.parse)
        _refuse_fewer_lines(folder, found)
        folder.publish_json(folder.build, _build(options, source, found))
        folder.set_aside()
    else:
        refuse_other_options(folder, options)
        _refuse_other_originals(folder, source)
        if folder.exists(folder.plan_index):
            return load(folder)
        folder.set_aside()
        found = survey(select(source.lines(), options), source.parse)
    sharding = Sharding(options, found.large_families, found.lines, source.parse)
    _write(folder, sharding, select(source.lines(), options))
    return load(folder)


def load(folder: DatasetFolder) -> Plan:
    """Reads a written plan."""
    build = folder.read_json(folder.build)
    return Plan(
        DatasetOptions.from_json(build["options"]),
        {name: build["source"][name] for name in ("sha256", "lines", "rejected")},
        folder.read_json(folder.plan_index),
    )


def _build(options: DatasetOptions, source: AnySource, found: Survey) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "options": options.to_json(),
        "originals": source.as_json,
        "source": {
            **source.identity(found.sha256),
            "lines": found.lines,
            "rejected": found.rejected,
            "large_families": found.large_families,
        },
    }


def _write(folder: DatasetFolder, sharding: Sharding, lines: Iterable[bytes]) -> None:
    with folder.spool() as spool:
        buffers: defaultdict[str, bytearray] = defaultdict(bytearray)
        counts: Counter[str] = Counter()
        buffered = 0
        for line in lines:
            shard = sharding.shard_of(line)
            counts[shard] += 1
            buffers[shard] += line + b"\n"
            buffered += len(line)
            if buffered > _BUFFER_BYTES:
                _flush(spool, buffers)
                buffered = 0
        _flush(spool, buffers)
        for shard in counts:
            folder.publish(spool / shard, folder.plan(shard))
    folder.publish_json(folder.plan_index, dict(sorted(counts.items())))


def _flush(spool: Path, buffers: dict[str, bytearray]) -> None:
    for shard, buffer in buffers.items():
        with (spool / shard).open("ab") as file:
            file.write(buffer)
    buffers.clear()


def _refuse_other_originals(folder: DatasetFolder, source: AnySource) -> None:
    """Raises UsageError where one of the two is rebuilt from originals, the other not or not so."""
    begun, wanted = folder.read_json(folder.build).get("originals"), source.as_json
    # A rebuilt dataset is that of the list, once it is complete.
    if begun != wanted and not (wanted is None and folder.exists(folder.manifest)):
        raise UsageError(
            f"{folder.root} was begun with {_describe(begun)}, not with {_describe(wanted)}: "
            "finish that first, or use another --output"
        )


def _describe(originals: Mapping[str, Any] | None) -> str:
    """Of what Originals.as_json gives, the options."""
    if originals is None:
        return "a list or pictures"
    options = [f"--originals {originals['folder']}"] if "folder" in originals else []
    if "attempts_sha256" in originals:
        options.append(f"(attempts {originals['attempts_sha256'][:12]})")
    if originals["retry"]:
        options.append(f"--retry {','.join(originals['retry'])}")
    return " ".join(options) or "its own originals"


def _refuse_fewer_lines(folder: DatasetFolder, found: Survey) -> None:
    lines = folder.read_json(folder.build)["source"]["lines"]
    if found.lines < lines:
        raise UsageError(
            f"only {found.lines:,} of the {lines:,} lines of {folder.root} are selected, and what "
            "was fetched of the others would be lost: use another --output"
        )


def _refuse_other_list(folder: DatasetFolder, source: AnySource, found: Survey) -> None:
    begun = folder.read_json(folder.build)["source"]
    if begun["sha256"] != source.identity(found.sha256)["sha256"]:
        raise UsageError(
            f"{folder.root} was begun with the {begun['lines']:,} lines of {begun['name']} "
            f"(sha256 {begun['sha256'][:12]}), not with these {found.lines:,} "
            f"({found.sha256[:12]}): use the same list, or another --output"
        )


def _is_same_file(folder: DatasetFolder, source: AnySource) -> bool:
    if isinstance(source, Originals):
        return True  # its attempts are, or it was refused
    begun = folder.read_json(folder.build)["source"]
    return begun["size"] is not None and (begun["name"], begun["size"]) == (
        source.name,
        _size(source),
    )


def _size(source: Source) -> int | None:
    """Of a local list, in bytes: with the name enough to know an unchanged file again."""
    path = Path(source.name)
    return path.stat().st_size if not source.is_folder and path.is_file() else None
