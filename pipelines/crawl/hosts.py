"""What a crawler knows of a host: its pace, and when to give it up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from pipelines.crawl.answer import Answer, Failure
from pipelines.crawl.robots import Rules
from pipelines.dataset.outcome import Outcome

MAX_RETRY_AFTER_S = 600.0
GIVE_UP_AFTER = 5
"""Requests in a row that met no host: no address, no connection, or the time limit ran out."""
PROBES = 9
"""Requests in a row for the robots.txt of a host that had answered before and may have stalled."""
REFUSALS = 10
"""Without a good answer between them, after which a family is asked no more."""
# A 403 or 5xx may be a way of saying no.
_WELCOME = frozenset({200, 404, 410})
# Below this an event loop does not sleep exactly; the pace stays right on average.
_SLEEP_QUANTUM_S = 0.002
_HALVING_INTERVAL_S = 1.0
_MAX_INTERVAL_S = 60.0
_MAX_PAUSE_S = 60.0


class Slots(asyncio.Semaphore):
    """So many requests in flight at once; those ``within`` others take one of theirs as well."""

    def __init__(self, count: int, within: asyncio.Semaphore | None = None) -> None:
        super().__init__(count)
        self._within = within

    async def acquire(self) -> Literal[True]:
        """Waits for a slot."""
        await super().acquire()
        if self._within:
            try:
                await self._within.acquire()
            except BaseException:
                super().release()
                raise
        return True

    def release(self) -> None:
        """Gives a slot back."""
        if self._within:
            self._within.release()
        super().release()


class Pace:
    """A family's requests a second: starts low, grows while it answers well, halves on refusal.

    ``ceiling`` and ``start`` are in requests a second; a good answer adds ``growth``, by default
    a hundredth of the ceiling. ``clock`` gives seconds, ``sleep`` waits for some.
    """

    def __init__(
        self,
        ceiling: float,
        start: float,
        growth: float | None = None,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ceiling = ceiling
        self._growth = ceiling / 100 if growth is None else growth
        self.rate = start
        self._gate = asyncio.Lock()
        self._clock, self._sleep = clock, sleep
        self._refusals = 0
        # Our own interval, and the pause that the host wants, end then.
        self._next = self._resumed = self._halved = clock()

    @asynccontextmanager
    async def turn(self, slots: asyncio.Semaphore) -> AsyncIterator[bool]:
        """Waits until a request may start, then for one of the slots; the block holds it.

        Gives False, and holds no slot, where the host refuses too long.
        """
        is_granted = await self.wait(slots)
        try:
            yield is_granted
        finally:
            if is_granted:
                slots.release()

    async def wait(self, slots: asyncio.Semaphore) -> bool:
        """The same, where the slot is to be released otherwise."""
        async with self._gate:  # one waits at a time, so that no burst can form
            while True:
                # The host may refuse another request while this one sleeps, or waits for a slot.
                while (wait_s := self.wait_s) > _SLEEP_QUANTUM_S and not self.refusal:
                    await self._sleep(wait_s)
                if self.refusal:
                    return False
                await slots.acquire()
                if self.wait_s <= _SLEEP_QUANTUM_S and not self.refusal:
                    break
                slots.release()
            self._next = max(self._clock(), self._next) + 1 / self.rate
            return True

    def limit(self, ceiling: float) -> None:
        """Lowers the ceiling to what the host wants."""
        self._ceiling = min(self._ceiling, ceiling)
        self.rate = min(self.rate, self._ceiling)

    def note(self, answer: Answer, pause_s: float) -> bool:
        """Learns from an answer. Returns True if it made us give the family up.

        ``pause_s`` is the least pause after a first refusal; it doubles with each in a row.
        """
        if not isinstance(answer, Failure) or answer.http_status in _WELCOME:
            # After a few seconds of good answers it has doubled.
            self.rate = min(self._ceiling, self.rate + self._growth)
            self._refusals = 0
        elif answer.outcome is Outcome.RATE_LIMITED:
            least_s = min(pause_s * 2**self._refusals, _MAX_PAUSE_S)
            return self._refused(max(answer.retry_after_s or 0, least_s))
        return False

    def _refused(self, pause_s: float) -> bool:
        """Halves the pace, once for all requests that were in flight, and pauses."""
        now = self._clock()
        # Those in flight when a pause began count as one.
        is_counted = now >= self._resumed
        self._refusals += is_counted
        if now - self._halved >= _HALVING_INTERVAL_S:
            self._halved = now
            rate = max(self._ceiling / 1_000, 1 / _MAX_INTERVAL_S, self.rate / 2)
            self.rate = min(self._ceiling, rate)
        self._resumed = max(self._resumed, now + pause_s)
        return is_counted and self._refusals == REFUSALS

    @property
    def refusal(self) -> str:
        """Why no more requests are made for now, if so."""
        if self._refusals >= REFUSALS:
            return f"the host refused {self._refusals} times in a row"
        if self.pause_s > MAX_RETRY_AFTER_S:
            return f"the host wants a pause of {self.pause_s:.0f} s"
        return ""

    @property
    def pause_s(self) -> float:
        """What is left of the pause that the host wants."""
        return self._resumed - self._clock()

    @property
    def wait_s(self) -> float:
        """How long the next turn will wait."""
        return max(self._next - self._clock(), self.pause_s)


@dataclass
class Host:
    """One scheme, name and port."""

    name: str
    failures_in_a_row: int = 0
    given_up: str = ""
    """Why, if so."""
    given_up_at: float = 0.0
    answered: bool = False
    """At least once."""
    control: asyncio.Task[bool] | None = field(default=None, repr=False)
    """The latest request for robots.txt that tells whether the host answers."""
    stall: asyncio.Task[None] | None = field(default=None, repr=False)
    """While the host is silent: ends when it answers, or is given up."""
    robots: asyncio.Future[Rules] | None = field(default=None, repr=False)
    robots_until: float = 0.0
    """When robots.txt is to be asked for again, by the event loop's clock."""

    _answered_at: float = float("-inf")

    def note(self, answer: Answer, begun: float, ended: float) -> bool:
        """Learns from a request's answer. Returns True if it made us give the host up.

        A failure says nothing where another request was answered meanwhile.
        """
        if not met_nobody(answer):
            self.failures_in_a_row, self._answered_at = 0, ended
            return False
        if begun < self._answered_at:
            return False
        self.failures_in_a_row += 1
        if self.given_up or self.failures_in_a_row < GIVE_UP_AFTER:
            return False
        self.given_up = f"{GIVE_UP_AFTER} requests in a row met no answer"
        if self.answered:
            self.given_up += ", though robots.txt did"
        self.given_up_at = ended
        return True

    def take_back(self, since: float) -> None:
        """Forgets that the host was given up at that time or later."""
        if self.given_up and self.given_up_at >= since:
            self.given_up, self.failures_in_a_row = "", 0


def met_nobody(answer: Answer) -> TypeGuard[Failure]:
    """Whether the host gave no answer at all."""
    return isinstance(answer, Failure) and answer.outcome.host_absent and not answer.redirected


@dataclass
class Family:
    """The hosts of one party: one pace for all, and no more requests at once than ``in_flight``.

    The limit leaves requests to others where this family is slow.
    """

    pace: Pace
    in_flight: asyncio.Semaphore
    hosts: dict[str, Host] = field(default_factory=dict)
    waiting: int = 0
    """URLs of open shards that have no outcome yet."""

    @property
    def left_s(self) -> float:
        """How long they will take at least, at the present pace."""
        return max(self.pace.wait_s, 0) + self.waiting / self.pace.rate
