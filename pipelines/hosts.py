"""What a crawler knows of a host: its pace, its robots.txt, and when to give it up."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from protego import Protego

from pipelines.http_client import Body, Failure
from pipelines.outcomes import Outcome

MAX_RETRY_AFTER_S = 600.0
GIVE_UP_AFTER = 5
"""Failures to resolve or connect in a row."""
MAX_ROBOTS_BYTES = 500_000
_UNREACHABLE = frozenset({Outcome.DNS_FAILED, Outcome.CONNECT_FAILED})
# Below this an event loop does not sleep exactly; the pace stays right on average.
_SLEEP_QUANTUM_S = 0.002
_HALVING_INTERVAL_S = 1.0
_MAX_INTERVAL_S = 60.0


class Pace:
    """A family's requests a second: starts low, grows while it answers well, halves on refusal.

    ``ceiling`` is in requests a second. ``clock`` gives seconds, ``sleep`` waits for some.
    """

    def __init__(
        self,
        ceiling: float,
        in_flight: int,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ceiling = ceiling
        self.rate = ceiling / 10
        self.in_flight = asyncio.Semaphore(in_flight)
        """So that a slow family leaves requests to others."""
        self.gate = asyncio.Lock()
        """Held by the one request that waits for its turn."""
        self._clock, self._sleep = clock, sleep
        self._next = self._halved = clock()

    async def turn(self) -> None:
        """Waits until the next request may start."""
        now = self._clock()
        start = max(now, self._next)
        self._next = start + 1 / self.rate
        if start - now > _SLEEP_QUANTUM_S:
            await self._sleep(start - now)

    def answered_well(self) -> None:
        """Lets the pace grow: after a few seconds of good answers it has doubled."""
        self.rate = min(self._ceiling, self.rate + self._ceiling / 100)

    def refused(self, pause_s: float) -> None:
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

    failures_in_a_row: int = 0
    given_up: bool = False
    robots: asyncio.Future[Protego | Failure | None] | None = field(default=None, repr=False)

    def note(self, result: Body | Failure) -> None:
        """Learns from an answer whether the host is there at all."""
        if isinstance(result, Failure) and result.outcome in _UNREACHABLE:
            self.failures_in_a_row += 1
            self.given_up = self.given_up or self.failures_in_a_row >= GIVE_UP_AFTER
        else:
            self.failures_in_a_row = 0


def parse_robots(answer: Body | Failure) -> Protego | Failure | None:
    """The rules of a fetched robots.txt, None where everything is allowed, or the failure.

    As RFC 9309 has it: no such file (4xx) allows everything, a host that cannot answer (5xx)
    allows nothing. An unreachable host's failure is that of every URL there.
    """
    if isinstance(answer, Body):
        text = answer.read().decode("utf-8-sig", errors="replace")
        answer.close()
        return Protego.parse(text)
    if answer.outcome is Outcome.HTTP_SERVER_ERROR or answer.http_status == 503:
        detail = f"robots.txt answered {answer.http_status}"
        return Failure(Outcome.ROBOTS_DENIED, detail, answer.http_status)
    if answer.outcome in _UNREACHABLE | {Outcome.TLS_FAILED, Outcome.TIMED_OUT}:
        return answer
    return None
