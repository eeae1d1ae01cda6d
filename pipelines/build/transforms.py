"""The Beam graph of a build. Only small rows cross a shuffle, never a picture's bytes."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam

from pipelines.build.code import Checked
from pipelines.build.duplicates import best_copies, in_parts, settle
from pipelines.build.finish import FinishedShard, finish_shard
from pipelines.command.cli import COLLECTED_AFTER, WorkError
from pipelines.crawl.answer import Fetch
from pipelines.crawl.crawler import CrawledShard, Crawler
from pipelines.crawl.descriptors import Room, room_for
from pipelines.crawl.folder import Folder
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.crawl.stored import Stored
from pipelines.crawl.web import Web
from pipelines.dataset.attempt_table import read_table
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.manifest import Manifest, Shard
from pipelines.dataset.outcome import Outcome
from pipelines.lists import sharding
from pipelines.lists.plan import AnySource, Plan
from pipelines.lists.url_list import request_url
from pipelines.pictures import pixels

_ATTEMPTS, _COPIES = "attempts", "copies"


@dataclass(frozen=True)
class Job:
    """What every worker of a build knows."""

    folder: DatasetFolder
    plan: Plan
    crawl: CrawlOptions
    source: AnySource
    """Where the plan's lines came from."""


@dataclass
class BuildDataset(beam.PTransform):
    """The whole build, from a written plan to dataset.json."""

    job: Job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Gives the manifest as a JSON object, once it is written."""
        job = self.job
        crawled = (
            pipeline
            | beam.Impulse()
            | "Deal shards to crawlers" >> beam.ParDo(Deal(deal(job)))
            # It gives every worker as many. A GroupByKey would go by the hash of a key, and some
            # workers would get several.
            | beam.Reshuffle()
            | "Crawl" >> beam.ParDo(Crawl(sharing(job))).with_outputs(_ATTEMPTS, _COPIES)
        )
        verdicts = (
            crawled[_COPIES]
            | "Copies that may meet" >> beam.GroupByKey()
            | "Settle" >> beam.FlatMapTuple(settle)
        )
        return (
            {"attempts": crawled[_ATTEMPTS], "verdicts": verdicts}
            | "A shard's inputs" >> beam.CoGroupByKey()
            | "Finish" >> beam.MapTuple(partial(_finish, job.folder))
            | "All shards" >> beam.combiners.ToList().without_defaults()
            | "Write manifest" >> beam.FlatMap(_write_manifest, job=job)
        )


def deal(job: Job) -> list[tuple[int, list[str]]]:
    """(crawler, its shards): every shard once, fetched or not in equal parts.

    Those to fetch are weighed by their lines; of the others only a table is read.
    """
    fetched = job.folder.attempts()
    lines = {shard: count for shard, count in job.plan.shards.items() if shard not in fetched}
    dealt = sharding.deal(lines, job.crawl.crawlers)
    for position, shard in enumerate(sorted(fetched.keys() & job.plan.shards.keys())):
        dealt[position % job.crawl.crawlers].append(shard)
    return [(crawler, shards) for crawler, shards in enumerate(dealt) if shards]


def sharing(job: Job) -> Job:
    """With as many crawlers as have a shard to fetch: only they share every host's pace."""
    left = len(job.plan.shards.keys() - job.folder.attempts().keys())
    crawlers = max(1, min(job.crawl.crawlers, left))
    return replace(job, crawl=replace(job.crawl, crawlers=crawlers))


class Deal(Checked, beam.DoFn):
    """Emits each crawler with its shards."""

    def __init__(self, dealt: Sequence[tuple[int, list[str]]]) -> None:
        self._dealt = dealt

    def process(self, _: bytes) -> Sequence[tuple[int, list[str]]]:
        """All of them."""
        return self._dealt


