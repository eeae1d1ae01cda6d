"""A web on a virtual clock: hosts with moods, asked by real crawlers; no sockets, no sleeping.

What a host says at a time is a function of the seed, so that hours of many crawlers at thousands of
hosts pass in seconds, and pass in the same way again.
"""

import asyncio
import io
import random
import selectors
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from yarl import URL

from pipelines.crawl.answer import Answer, Body, Failure, Silence
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.web import Web
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry

T = TypeVar("T")

START_S = 1_000.0
"""What the virtual clock shows first."""
_LOOK_UP_S = 0.05
CONNECT_S = 10.0
"""Until a connection is given up."""
Span = tuple[float, float]


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop that does not sleep: its clock jumps to what comes next."""

    def __init__(self) -> None:
        loop, self._now = self, START_S

        class Jump(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop._now += max(timeout or 0, 0)
                return super().select(0)

        super().__init__(Jump())

    def time(self) -> float:
        return self._now


def in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives; it may take eleven days."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(asyncio.wait_for(coroutine, 1_000_000))


@dataclass(frozen=True)
class Host:
    """A host and its moods; times are in seconds since the start."""

    name: str
    urls: int = 10
    latency_s: float = 0.1
    has_address: bool = True
    takes_connections: bool = True
    silent: Sequence[Span] = ()
    """Connections are taken, and not answered."""
    capacity: float = float("inf")
    """Requests a second; those beyond are answered 429."""
    retry_after_s: float | None = None
    """What such an answer asks for."""
    slow_start_s: float = 0.0
    """What its very first answers take more."""

    @property
    def is_dead(self) -> bool:
        return not (self.has_address and self.takes_connections)


@dataclass
class SimulatedWeb:
    """Hosts, and the times at which the crawlers' own network is gone."""

    hosts: Sequence[Host]
    outages: Sequence[Span] = ()
    timeout_s: float = 30.0
    seed: int = 0
    asks_robots: bool = True
    """Whether the crawlers ask for robots.txt."""
    asked: dict[str, list[float]] = field(default_factory=dict)
    """When each host got a request, robots.txt included."""
    answered: dict[str, float] = field(default_factory=dict)
    """When each host first answered."""

    def __post_init__(self) -> None:
        self._by_name = {host.name: host for host in self.hosts}
        self._chance = random.Random(self.seed)

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        answer = await self._answer(URL(url).host or "")
        return answer or Body(io.BytesIO(), 0, "")

    async def robots(self, url: str) -> Answer:
        answer = await self._answer(URL(url).host or "")
        return answer or Failure(Outcome.HTTP_CLIENT_ERROR, "none", 404)

    async def reaches(self, url: str) -> bool:
        host = self._by_name[URL(url).host or ""]
        is_there = not host.is_dead and not self._is_gone(self._now())
        await asyncio.sleep(_LOOK_UP_S if is_there else 5)
        return is_there

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - START_S

    def _is_gone(self, at: float) -> bool:
        return _end(self.outages, at) is not None

    async def _answer(self, name: str) -> Failure | None:
        """Why a host does not answer a request well, if so."""
        host, begun = self._by_name[name], self._now()
        if self._is_gone(begun):
            await asyncio.sleep(CONNECT_S)
            return Failure(Outcome.DNS_FAILED, "no name server", silence=Silence.NAME_SERVER)
        times = self.asked.setdefault(name, [])
        times.append(begun)
        await asyncio.sleep(_LOOK_UP_S)
        if not host.has_address:
            return Failure(Outcome.DNS_FAILED, "no such name")
        if not host.takes_connections:
            await asyncio.sleep(CONNECT_S)
            return Failure(Outcome.CONNECT_FAILED, "no connection", silence=Silence.HOST)
        takes_s = host.latency_s * self._chance.uniform(0.5, 1.5)
        if len(times) <= 3:
            takes_s += host.slow_start_s
        # A packet that gets lost is sent again.
        done = self._now() + takes_s
        for spans in (host.silent, self.outages):
            if (end := _end(spans, done)) is not None:
                done = end + takes_s
        if done - begun > self.timeout_s:
            await asyncio.sleep(begun + self.timeout_s - self._now())
            return Failure(Outcome.TIMED_OUT, "silence", silence=Silence.HOST)
        await asyncio.sleep(done - self._now())
        self.answered.setdefault(name, self._now())
        in_a_second = sum(1 for time in reversed(times[-1_000:]) if time > begun - 1)
        if in_a_second > host.capacity:
            return Failure(Outcome.RATE_LIMITED, "too fast", 429, host.retry_after_s)
        return None


def _end(spans: Sequence[Span], at: float) -> float | None:
    """The end of the span that holds a time."""
    return next((end for start, end in spans if start <= at < end), None)


@dataclass(frozen=True)
class Crawled:
    """What became of every URL, by host."""

    answers: Mapping[str, Sequence[Failure | None]]
    took_s: float

    def outcomes(self, host: str) -> Counter[str]:
        return Counter(str(answer.outcome) if answer else "ok" for answer in self.answers[host])


def crawl(web: SimulatedWeb, options: CrawlOptions) -> Crawled:
    """All URLs of the web, dealt out to as many crawlers as the options say."""
    random.seed(web.seed)  # the crawlers' own chance
    chance = random.Random(web.seed)
    dealt: list[list[str]] = [[] for _ in range(options.crawlers)]
    for host in web.hosts:
        of_host = chance.randrange(options.crawlers)
        for number in range(host.urls):
            # A family of many lines is everybody's.
            crawler = number % options.crawlers if host.urls > 50 else of_host
            dealt[crawler].append(f"http://{host.name}/{number}")
    answers: dict[str, list[Failure | None]] = {host.name: [] for host in web.hosts}

    async def fetch(crawler: Web, url: str) -> None:
        host = URL(url).host or ""
        while True:
            async with crawler.fetch(Entry("n1", url, url, host)) as answer:
                failure = answer if isinstance(answer, Failure) else None
            if failure is None or failure.doubt is None or not await failure.doubt:
                break
        answers[host].append(failure)

    async def crawl_part(urls: Sequence[str]) -> None:
        with closing(Web(web, options, robots=web.asks_robots)) as crawler:  # type: ignore[arg-type]
            async with asyncio.TaskGroup() as tasks:
                for url in urls:
                    tasks.create_task(fetch(crawler, url))

    async def crawl_all() -> float:
        async with asyncio.TaskGroup() as tasks:
            for urls in dealt:
                chance.shuffle(urls)
                tasks.create_task(crawl_part(urls))
        return asyncio.get_running_loop().time() - START_S

    return Crawled(answers, in_virtual_time(crawl_all()))
