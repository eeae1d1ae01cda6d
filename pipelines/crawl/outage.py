"""An outage of the crawler's own network: told apart from dead hosts, and waited out."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable

from yarl import URL

from pipelines.command.cli import WorkError
from pipelines.command.progress import format_duration
from pipelines.crawl.answer import Failure, Silence
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import host_family, is_address

PATIENCE_S = 1.0
"""For which nothing answers before hosts that have answered before are asked."""
AGAIN_S = 10.0
"""Between two attempts at finding the network back."""
LIMIT_S = 3600.0
"""After which an outage fails the crawl."""
BELIEVED_S = 15.0
"""Before an outage, in which what failed is requested again: it may have been the first of it."""
ASKED_HOSTS = 3
"""That must all be silent."""
_KNOWN_HOSTS = 16


class OutageDetector:
    """Decides whether a request in which nothing came back speaks of the host or of the network.

    Most hosts of an old list are dead, so that no number of silent ones proves anything. Such a
    failure is believed as soon as a request begun after it is answered, by whatever host and
    with whatever answer; look-ups of names count apart from connections. Where no answer comes
    for PATIENCE_S, hosts of other parties that have answered before are asked for a connection:
    one that gives it settles the matter, and only the silence of all is an outage. What failed
    in an outage, or shortly before, is to be requested again. Without so many such hosts a failure
    is believed.

    ``reaches`` says whether the host of a URL gives a connection. ``take_back`` is told the time
    from which nothing is believed any more. ``clock`` gives seconds, ``sleep`` waits for some.
    """

    def __init__(
        self,
        reaches: Callable[[str], Awaitable[bool]],
        *,
        clock: Callable[[], float],
        take_back: Callable[[float], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reaches, self._clock, self._sleep = reaches, clock, sleep
        self._take_back = take_back
        self._believed: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._release: asyncio.Task[None] | None = None
        self._waiting: dict[Silence, deque[tuple[float, asyncio.Future[bool]]]] = {
            kind: deque() for kind in Silence
        }
        self._known: dict[str, str] = {}
        self._watch: asyncio.Task[None] | None = None
        self._outage: tuple[Silence, float] | None = None
        self._asking = False
        self._back_at = float("-inf")

    def know(self, url: str) -> None:
        """Remembers the host of a URL that has answered, one of each party."""
        # As it is written: the punycode of some hosts cannot be decoded.
        self._known.setdefault(host_family(URL(url).raw_host or ""), url)
        if len(self._known) > _KNOWN_HOSTS:
            del self._known[next(iter(self._known))]

    async def confirms(self, answer: object, begun: float) -> bool:
        """Whether what became of a request begun then is true; waits until that can be said.

        False: it met an outage, which is over. Raises WorkError where that does not end.
        """
        if not isinstance(answer, Failure):
            self._heard(Silence.HOST, begun)
        elif answer.silence is not None:
            return await self._is_believed(answer.silence, begun)
        elif answer.outcome is Outcome.DNS_FAILED:
            self._heard(Silence.NAME_SERVER, begun)
        elif answer.outcome.asked:
            self._heard(Silence.HOST, begun)
        return True

    @property
    def outage(self) -> str:
        """'no host has answered for 0:00:12, the network seems to be gone', if so."""
        if self._outage is None:
            return ""
        kind, since = self._outage
        duration = format_duration(self._clock() - since)
        return f"no {kind} has answered for {duration}, the network seems to be gone"

    def doubt(self) -> asyncio.Future[bool]:
        """Whether a failure that is believed now is taken back: known BELIEVED_S later."""
        verdict = asyncio.get_running_loop().create_future()
        if not self._witnesses(Silence.HOST):
            verdict.set_result(False)
            return verdict
        self._believed.append((self._clock(), verdict))
        if self._release is None:
            self._release = asyncio.create_task(self._release_believed())
        return verdict

    def doubt_no_more(self) -> None:
        """Settles what is in doubt: no request is left that could meet an outage."""
        self._settle_believed(float("inf"))

    def close(self) -> None:
        """Ends what waits for the network."""
        for task in (self._watch, self._release):
            if task is not None:
                task.cancel()

    async def _is_believed(self, kind: Silence, begun: float) -> bool:
        if begun < self._back_at:
            return False
        if not self._witnesses(kind):
            return True
        verdict = asyncio.get_running_loop().create_future()
        self._waiting[kind].append((self._clock(), verdict))
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_silence())
        return await verdict

    async def _release_believed(self) -> None:
        try:
            while self._believed:
                certain = self._believed[0][0] + BELIEVED_S
                # An outage that is not yet confirmed began with what waits longest.
                waiting = [queue[0][0] for queue in self._waiting.values() if queue]
                wait_s = certain - self._clock()
                if wait_s <= 0 and min(waiting, default=float("inf")) > certain:
                    _settle(self._believed.popleft()[1], False)
                else:
                    await self._sleep(max(wait_s, PATIENCE_S))
        finally:
            self._release = None

    def _settle_believed(self, wrong_from: float) -> None:
        while self._believed:
            at, verdict = self._believed.popleft()
            _settle(verdict, at >= wrong_from)

    def _heard(self, kind: Silence, begun: float) -> None:
        """Settles what failed before the answered request began.

        Not while hosts are asked: it may have begun in an outage and outlasted it.
        """
        if self._asking:
            return
        waiting = self._waiting[kind]
        while waiting and waiting[0][0] <= begun:
            _settle(waiting.popleft()[1], True)

    async def _watch_silence(self) -> None:
        try:
            while True:
                for queue in self._waiting.values():
                    while queue and queue[0][1].done():  # its request was cancelled
                        queue.popleft()
                silent = [(queue[0], kind) for kind, queue in self._waiting.items() if queue]
                if not silent:
                    return
                (failed, verdict), kind = min(silent, key=lambda item: item[0][0])
                patience_s = failed + PATIENCE_S - self._clock()
                if patience_s > 0:
                    await self._sleep(patience_s)
                if not verdict.done():
                    await self._ask(kind, failed)
        except Exception as error:
            for queue in self._waiting.values():
                while queue:
                    _settle(queue.popleft()[1], error)
        finally:
            self._watch = None

    async def _ask(self, kind: Silence, since: float) -> None:
        """Settles the oldest failure, which was met then."""
        begun = self._clock()
        known = self._witnesses(kind)
        self._asking = True
        try:
            if not await self._any_answers(known):
                self._outage = kind, since
                while not await self._any_answers(known):
                    if self._clock() - since > LIMIT_S:
                        raise WorkError(self.outage)
                    await self._sleep(AGAIN_S)
        finally:
            self._asking = False
        if self._outage is None:
            self._heard(kind, begun)
            return
        self._outage, self._back_at = None, self._clock()
        self._take_back(since - BELIEVED_S)
        self._settle_believed(since - BELIEVED_S)
        for queue in self._waiting.values():
            while queue:
                _settle(queue.popleft()[1], False)

    def _witnesses(self, kind: Silence) -> list[str]:
        """The hosts to ask, if there are enough."""
        urls = [
            url
            for url in self._known.values()
            if kind is Silence.HOST or not is_address(URL(url).raw_host or "")
        ]
        return urls if len(urls) >= ASKED_HOSTS else []

    async def _any_answers(self, known: list[str]) -> bool:
        for url in random.sample(known, ASKED_HOSTS):
            if await self._reaches(url):
                return True
        return False


def _settle(verdict: asyncio.Future[bool], result: bool | Exception) -> None:
    if verdict.done():  # the request was cancelled
        return
    if isinstance(result, Exception):
        verdict.set_exception(result)
    else:
        verdict.set_result(result)