class Crawl(Checked, beam.DoFn):
    """(crawler, its shards) -> tagged (shard, attempt name) and (part, copies)."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(self, element: tuple[int, Sequence[str]]) -> Iterator[Any]:
        """Emits each shard once its attempt is committed; a finished one without fetching."""
        number, shards = element
        folder, earlier = self._job.folder, Counter[str]()
        _begun(earlier).publish(folder, number)  # a sign of life
        told = time.monotonic()
        finished = folder.attempts()
        for shard in sorted(finished.keys() & set(shards)):
            crawled = _read_attempt(finished[shard][0])
            earlier.update(line.row.outcome for line in crawled.fetched)
            yield from _emit(crawled)
            if time.monotonic() - told > folder.progress_interval_s:
                _begun(earlier).publish(folder, number)
                told = time.monotonic()
        _begun(earlier).publish(folder, number)
        if wanted := sorted(set(shards) - finished.keys()):
            answered = _answered(_read_attempt(finished[min(finished)][0])) if finished else []
            for crawled in self._crawl(number, wanted, answered, earlier):
                yield from _emit(crawled)

    def _crawl(
        self,
        number: int,
        shards: Sequence[str],
        answered: Sequence[str],
        earlier: Mapping[str, int],
    ) -> Iterator[CrawledShard]:
        with _seldom_collected(), asyncio.Runner() as runner:
            crawled = crawl_shards(self._job, number, shards, answered, earlier)
            while (shard := runner.run(anext(crawled, None))) is not None:
                yield shard


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Python's garbage collections are rare inside, and leave out what is there already.

    They take a third of the CPU of dead URLs else: thousands of requests wait for their turn, and
    Beam's modules are as many objects again.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _begun(earlier: Mapping[str, int]) -> CrawlReport:
    """The report of a crawler that has fetched nothing yet."""
    return CrawlReport(earlier=dict(earlier), uncompiled=int(not pixels.IS_COMPILED))


async def crawl_shards(
    job: Job,
    number: int,
    shards: Sequence[str],
    answered: Sequence[str] = (),
    earlier: Mapping[str, int] | None = None,
) -> AsyncIterator[CrawledShard]:
    """Fetches and digests shards as crawler ``number``; ``answered`` as in Web.

    ``earlier`` are the outcomes of its shards that need not be fetched.
    """
    begun = _begun(earlier or {})
    options, pictures = job.plan.options, job.source.pictures
    room = room_for(job.crawl.concurrency)
    async with AsyncExitStack() as stack:
        fetch: Fetch
        of_hosts: Callable[[], CrawlReport] = CrawlReport
        if pictures:
            fetch = Folder(pictures, options.max_bytes, room.in_flight).fetch
        else:
            web = await stack.enter_async_context(_web(job, room, answered))
            fetch, of_hosts = web.fetch, web.report
        crawler = Crawler(
            Stored(job.folder, options.max_bytes, room.in_flight, fetch).fetch,
            job.folder,
            options,
            job.source.parse,
            concurrency=room.in_flight,
            number=number,
            report=lambda: replace(
                of_hosts(),
                earlier=begun.earlier,
                uncompiled=begun.uncompiled,
                warning=room.warning,
            ),
        )
        async for crawled in crawler.run(shards):
            yield crawled


@asynccontextmanager
async def _web(job: Job, room: Room, answered: Sequence[str]) -> AsyncIterator[Web]:
    options, crawl = job.plan.options, replace(job.crawl, concurrency=room.in_flight)
    with job.folder.spool() as spool:
        async with HttpClient(
            timeout_s=crawl.timeout_s,
            max_bytes=options.max_bytes,
            user_agent=crawl.user_agent,
            allow_hosts=frozenset(options.allow_hosts),
            proxy=crawl.proxy,
            spool=spool,
            connections=room.connections,
        ) as client:
            with closing(Web(client, crawl, robots=options.robots, answered=answered)) as web:
                yield web


def _read_attempt(attempt: Attempt) -> CrawledShard:
    with attempt.folder.open(attempt.table) as file:
        return CrawledShard(attempt, read_table(file))


def _answered(crawled: CrawledShard) -> list[str]:
    """URLs of the hosts that answered in a finished shard.

    The outage check knows them from the start: an outage that outlasts one run is then told as an
    outage in the next.
    """
    urls = []
    for row in (line.row for line in crawled.fetched):
        if row.url and (row.http_status or row.sha256):
            with suppress(ValueError):  # of a folder of pictures it is a path
                urls.append(str(request_url(row.url).origin()))
    return urls


def _emit(crawled: CrawledShard) -> Iterator[Any]:
    attempt = crawled.attempt
    yield beam.pvalue.TaggedOutput(_ATTEMPTS, (attempt.shard, attempt.name))
    for part in in_parts(best_copies(attempt.shard, crawled.fetched)):
        yield beam.pvalue.TaggedOutput(_COPIES, part)


def _finish(
    folder: DatasetFolder, shard: str, inputs: Mapping[str, Iterable[Any]]
) -> FinishedShard:
    # A runner may commit two attempts at a shard. Either will do, if every worker chooses the same.
    name = min(inputs["attempts"])
    return finish_shard(Attempt(folder, shard, name), inputs["verdicts"])


def _write_manifest(finished: Sequence[FinishedShard], job: Job) -> Iterator[dict[str, Any]]:
    """Writes dataset.json last, if there is any example, and gives what it holds."""
    missing = job.plan.shards.keys() - {shard.name for shard in finished}
    if missing:
        raise WorkError(f"{len(missing)} shards never came through, {min(missing)} first")
    outcomes: Counter[str] = Counter()
    for shard in finished:
        outcomes.update(shard.outcomes)
    if outcomes.total() != job.plan.source["lines"]:
        raise WorkError(
            f"{outcomes.total():,} outcomes for {job.plan.source['lines']:,} lines of the list"
        )
    if not outcomes[Outcome.OK]:
        return
    manifest = Manifest(
        job.plan.options,
        job.plan.source,
        {
            shard.name: Shard(shard.examples, shard.sha256, shard.num_bytes)
            for shard in finished
            if shard.examples
        },
        dict(outcomes),
    )
    job.folder.publish_json(job.folder.manifest, manifest.to_json())
    yield manifest.to_json()
