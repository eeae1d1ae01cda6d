"""The web as the source: every host is asked by its own rules, at its own pace."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from heapq import nlargest

from yarl import URL

from pipelines.crawl.answer import Answer, Body, Failure, Redirect, Silence
from pipelines.crawl.hosts import PROBES, Family, Host, Pace, Slots, met_nobody
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.outage import BELIEVED_S, OutageDetector
from pipelines.crawl.report import SHOWN_HOSTS, CrawlReport
from pipelines.crawl.robots import (
    MAX_INTERVAL_S,
    Rules,
    interval_s,
    parse_robots,
    product_token,
    refusal,
    robots_again_s,
)
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry, host_family

_MAX_BACKOFF_S = 60.0
START_RATE = 5.0
"""Requests a second to a family, of all crawlers together."""
# Of one family, so that a URL that hangs does not hold up the others.
_LEAST_IN_FLIGHT = 8
# Without open URLs. A small family's URLs are all in one shard, and large families are used in
# every shard, so they are never the ones forgotten.
_FAMILIES_KEPT = 5_000
# Of the requests in flight, those to hosts that have not answered yet: where most of these are
# silent, they would keep every other host waiting.
_STRANGERS_PART = 0.75
# Of one URL, of a host that stalls again and again.
_STALLS = 5
# Of a URL at a host that answers otherwise, where it met nobody.
_TRIES = 2


@dataclass
class _Stalled(Exception):
    """The host of a request is silent, though it had answered before."""

    host: Host
    failure: Failure | None
    """None where the request was not made."""


class Web:
    """Fetches pictures for one event loop, and keeps what it learns of hosts.

    It owns its part of every host's pace: one of ``crawl.crawlers``. ``answered`` are URLs whose
    hosts answered earlier. ``backoff_s`` is the first pause before a retry.
    """

    def __init__(
        self,
        client: HttpClient,
        crawl: CrawlOptions,
        *,
        robots: bool = True,
        answered: Iterable[str] = (),
        backoff_s: float = 1.0,
    ) -> None:
        self._client, self._crawl, self._robots = client, crawl, robots
        self._backoff_s = backoff_s
        self._clock = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(crawl.concurrency)
        self._of_strangers = Slots(max(1, int(crawl.concurrency * _STRANGERS_PART)), self._slots)
        self._outage = OutageDetector(client.reaches, clock=self._clock, take_back=self._take_back)
        for url in answered:
            self._outage.know(url)
        self._open: dict[str, Family] = {}
        self._idle: dict[str, Family] = {}
        self._given_up = 0
        self._last_given_up: deque[str] = deque(maxlen=SHOWN_HOSTS)

    def close(self) -> None:
        """Ends what waits for the network."""
        self._outage.close()

    def report(self) -> CrawlReport:
        """What there is to tell of hosts and of the network."""
        left_s = {name: family.left_s for name, family in self._open.items()}
        slowest = nlargest(SHOWN_HOSTS, left_s, key=left_s.__getitem__)
        return CrawlReport(
            slowest={name: left_s[name] for name in slowest},
            given_up=self._given_up,
            last_given_up=tuple(self._last_given_up),
            outage=self._outage.outage,
        )

    @asynccontextmanager
    async def fetch(self, entry: Entry) -> AsyncIterator[Body | Failure]:
        """As answer.Fetch has it."""
        name = host_family(entry.host)
        family = self._open[name] = self._family(name)
        self._idle.pop(name, None)
        family.waiting += 1
        try:
            stalls = 0
            while True:
                try:
                    async with family.in_flight:
                        with ExitStack() as held:
                            yield self._doubted(await self._follow(entry.request_url, held))
                            return
                except _Stalled as error:
                    host, failure = error.host, error.failure
                if host.stall:  # waited for here, where it holds up no other host
                    await asyncio.shield(host.stall)
                stalls += failure is not None
                if failure and (host.given_up or stalls == _STALLS):
                    why = host.given_up or f"the host stalled {stalls} times"
                    yield self._doubted(_explained(failure, why))
                    return
        finally:
            family.waiting -= 1
            if not family.waiting:
                self._idle[name] = self._open.pop(name)
            if not self._open:
                self._outage.doubt_no_more()

    def _doubted(self, answer: Body | Failure) -> Body | Failure:
        if isinstance(answer, Failure) and answer.silence is not None:
            return replace(answer, doubt=self._outage.doubt())
        return answer

    def _take_back(self, since: float) -> None:
        """Forgets what was learnt of hosts in, or just before, an outage."""
        for family in (*self._open.values(), *self._idle.values()):
            for host in family.hosts.values():
                host.take_back(since)

    def _family(self, name: str) -> Family:
        """What is known of a host family; of idle ones those used last, as memory allows."""
        if family := self._open.get(name):
            return family
        family = self._idle.pop(name, None) or self._new_family()
        while len(self._idle) >= _FAMILIES_KEPT:
            del self._idle[next(iter(self._idle))]
        self._idle[name] = family
        return family

    def _new_family(self) -> Family:
        in_flight = max(_LEAST_IN_FLIGHT, self._crawl.concurrency // 4)
        crawlers, ceiling = self._crawl.crawlers, self._crawl.requests_per_host
        # Of many crawlers each gets few answers: ten together grow as fast as one.
        pace = Pace(
            ceiling / crawlers,
            min(ceiling, START_RATE) / crawlers,
            growth=ceiling / crawlers * min(crawlers, 10) / 100,
            clock=self._clock,
        )
        return Family(pace, asyncio.Semaphore(in_flight))

    def _host(self, url: URL) -> tuple[Host, Pace]:
        family = self._family(host_family(url.raw_host or ""))
        name = str(url.origin()) if url.raw_host else ""
        return family.hosts.get(name) or family.hosts.setdefault(name, Host(name)), family.pace

    async def _follow(self, address: str, held: ExitStack) -> Body | Failure:
        """What comes of a URL, or of where it redirects to; as long as ``held`` it is in flight."""
        redirects = 0
        while True:
            url = URL(address, encoded=True)
            host, pace = self._host(url)
            try:
                answer: Answer | None = await self._refusal(url, host, pace)
                if answer is None:
                    get = partial(self._client.picture, address, redirects)
                    answer = await self._ask(get, host, pace, held)
            except _Stalled as error:
                if error.failure and redirects:
                    raise _Stalled(host, _redirected(error.failure, address)) from None
                raise
            if isinstance(answer, Failure) and redirects:
                return _redirected(answer, address)
            if not isinstance(answer, Redirect):
                return answer
            held.close()
            address, redirects = answer.url, answer.count

    async def _refusal(self, url: URL, host: Host, pace: Pace) -> Failure | None:
        """Why a URL is not requested at all, if so."""
        if not self._robots or host.given_up:
            return None
        return refusal(await self._rules(url, host, pace), str(url))

    async def _rules(self, url: URL, host: Host, pace: Pace) -> Rules:
        """The host's robots.txt, fetched by the first of its URLs for all."""
        if host.robots is None or self._clock() >= host.robots_until:
            host.robots = asyncio.get_running_loop().create_future()
            host.robots_until = float("inf")
            get = partial(self._client.robots, str(url.origin() / "robots.txt"))
            try:
                with ExitStack() as held:
                    answer = await self._ask(get, host, pace, held)
                    assert not isinstance(answer, Redirect)  # followed to wherever it is
                    rules = parse_robots(answer, product_token(self._crawl.user_agent))
            except _Stalled:
                waiting, host.robots = host.robots, None
                waiting.set_exception(_Stalled(host, None))
                waiting.exception()  # nobody may wait
                raise
            if 0 < (wanted_s := interval_s(rules)) <= MAX_INTERVAL_S:
                pace.limit(1 / (wanted_s * self._crawl.crawlers))
            host.robots_until = self._clock() + robots_again_s(rules)
            host.robots.set_result(rules)
        return await host.robots

    async def _ask(
        self, get: Callable[[], Awaitable[Answer]], host: Host, pace: Pace, held: ExitStack
    ) -> Answer:
        """The answer to a request, after retries where they may help; ``held`` gets its slot."""
        failure: Failure | None = None
        tries = 0
        while True:
            if host.stall:
                raise _Stalled(host, failure)
            pause_s = self._backoff_s * 2**tries * random.uniform(0.5, 1.5)
            slots = self._slots if host.answered else self._of_strangers
            if not await pace.wait(slots):
                status = failure.http_status if failure else None
                return Failure(Outcome.RATE_LIMITED, pace.refusal, status)
            with ExitStack() as turn:
                turn.callback(slots.release)
                # The host may have been given up while this URL waited for its turn.
                if host.given_up:
                    if failure:
                        return _explained(failure, host.given_up)
                    is_new = self._clock() - host.given_up_at < BELIEVED_S
                    silence = Silence.HOST if is_new else None
                    return Failure(Outcome.HOST_GIVEN_UP, host.given_up, silence=silence)
                if host.stall:
                    continue
                begun = self._clock()
                answer = await get()
                # In its slot, so that no more than these are made while the network is gone.
                if not await self._outage.confirms(answer, begun):
                    continue
                is_doubted = host.answered and met_nobody(answer)
                if not is_doubted:
                    self._learn(answer, host, pace, begun)
                    tries += 1
                    if not isinstance(answer, Failure) or tries >= answer.outcome.tries:
                        held.push(turn.pop_all())
                        return answer
            assert isinstance(answer, Failure)
            failure = answer
            if is_doubted:
                await self._control(failure, host, pace)
                tries += 1
                if tries >= _TRIES:
                    self._learn(failure, host, pace, begun)
                    return _explained(failure, f"{tries} times, though the host answers")
            await asyncio.sleep(min(pause_s, _MAX_BACKOFF_S))

    async def _control(self, failure: Failure, host: Host, pace: Pace) -> None:
        """Asks for the host's robots.txt, once for all that failed; raises _Stalled for silence."""
        if host.control is None or host.control.done():
            host.control = asyncio.create_task(self._answers(host, pace))
        if not await asyncio.shield(host.control):
            if not host.stall and not host.given_up:
                host.stall = asyncio.create_task(self._wait_out(host, pace))
            raise _Stalled(host, failure)

    async def _answers(self, host: Host, pace: Pace) -> bool:
        """Whether a host answers a request for its robots.txt, whatever it answers."""
        while True:
            async with pace.turn(self._slots) as is_granted:
                if not is_granted:  # no silence
                    return True
                begun = self._clock()
                answer = await self._client.robots(f"{host.name}/robots.txt")
                if isinstance(answer, Body):
                    answer.close()
                if await self._outage.confirms(answer, begun):
                    pace.note(answer, self._backoff_s)
                    return not met_nobody(answer)

    async def _wait_out(self, host: Host, pace: Pace) -> None:
        """Probes a silent host after longer and longer pauses, until it answers or is given up."""
        begun = self._clock()
        try:
            for probe in range(1, PROBES):  # the first was the control
                await asyncio.sleep(self._backoff_s * 2 ** (probe - 1))
                if await self._answers(host, pace):
                    return
            silent_s = self._clock() - begun
            host.given_up = f"{PROBES} requests for robots.txt in {silent_s:.0f} s met no answer"
            host.given_up_at = self._clock()
            self._tell_given_up(host)
        finally:
            host.stall = None

    def _learn(self, answer: Answer, host: Host, pace: Pace, begun: float) -> None:
        if not host.answered and (not isinstance(answer, Failure) or answer.http_status):
            host.answered = True
            self._outage.know(host.name)
        is_refused = pace.note(answer, self._backoff_s * random.uniform(0.5, 1.5))
        if host.note(answer, begun, self._clock()) or is_refused:
            self._tell_given_up(host)

    def _tell_given_up(self, host: Host) -> None:
        self._given_up += 1
        self._last_given_up.appendleft(host.name)


def _explained(failure: Failure, why: str) -> Failure:
    """With what the final word rests on."""
    return replace(failure, detail=f"{failure.detail or failure.outcome}; {why}")


def _redirected(failure: Failure, address: str) -> Failure:
    detail = f"redirected to {address[:200]}: {failure.detail or failure.outcome}"
    return replace(failure, detail=detail)
