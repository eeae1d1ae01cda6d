"""A crawler: takes shards one after another and decides what becomes of each of their lines."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from apache_beam.metrics import Metrics

from pipelines.crawl.answer import Body, Fetch, of_the_list
from pipelines.crawl.report import CrawlReport
from pipelines.crawl.writer import ShardWriter
from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row, picture_name
from pipelines.lists.url_list import Entry, Parser, Rejected
from pipelines.pictures.decoder import Decoder

_POLL_S = 0.2
# Lines of open shards for each request in flight. With one, hosts that take long to be silent
# would keep the others waiting where a shard ends.
AHEAD = 2


@dataclass(frozen=True)
class CrawledShard:
    """A published attempt and its table."""

    attempt: Attempt
    fetched: Sequence[Fetched] = field(repr=False)
    """Not shown: asyncio shows a task's result to itself, which took a second for ten thousand."""


class Crawler:
    """Fetches and digests shards for one event loop.

    ``concurrency`` is how many lines ``fetch`` has in flight at most. ``number`` names the
    crawler's progress file, in which ``report`` tells of hosts.
    """

    def __init__(
        self,
        fetch: Fetch,
        folder: DatasetFolder,
        options: DatasetOptions,
        parse: Parser,
        *,
        concurrency: int,
        number: int = 0,
        report: Callable[[], CrawlReport] = CrawlReport,
    ) -> None:
        self._fetch, self._folder, self._parse = fetch, folder, parse
        self._concurrency, self._number, self._report_hosts = concurrency, number, report
        self._decoder = Decoder(options)
        self._waiting = 0
        self._begun = 0.0
        self._outcomes: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()

    async def run(self, shards: Iterable[str]) -> AsyncIterator[CrawledShard]:
        """Yields each shard once its attempt is published.

        The next shard starts before the open ones cannot fill the requests in flight any more,
        so that a slow tail costs no time.
        """
        self._begun = asyncio.get_running_loop().time()
        left = iter(shards)
        running: set[asyncio.Task[CrawledShard]] = set()
        done: set[asyncio.Task[CrawledShard]] = set()
        async with self._decoder:
            progress = asyncio.create_task(self._report_progress())
            try:
                while True:
                    while self._waiting < AHEAD * self._concurrency and (shard := next(left, None)):
                        lines = await asyncio.to_thread(self._read_plan, shard)
                        self._waiting += len(lines)
                        running.add(asyncio.create_task(self._crawl_shard(shard, lines)))
                    if not running:
                        return
                    done, running = await asyncio.wait(
                        running, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        yield task.result()
            finally:
                for unfinished in (progress, *running):
                    unfinished.cancel()
                # What failed beside the first one to be told is told of no more.
                await asyncio.gather(progress, *running, *done, return_exceptions=True)
                self._report().publish(self._folder, self._number)

    def _read_plan(self, shard: str) -> list[bytes]:
        with self._folder.open(self._folder.plan(shard)) as file:
            return file.read().split(b"\n")[:-1]  # a line may hold a lone carriage return

    async def _crawl_shard(self, shard: str, lines: Sequence[bytes]) -> CrawledShard:
        attempt = self._folder.new_attempt(shard)
        with self._folder.spool() as directory, closing(ShardWriter(directory, attempt)) as writer:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for entry in self._triage(lines, writer):
                        tasks.create_task(self._crawl_entry(entry, writer))
            except BaseExceptionGroup as group:
                raise _first(group) from group
            await asyncio.to_thread(writer.publish)
            return CrawledShard(attempt, writer.fetched)

    def _triage(self, lines: Sequence[bytes], writer: ShardWriter) -> Iterable[Entry]:
        """The entries to fetch; the other lines get their rows."""
        wanted: dict[str, Entry] = {}
        repeated: list[Entry] = []
        for line in lines:
            try:
                entry = self._parse(line)
            except Rejected as reason:
                self._note(reason.row, writer)
                continue
            first = wanted.setdefault(entry.request_url, entry)
            if first is entry:
                continue
            if entry.image_id < first.image_id:
                wanted[entry.request_url], entry = entry, first
            repeated.append(entry)
        for entry in repeated:
            kept = wanted[entry.request_url]
            of = picture_name(kept.image_id, kept.url)
            row = Row(Outcome.DUPLICATE_URL, entry.image_id, entry.url, duplicate_of=of)
            self._note(row, writer, entry.checksum)
        return wanted.values()

    async def _crawl_entry(self, entry: Entry, writer: ShardWriter) -> None:
        while True:
            async with self._fetch(entry) as answer:
                if isinstance(answer, Body):
                    answer = of_the_list(answer, entry)
                if isinstance(answer, Body):
                    # Still in flight, so that undecoded pictures cannot pile up.
                    picture = writer.store(entry, answer)
                    answer.close()
                    decoded = await self._decoder.decode(picture)
                    self._count(writer.add_picture(entry, answer, picture, decoded))
                    return
            if answer.doubt is None or not await self._is_taken_back(answer.doubt):
                break
        status, detail = answer.http_status, answer.detail
        row = Row(answer.outcome, entry.image_id, entry.url, http_status=status, detail=detail)
        self._note(row, writer, entry.checksum)

    async def _is_taken_back(self, doubt: Awaitable[bool]) -> bool:
        self._waiting -= 1  # the requests in flight are for other lines meanwhile
        try:
            return await doubt
        finally:
            self._waiting += 1

    def _note(self, row: Row, writer: ShardWriter, checksum: str = "") -> None:
        writer.add(row, checksum)
        self._count(row)

    def _count(self, row: Row) -> None:
        self._waiting -= 1
        self._outcomes[row.outcome] += 1

    async def _report_progress(self) -> None:
        while True:
            await asyncio.to_thread(self._report().publish, self._folder, self._number)
            await asyncio.sleep(self._folder.progress_interval_s)

    def _report(self) -> CrawlReport:
        """What is done; also to Beam, whose counters know only the thread of the DoFn."""
        for outcome, number in (self._outcomes - self._counted).items():
            Metrics.counter("crawl", outcome).inc(number)
        self._counted = self._outcomes.copy()
        return replace(
            self._report_hosts(),
            outcomes=dict(self._outcomes),
            seconds=asyncio.get_running_loop().time() - self._begun,
        )


def _first(error: BaseException) -> BaseException:
    """What went wrong first in groups of groups: a group's own text does not say."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
