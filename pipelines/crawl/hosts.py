"""What a crawler knows of a host: its pace, its robots.txt, and when to give it up."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from protego import Protego

from pipelines.crawl.answer import Body, Failure, Redirect
from pipelines.dataset.outcome import Outcome

MAX_RETRY_AFTER_S = 600.0
GIVE_UP_AFTER = 5
"""Requests in a row that met no host: no address, no connection, or the time limit ran out."""
MAX_ROBOTS_BYTES = 500 << 10
ROBOTS_AGAIN_S = 600.0
"""After which a robots.txt that a host could not give is asked for again."""
# A 403 or 5xx may be a way of saying no.
_WELCOME = frozenset({200, 404, 410})
# Below this an event loop does not sleep exactly; the pace stays right on average.
_SLEEP_QUANTUM_S = 0.002
_HALVING_INTERVAL_S = 1.0
_MAX_INTERVAL_S = 60.0

Rules = Protego | Failure | None
"""A host's robots.txt: its rules, why no URL may be asked for, or None where all may."""


class Pace:
    """A family's requests a second: starts low, grows while it answers well, halves on refusal.

    ``ceiling`` is in requests a second. ``clock`` gives seconds, ``sleep`` waits for some.
    """

    def __init__(
        self,
        ceiling: float,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ceiling = ceiling
        self.rate = ceiling / 10
        self._gate = asyncio.Lock()
        self._clock, self._sleep = clock, sleep
        self._next = self._halved = clock()

    async def turn(self, slots: asyncio.Semaphore) -> bool:
        """Waits until a request may start, then for one of the slots, which the caller releases.

        False, and no slot, where the host wants a longer pause than is granted.
        """
        async with self._gate:  # one waits at a time, so that no burst can form
            while True:
                # The host may refuse another request while this one sleeps, or waits for a slot.
                while (wait_s := self.wait_s) > _SLEEP_QUANTUM_S:
                    if wait_s > MAX_RETRY_AFTER_S:
                        return False
                    await self._sleep(wait_s)
                await slots.acquire()
                if self.wait_s <= _SLEEP_QUANTUM_S:
                    break
                slots.release()
            self._next = max(self._clock(), self._next) + 1 / self.rate
            return True

    def note(self, answer: Body | Failure | Redirect, pause_s: float) -> None:
        """Learns from an answer; ``pause_s`` is for a refusal that asks for none of its own."""
        if not isinstance(answer, Failure) or answer.http_status in _WELCOME:
            # After a few seconds of good answers it has doubled.
            self.rate = min(self._ceiling, self.rate + self._ceiling / 100)
        elif answer.outcome is Outcome.RATE_LIMITED:
            self._refused(answer.retry_after_s or pause_s)

    def _refused(self, pause_s: float) -> None:
        """Halves the pace, once for all requests that were in flight, and pauses."""
        now = self._clock()
        if now - self._halved >= _HALVING_INTERVAL_S:
            self._halved = now
            self.rate = max(self._ceiling / 1_000, 1 / _MAX_INTERVAL_S, self.rate / 2)
        self._next = max(self._next, now + pause_s)

    @property
    def wait_s(self) -> float:
        """How long the next turn will wait."""
        return self._next - self._clock()


@dataclass
class Host:
    """One scheme, name and port."""

    name: str
    failures_in_a_row: int = 0
    given_up: bool = False
    answered: bool = False
    """At least once."""
    robots: asyncio.Future[Rules] | None = field(default=None, repr=False)
    robots_until: float = 0.0
    """When robots.txt is to be asked for again, by the event loop's clock."""

    def note(self, answer: Body | Failure | Redirect) -> bool:
        """Learns from an answer whether the host is there; whether it is given up by that."""
        if not isinstance(answer, Failure) or answer.redirected or not answer.outcome.host_absent:
            self.failures_in_a_row = 0
            return False
        self.failures_in_a_row += 1
        if self.given_up or self.failures_in_a_row < GIVE_UP_AFTER:
            return False
        self.given_up = True
        return True


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


def parse_robots(answer: Body | Failure) -> Rules:
    """What the answer to a request for robots.txt allows.

    As RFC 9309 has it: no such file (4xx), or none after five redirects, allows everything; a
    host that cannot answer (5xx) allows nothing for a while, and only the first MAX_ROBOTS_BYTES
    count. An unreachable host's failure is that of every URL there.
    """
    if isinstance(answer, Body):
        data = answer.read()
        if len(data) == MAX_ROBOTS_BYTES:  # what is left of the last line may say the opposite
            data = data[: data.rfind(b"\n") + 1]
        return Protego.parse(data.decode("utf-8-sig", errors="replace"))
    status = answer.http_status or 0
    if status >= 500:
        detail = f"robots.txt answered {status}"
        return Failure(Outcome.ROBOTS_DENIED, detail, status)
    if status or answer.outcome is Outcome.TOO_MANY_REDIRECTS or not answer.outcome.asked:
        return None
    return answer


def robots_again_s(rules: Rules) -> float:
    """For how long the answer of parse_robots holds."""
    if not isinstance(rules, Failure):
        return float("inf")
    # The next URL tries an absent host again, until that is given up.
    return 0.0 if rules.outcome.host_absent else ROBOTS_AGAIN_S
