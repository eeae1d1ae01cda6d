"""Progress of long work: a bar on a terminal, a log line every 30 s elsewhere."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from pipelines.outcomes import Outcome, describe_totals

LOG_INTERVAL_S = 30.0
_SHOWN_OUTCOMES = 5
_SHOWN_HOSTS = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrawlReport:
    """What crawlers have done so far; each keeps its own in a small file."""

    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Lines by outcome."""
    slowest: Mapping[str, float] = field(default_factory=dict)
    """The host families that take longest, with the seconds that their open URLs still need."""
    given_up: int = 0
    """Hosts."""
    last_given_up: tuple[str, ...] = ()
    outage: str = ""
    """Why a crawler waits, where its own network is gone."""

    @property
    def lines(self) -> int:
        """Lines that have an outcome."""
        return sum(self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values; from_json gives the same report."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError for what to_json did not write."""
        return cls(**{**values, "last_given_up": tuple(values["last_given_up"])})

    @classmethod
    def sum(cls, reports: Iterable[Self]) -> Self:
        """The report of all crawlers together."""
        outcomes: Counter[str] = Counter()
        slowest: dict[str, float] = {}
        given_up = 0
        last_given_up: list[str] = []
        outage = ""
        for report in reports:
            outcomes.update(report.outcomes)
            for family, seconds in report.slowest.items():
                slowest[family] = max(seconds, slowest.get(family, 0.0))
            given_up += report.given_up
            last_given_up += report.last_given_up
            outage = outage or report.outage
        return cls(outcomes, slowest, given_up, tuple(last_given_up), outage)

    def describe(self, seconds: float) -> str:
        """'28.0 pictures/s, ok 280, …, slowest a.com 0:00:07, given up 12 hosts (b.org)'."""
        parts = [f"{self.outcomes.get(Outcome.OK, 0) / max(seconds, 1e-9):.1f} pictures/s"]
        if self.outcomes:
            frequent = Counter(self.outcomes).most_common(_SHOWN_OUTCOMES)
            parts.append(describe_totals(dict(frequent)))
        if self.slowest:
            slowest = Counter(self.slowest).most_common(_SHOWN_HOSTS)
            named = (f"{family} {format_duration(left_s)}" for family, left_s in slowest)
            parts.append(f"slowest {', '.join(named)}")
        if self.given_up:
            names = list(self.last_given_up[:_SHOWN_HOSTS])
            if len(names) < self.given_up:
                names.append("…")
            parts.append(f"given up {self.given_up:,} hosts ({', '.join(names)})")
        if self.outage:
            parts.append(f"{self.outage}: waiting")
        return ", ".join(parts)


class Progress:
    """Counts work done out of a total and shows its rate and the time left.

    Usable as a context manager. ``clock`` is a parameter for tests.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        unit: str,
        initial: int = 0,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._initial = self._done = initial
        self._note = ""
        self._clock = clock
        self._started = self._logged = clock()
        terminal = sys.stderr.isatty() if terminal is None else terminal
        self._bar: tqdm[Any] | None = None
        if terminal:
            self._bar = tqdm(
                total=total, initial=initial, desc=title, unit=f" {unit}", dynamic_ncols=True
            )
            # A line of its own, because there is no room beside a bar.
            self._below = tqdm(bar_format="{desc}", position=1, leave=False, dynamic_ncols=True)

    def update(self, done: int, note: str = "") -> None:
        """Sets the work done so far, and what else to show of it."""
        step, self._done, self._note = done - self._done, done, note
        if self._bar is not None:
            self._bar.update(step)
            self._below.set_description_str(note)
        elif self._clock() - self._logged >= LOG_INTERVAL_S:
            self._logged = self._clock()
            _logger.info("%s", self)

    def __str__(self) -> str:
        """'crawl: 1,200 of 5,000 URLs (24 %), 310.5 URLs/s, 0:00:12 left, ok 280'."""
        elapsed = max(self._clock() - self._started, 1e-9)
        rate = (self._done - self._initial) / elapsed
        left = format_duration((self._total - self._done) / rate) if rate else "unknown time"
        percent = 100 * self._done / max(self._total, 1)
        text = (
            f"{self._title}: {self._done:,} of {self._total:,} {self._unit} ({percent:.0f} %), "
            f"{rate:.1f} {self._unit}/s, {left} left"
        )
        return f"{text}, {self._note}" if self._note else text

    def close(self) -> None:
        """Ends the bar; elsewhere one last line."""
        if self._bar is not None:
            self._below.close()
            self._bar.close()
        else:
            _logger.info("%s", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def format_duration(seconds: float) -> str:
    """'2 d 03:04:05', without days where there are none."""
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
