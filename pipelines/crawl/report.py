"""What crawlers have done so far: small files that the driver reads."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pipelines.command.cli import WorkError
from pipelines.command.progress import format_duration
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome, describe_totals

_SHOWN_OUTCOMES = 5
SHOWN_HOSTS = 3


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
    crawlers: int = 1
    """That have begun."""
    outage: str = ""
    """Why a crawler waits, where its own network is gone."""
    earlier: Mapping[str, int] = field(default_factory=dict)
    """Lines by outcome of the shards that an earlier run fetched."""
    uncompiled: int = 0
    """Crawlers without the C module."""
    warning: str = ""
    """What keeps a crawler from going as fast as it should."""
    seconds: float = 0.0
    """Since the first crawler began to fetch."""

    @property
    def lines(self) -> int:
        """Lines that have got an outcome in this run."""
        return sum(self.outcomes.values())

    @property
    def totals(self) -> Counter[str]:
        """Lines by outcome, with those that an earlier run fetched."""
        return Counter(self.outcomes) + Counter(self.earlier)

    def rate(self, lines: int) -> float:
        """So many lines of this run, a second."""
        return lines / max(self.seconds, 1e-9)

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
        every = list(reports)
        slowest: dict[str, float] = {}
        for family, left_s in (item for one in every for item in one.slowest.items()):
            slowest[family] = max(left_s, slowest.get(family, 0.0))
        return cls(
            outcomes=sum((Counter(one.outcomes) for one in every), Counter[str]()),
            slowest=slowest,
            given_up=sum(one.given_up for one in every),
            last_given_up=tuple(name for one in every for name in one.last_given_up),
            crawlers=sum(one.crawlers for one in every),
            outage=next((one.outage for one in every if one.outage), ""),
            earlier=sum((Counter(one.earlier) for one in every), Counter[str]()),
            uncompiled=sum(one.uncompiled for one in every),
            warning=next((one.warning for one in every if one.warning), ""),
            seconds=max((one.seconds for one in every), default=0.0),
        )

    def publish(self, folder: DatasetFolder, crawler: int) -> None:
        """Writes it as what a crawler has done so far."""
        with suppress(WorkError):  # an object store may fail for a moment
            # The next one comes in a second: a disk need not be waited for.
            folder.publish_json(folder.progress(crawler), self.to_json(), lasts=False)

    @classmethod
    def read(cls, folder: DatasetFolder) -> Self:
        """What all crawlers of a running build have reported so far."""
        return cls.sum(cls.from_json(folder.read_json(path)) for path in _reports(folder))

    @staticmethod
    def forget(folder: DatasetFolder) -> None:
        """Deletes the reports of a build that was interrupted."""
        folder.delete(_reports(folder))

    def describe(self) -> str:
        """'28.0 ok/s, ok 280, …, slowest a.com 0:00:07, given up 12 hosts (b.org)'."""
        parts = [f"{self.rate(self.outcomes.get(Outcome.OK, 0)):.1f} ok/s"]
        if self.totals:
            parts.append(describe_totals(dict(self.totals.most_common(_SHOWN_OUTCOMES))))
        if self.slowest:
            parts.append(f"slowest {self.slowest_text}")
        if self.given_up:
            parts.append(f"given up {self.given_up_text}")
        if self.outage:
            parts.append(f"{self.outage}: waiting")
        return ", ".join(parts)

    @property
    def slowest_text(self) -> str:
        """'a.com 0:00:07, b.com 0:00:01'."""
        slowest = Counter(self.slowest).most_common(SHOWN_HOSTS)
        return ", ".join(f"{family} {format_duration(left_s)}" for family, left_s in slowest)

    @property
    def given_up_text(self) -> str:
        """'12 hosts (http://b.org, …)'."""
        names = list(self.last_given_up[:SHOWN_HOSTS])
        if len(names) < self.given_up:
            names.append("…")
        return f"{self.given_up:,} hosts ({', '.join(names)})"


def _reports(folder: DatasetFolder) -> list[str]:
    """The progress files, without one in the making."""
    names = (name for name in folder.names("progress") if name.endswith(".json"))
    return [folder.path("progress", name) for name in names]
