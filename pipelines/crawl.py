"""A crawler: takes shards one after another and decides what becomes of each of their lines."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Protocol

from protego import Protego
from yarl import URL

from pipelines.decoder import Decoder
from pipelines.hosts import MAX_RETRY_AFTER_S, MAX_ROBOTS_BYTES, Host, Pace, parse_robots
from pipelines.http_client import Body, Failure
from pipelines.options import CrawlOptions, DatasetOptions
from pipelines.outcomes import Outcome, Row
from pipelines.spool import ShardSpool
from pipelines.storage import Attempt, DatasetFolder
from pipelines.url_list import Entry, Parser, Rejected, host_family

# Of a body that broke off or a passing server error; a refusal by pace is tried longer.
_TRIES: Mapping[Outcome, int] = {
    Outcome.CONNECTION_LOST: 3,
    Outcome.HTTP_SERVER_ERROR: 3,
    Outcome.RATE_LIMITED: 5,
}
_MAX_BACKOFF_S = 60.0
# Of one family, so that a URL that hangs does not hold up the others.
_LEAST_IN_FLIGHT = 8
_PROGRESS_INTERVAL_S = 1.0
_POLL_S = 0.2


class Client(Protocol):
    """What fetches a URL: HttpClient, or FolderClient for a folder of pictures."""

    async def get(self, url: str, *, max_bytes: int | None = None) -> Body | Failure:
        """The body of a URL, or why there is none."""
        ...


@dataclass(frozen=True)
class CrawledShard:
    """A published attempt and its table."""

    attempt: Attempt
    rows: Sequence[Row]


class Crawler:
    """Fetches and digests shards for one event loop; keeps what it learns of hosts.

    ``number`` is its own among ``crawl.crawlers``, each of which owns that part of every host's
    pace. ``backoff_s`` is the first pause before a retry.
    """

    def __init__(
        self,
        client: Client,
        folder: DatasetFolder,
        options: DatasetOptions,
        crawl: CrawlOptions,
        parse: Parser,
        *,
        number: int = 0,
        paced: bool = True,
        backoff_s: float = 1.0,
    ) -> None:
        self._client, self._folder, self._options, self._crawl = client, folder, options, crawl
        self._parse, self._number, self._backoff_s = parse, number, backoff_s
        self._robots = paced and options.robots
        self._ceiling = crawl.requests_per_host / crawl.crawlers if paced else float("inf")
        self._slots = asyncio.Semaphore(crawl.concurrency)
        self._decoder = Decoder(options)
        self._paces: dict[str, Pace] = {}
        self._hosts: dict[str, Host] = {}
        self._waiting = 0
        self._outcomes: Counter[str] = Counter()

    async def run(self, shards: Iterable[str]) -> AsyncIterator[CrawledShard]:
        """Yields each shard once its attempt is published.

        The next shard starts as soon as the open ones cannot fill the requests in flight any
        more, so that a slow tail costs no time.
        """
        async with self._decoder:
            async for crawled in self._run(iter(shards)):
                yield crawled

    async def _run(self, left: Iterator[str]) -> AsyncIterator[CrawledShard]:
        progress = asyncio.create_task(self._report_progress())
        running: set[asyncio.Task[CrawledShard]] = set()
        try:
            while True:
                while self._waiting < self._crawl.concurrency and (shard := next(left, None)):
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
            progress.cancel()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._write_progress()

    def _read_plan(self, shard: str) -> list[bytes]:
        with self._folder.open(self._folder.plan(shard)) as file:
            return file.read().split(b"\n")[:-1]  # a line may hold a lone carriage return

    async def _crawl_shard(self, shard: str, lines: Sequence[bytes]) -> CrawledShard:
        with self._folder.spool() as directory, closing(ShardSpool(directory)) as spool:
            families = self._triage(lines, spool)
            async with asyncio.TaskGroup() as tasks:
                for family, entries in families.items():
                    tasks.create_task(self._crawl_family(family, entries, spool))
            attempt = self._folder.new_attempt(shard)
            await asyncio.to_thread(spool.publish, attempt)
            return CrawledShard(attempt, spool.rows)

    def _triage(self, lines: Sequence[bytes], spool: ShardSpool) -> dict[str, list[Entry]]:
        """The entries to fetch by host family, in order; the rest get their rows."""
        wanted: dict[str, Entry] = {}
        repeated: list[Entry] = []
        for line in lines:
            try:
                entry = self._parse(line)
            except Rejected as reason:
                self._note(spool, reason.row)
                continue
            first = wanted.setdefault(entry.request_url, entry)
            if first is entry:
                continue
            if entry.image_id < first.image_id:
                wanted[entry.request_url], entry = entry, first
            repeated.append(entry)
        for entry in repeated:
            kept = wanted[entry.request_url]
            kept_name = f"{kept.image_id} {kept.url}"
            self._note(
                spool,
                Row(Outcome.DUPLICATE_URL, entry.image_id, entry.url, duplicate_of=kept_name),
            )
        families: dict[str, list[Entry]] = {}
        for entry in wanted.values():
            families.setdefault(host_family(entry.host), []).append(entry)
        return families

    def _note(self, spool: ShardSpool, row: Row) -> None:
        spool.add(row)
        self._count(row)

    def _count(self, row: Row) -> None:
        self._waiting -= 1
        self._outcomes[row.outcome] += 1

    async def _crawl_family(self, family: str, entries: Sequence[Entry], spool: ShardSpool) -> None:
        pace = self._pace(family)
        async with asyncio.TaskGroup() as tasks:
            for entry in entries:
                await pace.in_flight.acquire()
                task = tasks.create_task(self._crawl_url(entry, pace, spool))
                task.add_done_callback(lambda _: pace.in_flight.release())

    def _pace(self, family: str) -> Pace:
        pace = self._paces.get(family)
        if pace is None:
            in_flight = max(_LEAST_IN_FLIGHT, self._crawl.concurrency // 4)
            pace = Pace(self._ceiling, in_flight, clock=asyncio.get_running_loop().time)
            self._paces[family] = pace
        return pace

    async def _crawl_url(self, entry: Entry, pace: Pace, spool: ShardSpool) -> None:
        url = URL(entry.request_url, encoded=True)
        host = self._hosts.setdefault(str(url.origin()) if entry.host else "", Host())
        refused = await self._refusal(url, host, pace)
        result = refused or await self._fetch(entry, host, pace, spool)
        if isinstance(result, Row):
            self._count(result)
        else:
            row = Row(
                result.outcome,
                entry.image_id,
                entry.url,
                http_status=result.http_status,
                detail=result.detail,
            )
            self._note(spool, row)

    async def _refusal(self, url: URL, host: Host, pace: Pace) -> Failure | None:
        """Why a URL is not requested at all, if so."""
        if not host.given_up and self._robots:
            rules = await self._rules(url, host, pace)
            if isinstance(rules, Failure):
                return rules
            if rules and not rules.can_fetch(str(url), self._crawl.user_agent):
                return Failure(Outcome.ROBOTS_DENIED, "by robots.txt")
        if host.given_up:
            return Failure(Outcome.HOST_GIVEN_UP)
        return None

    async def _rules(self, url: URL, host: Host, pace: Pace) -> Protego | Failure | None:
        """The host's robots.txt, fetched by the first of its URLs for all."""
        if host.robots is None:
            host.robots = asyncio.get_running_loop().create_future()
            async with self._request(pace):
                answer = await self._client.get(
                    str(url.origin() / "robots.txt"), max_bytes=MAX_ROBOTS_BYTES
                )
            host.note(answer)
            rules = parse_robots(answer)
            host.robots.set_result(rules)
            if isinstance(rules, Failure) and rules.outcome is not Outcome.ROBOTS_DENIED:
                host.robots = None  # a later URL asks again, until the host is given up
            return rules
        return await host.robots

    async def _fetch(
        self, entry: Entry, host: Host, pace: Pace, spool: ShardSpool
    ) -> Row | Failure:
        tries = 0
        while True:
            if pace.wait_s > MAX_RETRY_AFTER_S:
                return Failure(
                    Outcome.RATE_LIMITED, f"the host wants a pause of {pace.wait_s:.0f} s"
                )
            async with self._request(pace):
                # The host may have been given up while this URL waited for its turn.
                if host.given_up:
                    return Failure(Outcome.HOST_GIVEN_UP)
                answer = await self._client.get(entry.request_url)
                host.note(answer)
                if isinstance(answer, Body):
                    pace.answered_well()
                    picture = spool.store(entry, answer)
                    answer.close()
                    # Still in flight, so that undecoded pictures cannot pile up.
                    return spool.add_picture(picture, await self._decoder.decode(picture))
            tries += 1
            pause_s = self._backoff_s * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            if answer.outcome is Outcome.RATE_LIMITED:
                pace.refused(answer.retry_after_s or pause_s)
            elif answer.http_status:
                pace.answered_well()
            if tries >= _TRIES.get(answer.outcome, 1):
                return answer
            await asyncio.sleep(min(pause_s, _MAX_BACKOFF_S))

    @asynccontextmanager
    async def _request(self, pace: Pace) -> AsyncIterator[None]:
        """One of the requests in flight, at the family's pace."""
        async with pace.gate:  # one at a time, so that no burst can form
            await pace.turn()
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _report_progress(self) -> None:
        while True:
            await asyncio.to_thread(self._write_progress)
            await asyncio.sleep(_PROGRESS_INTERVAL_S)

    def _write_progress(self) -> None:
        self._folder.publish_json(self._folder.progress(self._number), dict(self._outcomes))
