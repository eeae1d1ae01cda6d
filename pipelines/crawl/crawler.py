"""A crawler: takes shards one after another and decides what becomes of each of their lines."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice
from typing import Protocol, TypeVar

from apache_beam.metrics import Metrics
from protego import Protego
from yarl import URL

from pipelines.command.cli import WorkError
from pipelines.crawl.answer import Body, Failure, Redirect
from pipelines.crawl.hosts import (
    MAX_ROBOTS_BYTES,
    Family,
    Host,
    Pace,
    Rules,
    parse_robots,
    robots_again_s,
)
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.outage import Network
from pipelines.crawl.report import CrawlReport
from pipelines.crawl.stored import OriginalsClient
from pipelines.crawl.writer import ShardSpool
from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.lists.url_list import Entry, Parser, Rejected, host_family
from pipelines.pictures.decoder import Decoder

_MAX_BACKOFF_S = 60.0
# Of one family, so that a URL that hangs does not hold up the others.
_LEAST_IN_FLIGHT = 8
# The state of a family with many URLs in all shards is never among the oldest.
_FAMILIES_KEPT = 5_000
_SHOWN_HOSTS = 3
_POLL_S = 0.2


_Used = TypeVar("_Used")


class Client(Protocol):
    """What fetches a URL: HttpClient, or FolderClient for a folder of pictures."""

    async def get(
        self, url: str, *, redirects: int = 0, first_bytes: int | None = None
    ) -> Body | Failure | Redirect:
        """As HttpClient.get has it."""
        ...

    async def reaches(self, url: str) -> bool:
        """Whether the host of a URL can be connected to at this moment."""
        ...


@dataclass(frozen=True)
class CrawledShard:
    """A published attempt and its table."""

    attempt: Attempt
    fetched: Sequence[Fetched]


class Crawler:
    """Fetches and digests shards for one event loop; keeps what it learns of hosts.

    ``number`` is its own among ``crawl.crawlers``, each of which owns that part of every host's
    pace. ``answered`` are URLs that hosts answered earlier. ``backoff_s`` is the first pause
    before a retry.
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
        answered: Iterable[str] = (),
        paced: bool = True,
        backoff_s: float = 1.0,
    ) -> None:
        self._client, self._folder, self._options, self._crawl = client, folder, options, crawl
        self._parse, self._number, self._backoff_s = parse, number, backoff_s
        self._answered = answered
        self._robots = paced and options.robots
        self._ceiling = crawl.requests_per_host / crawl.crawlers if paced else float("inf")
        self._slots = asyncio.Semaphore(crawl.concurrency)
        self._decoder = Decoder(options)
        self._originals = OriginalsClient(folder, options.max_bytes)
        self._families: dict[str, Family] = {}
        self._waiting = 0
        self._outcomes: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._given_up = 0
        self._last_given_up: deque[str] = deque(maxlen=_SHOWN_HOSTS)

    async def run(self, shards: Iterable[str]) -> AsyncIterator[CrawledShard]:
        """Yields each shard once its attempt is published.

        The next shard starts as soon as the open ones cannot fill the requests in flight any
        more, so that a slow tail costs no time.
        """
        left = iter(shards)
        self._clock = asyncio.get_running_loop().time
        self._network = Network(self._client.reaches, clock=self._clock)
        for url in self._answered:
            self._network.know(url)
        running: set[asyncio.Task[CrawledShard]] = set()
        async with self._decoder:
            progress = asyncio.create_task(self._report_progress())
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
                for unfinished in (progress, *running):
                    unfinished.cancel()
                await asyncio.gather(progress, *running, return_exceptions=True)
                self._network.close()
                self._write_progress(self._report())

    def _read_plan(self, shard: str) -> list[bytes]:
        with self._folder.open(self._folder.plan(shard)) as file:
            return file.read().split(b"\n")[:-1]  # a line may hold a lone carriage return

    async def _crawl_shard(self, shard: str, lines: Sequence[bytes]) -> CrawledShard:
        attempt = self._folder.new_attempt(shard)
        with self._folder.spool() as directory, closing(ShardSpool(directory, attempt)) as spool:
            families = self._triage(lines, spool)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for name, entries in families.items():
                        family = self._family(name)
                        family.waiting += len(entries)
                        tasks.create_task(self._crawl_family(family, entries, spool))
            except BaseExceptionGroup as group:
                raise _first(group) from group
            self._forget_families()
            await asyncio.to_thread(spool.publish)
            return CrawledShard(attempt, spool.fetched)

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

    def _family(self, name: str) -> Family:
        """What is known of a host family; of long unused ones no more than memory allows."""
        family = self._families.pop(name, None)
        if family is None:
            in_flight = max(_LEAST_IN_FLIGHT, self._crawl.concurrency // 4)
            pace = Pace(self._ceiling, clock=asyncio.get_running_loop().time)
            family = Family(pace, asyncio.Semaphore(in_flight))
        self._families[name] = family
        return family

    def _forget_families(self) -> None:
        """A small family's URLs are all in one shard, so that little is ever asked twice."""
        idle = (name for name, family in self._families.items() if not family.waiting)
        surplus = len(self._families) - _FAMILIES_KEPT
        for name in list(islice(idle, max(surplus, 0))):
            del self._families[name]

    async def _crawl_family(
        self, family: Family, entries: Sequence[Entry], spool: ShardSpool
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            for entry in entries:
                await family.in_flight.acquire()
                task = tasks.create_task(self._crawl_url(entry, family, spool))
                task.add_done_callback(lambda _: family.in_flight.release())

    async def _crawl_url(self, entry: Entry, family: Family, spool: ShardSpool) -> None:
        async def use(body: Body) -> Row:
            picture = spool.store(entry, body)
            body.close()
            decoded = await self._decoder.decode(picture)
            return spool.add_picture(entry, body, picture, decoded)

        result: Row | Failure
        if entry.original:
            async with self._slots:
                answer = await self._originals.get(entry.original)
                result = await use(answer) if isinstance(answer, Body) else answer
        else:
            result = await self._follow(entry.request_url, use)
        family.waiting -= 1
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

    async def _follow(
        self, address: str, use: Callable[[Body], Awaitable[_Used]]
    ) -> _Used | Failure:
        """What ``use`` makes of the body at a URL, or of where that redirects to.

        Each origin on the way is asked by its own rules, at its own pace.
        """
        redirects = 0
        while True:
            url = URL(address, encoded=True)
            family, host = self._host(url)
            answer: _Used | Failure | Redirect | None
            answer = await self._refusal(url, host, family.pace)
            if answer is None:
                answer = await self._fetch(address, host, family.pace, use, redirects=redirects)
            if isinstance(answer, Failure) and redirects:
                detail = f"redirected to {address[:200]}: {answer.detail or answer.outcome}"
                return replace(answer, detail=detail)
            if not isinstance(answer, Redirect):
                return answer
            address, redirects = answer.url, answer.count

    def _host(self, url: URL) -> tuple[Family, Host]:
        family = self._family(host_family(url.raw_host or ""))
        name = str(url.origin()) if url.raw_host else ""
        return family, family.hosts.get(name) or family.hosts.setdefault(name, Host(name))

    async def _refusal(self, url: URL, host: Host, pace: Pace) -> Failure | None:
        """Why a URL is not requested at all, if so."""
        if not self._robots or host.given_up:
            return None
        rules = await self._rules(url, host, pace)
        if isinstance(rules, Protego) and not rules.can_fetch(str(url), self._crawl.user_agent):
            return Failure(Outcome.ROBOTS_DENIED, "by robots.txt")
        return rules if isinstance(rules, Failure) else None

    async def _rules(self, url: URL, host: Host, pace: Pace) -> Rules:
        """The host's robots.txt, fetched by the first of its URLs for all."""
        loop = asyncio.get_running_loop()
        if host.robots is None or loop.time() >= host.robots_until:
            host.robots, host.robots_until = loop.create_future(), float("inf")
            address = str(url.origin() / "robots.txt")
            rules = await self._fetch(
                address, host, pace, _use_robots, first_bytes=MAX_ROBOTS_BYTES
            )
            assert not isinstance(rules, Redirect)  # followed to wherever it is
            if isinstance(rules, Failure):
                rules = parse_robots(rules)
            host.robots_until = loop.time() + robots_again_s(rules)
            host.robots.set_result(rules)
        return await host.robots

    async def _fetch(
        self,
        url: str,
        host: Host,
        pace: Pace,
        use: Callable[[Body], Awaitable[_Used]],
        *,
        redirects: int = 0,
        first_bytes: int | None = None,
    ) -> _Used | Failure | Redirect:
        """What ``use`` makes of the body, or why there is none even after retries."""
        failure: Failure | None = None
        tries = 0
        while True:
            if not await pace.turn(self._slots):
                detail = f"the host wants a pause of {pace.wait_s:.0f} s"
                status = failure.http_status if failure else None
                return Failure(Outcome.RATE_LIMITED, detail, status)
            pause_s = self._backoff_s * 2**tries * random.uniform(0.5, 1.5)
            try:
                # The host may have been given up while this URL waited for its turn.
                if host.given_up:
                    return failure or Failure(Outcome.HOST_GIVEN_UP)
                begun = self._clock()
                answer = await self._client.get(url, redirects=redirects, first_bytes=first_bytes)
                # In its slot, so that no more than these are made while the network is gone.
                if not await self._network.confirms(answer, begun):
                    continue
                if not host.answered and (not isinstance(answer, Failure) or answer.http_status):
                    host.answered = True
                    self._network.know(host.name)
                if host.note(answer):
                    self._given_up += 1
                    self._last_given_up.appendleft(host.name)
                pace.note(answer, pause_s)
                if isinstance(answer, Body):
                    # Still in flight, so that undecoded pictures cannot pile up.
                    return await use(answer)
                if isinstance(answer, Redirect):
                    return answer
            finally:
                self._slots.release()
            failure, tries = answer, tries + 1
            if tries >= failure.outcome.tries:
                return failure
            await asyncio.sleep(min(pause_s, _MAX_BACKOFF_S))

    async def _report_progress(self) -> None:
        while True:
            await asyncio.to_thread(self._write_progress, self._report())
            await asyncio.sleep(self._folder.progress_interval_s)

    def _report(self) -> CrawlReport:
        """What is done; also to Beam, whose counters know only the thread of the DoFn."""
        for outcome, number in (self._outcomes - self._counted).items():
            Metrics.counter("crawl", outcome).inc(number)
        self._counted = self._outcomes.copy()
        left_s = {name: family.left_s for name, family in self._families.items() if family.waiting}
        slowest = nlargest(_SHOWN_HOSTS, left_s, key=left_s.__getitem__)
        return CrawlReport(
            outcomes=dict(self._outcomes),
            slowest={name: left_s[name] for name in slowest},
            given_up=self._given_up,
            last_given_up=tuple(self._last_given_up),
            outage=self._network.outage,
        )

    def _write_progress(self, report: CrawlReport) -> None:
        with suppress(WorkError):  # an object store may fail for a moment
            self._folder.publish_json(self._folder.progress(self._number), report.to_json())


def _first(error: BaseException) -> BaseException:
    """What went wrong first in groups of groups: a group's own text does not say."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _use_robots(body: Body) -> Rules:
    try:
        return parse_robots(body)
    finally:
        body.close()
