"""Whether a dataset folder holds what its dataset.json says."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

import numpy as np

from pipelines.command.child_process import end_with_parent
from pipelines.command.cli import WorkError
from pipelines.command.progress import Progress
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Fault, Manifest, check_listing
from pipelines.dataset.outcome import describe_totals
from pipelines.inspect.shard_check import Claim, Pictures, check_shard


def verify(
    folder: DatasetFolder,
    manifest: Manifest,
    *,
    begin: Callable[[], None] | None = None,
    decode: bool = True,
    workers: int = 1,
) -> int:
    """Checks a whole dataset in so many processes, each of which begins with ``begin()``.

    Returns how many examples it has. Raises Fault for the first wrong file.
    """
    claims = _claims(folder, manifest)
    check_listing(folder.sizes("examples"), manifest)
    _check_names(folder, "examples", {f"{name}.tfrecord" for name in manifest.shards})
    _check_names(folder, "outcomes", {f"{claim.name}.parquet" for claim in claims})
    check = partial(check_shard, folder, manifest.options, decode=decode)
    pictures: list[Pictures] = []
    examples = sum(shard.examples for shard in manifest.shards.values())
    with Progress("verify", examples, unit="examples") as progress:
        done = 0
        results = _spread(check, claims, begin, min(workers, len(claims)))
        for claim, found in zip(claims, results, strict=True):
            pictures.append(found)
            done += claim.shard.examples if claim.shard else 0
            progress.update(done)
    _check_totals(manifest, pictures)
    names = [claim.name for claim in claims]
    _check_distinct("picture", names, [found.contents for found in pictures])
    _check_distinct("URL", names, [found.urls for found in pictures])
    return examples


def _claims(folder: DatasetFolder, manifest: Manifest) -> list[Claim]:
    if not folder.exists(folder.plan_index):
        raise Fault("plan/shards.json: missing")
    lines = manifest.source.get("lines")
    try:
        plan: Mapping[str, int] = folder.read_json(folder.plan_index)["shards"]
        planned = sum(plan.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Fault(f"plan/shards.json: {error!r:.200}") from None
    if planned != lines:
        raise Fault(f"plan/shards.json: {planned:,} lines, dataset.json has {lines}")
    if unplanned := manifest.shards.keys() - plan.keys():
        raise Fault(f"plan/shards.json: without {min(unplanned)}, which dataset.json has")
    return [Claim(name, plan[name], manifest.shards.get(name)) for name in sorted(plan)]


def _check_names(folder: DatasetFolder, kind: str, expected: set[str]) -> None:
    present = set(folder.names(kind))
    for name in sorted(present ^ expected):
        raise Fault(f"{kind}/{name}: {'not of this dataset' if name in present else 'missing'}")


def _spread(
    check: "partial[Pictures]",
    claims: Sequence[Claim],
    begin: Callable[[], None] | None,
    workers: int,
) -> Iterator[Pictures]:
    """The results in the order of the claims."""
    if workers == 1:
        yield from map(check, claims)
        return
    # Beam may have started threads, which a fork would lose.
    spawn, arguments = get_context("spawn"), (os.getpid(), begin)
    with ProcessPoolExecutor(workers, spawn, _begin, arguments) as pool:
        try:
            yield from pool.map(check, claims)
        except BrokenProcessPool:
            raise WorkError("a process died: out of memory? Use fewer --workers") from None


def _begin(parent: int, begin: Callable[[], None] | None) -> None:
    end_with_parent(parent)
    if begin:
        begin()


def _check_totals(manifest: Manifest, pictures: Sequence[Pictures]) -> None:
    totals: Counter[str] = Counter()
    for found in pictures:
        totals.update(found.outcomes)
    if totals != Counter(manifest.outcomes):
        raise Fault(
            f"outcomes/: {describe_totals(totals)}, but dataset.json has "
            f"{describe_totals(manifest.outcomes)}"
        )


def _check_distinct(what: str, names: Sequence[str], hashes: Sequence[Sequence[int]]) -> None:
    """Raises Fault where two pictures, of one shard or of two, have the same hash."""
    every = np.concatenate([np.asarray(part, np.uint64) for part in hashes])
    shards = np.repeat(np.arange(len(hashes)), [len(part) for part in hashes])
    order = np.lexsort((shards, every))
    every, shards = every[order], shards[order]
    (repeated,) = np.nonzero(every[1:] == every[:-1])
    if len(repeated):
        first = min(repeated, key=lambda index: (shards[index + 1], shards[index]))
        raise Fault(
            f"examples/{names[shards[first + 1]]}.tfrecord: a {what} that "
            f"{names[shards[first]]} has as well ({len(repeated):,} of these)"
        )
