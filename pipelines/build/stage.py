"""The stage that a running job is at, by what it has written, and its progress."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pipelines.command.progress import Progress
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.outcome import Outcome


class Stage(IntEnum):
    """What a job is at."""

    SUBMISSION = 0
    START = 1
    CRAWL = 2
    DUPLICATES = 3
    WRITING = 4
    MANIFEST = 5

    @property
    def title(self) -> str:
        """Of its progress."""
        return self.name.lower()


@dataclass(frozen=True)
class Sight:
    """What is to be seen of a running job."""

    report: CrawlReport = field(default_factory=lambda: CrawlReport(crawlers=0))
    fetched: int = 0
    """Shards whose table is there."""
    written: int = 0
    """Shards finished by this run."""
    heard: float = 0.0
    """When a crawler last reported, by the clock of the folder."""
    is_submitted: bool = True

    def stage(self, shards: int) -> Stage:
        """Of a job with so many shards."""
        if not self.is_submitted:
            return Stage.SUBMISSION
        if self.fetched < shards or not self.report.crawlers:
            return Stage.CRAWL if self.report.crawlers else Stage.START
        if self.written < shards:
            return Stage.WRITING if self.written else Stage.DUPLICATES
        return Stage.MANIFEST


class Shown:
    """The progress of the stage that a job is at, one after another."""

    def __init__(self, shards: Mapping[str, int], initial: int, unit: str = "URLs") -> None:
        """``shards``: the lines of each; ``initial``: of those that were fetched before."""
        self._lines, self._shards = sum(shards.values()), len(shards)
        self._initial, self._unit = initial, unit
        self._stage = Stage.SUBMISSION
        self._progress = self._open(self._stage)

    def show(self, sight: Sight) -> None:
        """What is to be seen now; of a stage that has passed, its last line."""
        stage = sight.stage(self._shards)
        # The crawl's last line is wanted even if it ended since the last look.
        for later in (Stage.CRAWL, stage):
            if self._stage < later <= stage:
                self._update(sight)
                self._progress.close()
                self._stage, self._progress = later, self._open(later)
        self._update(sight)

    def close(self) -> None:
        """Ends it."""
        self._progress.close()

    def _open(self, stage: Stage) -> Progress:
        if stage is Stage.CRAWL:
            return Progress(stage.title, self._lines, unit=self._unit, initial=self._initial)
        if stage is Stage.WRITING:
            return Progress(stage.title, self._shards, unit="shards")
        return Progress(stage.title, None)

    def _update(self, sight: Sight) -> None:
        report = sight.report
        done, note = 0, ""
        if self._stage is Stage.CRAWL:
            done = min(self._initial + report.lines, self._lines)
            note = report.describe()
        elif self._stage is Stage.WRITING:
            done = sight.written
        elif self._stage is Stage.DUPLICATES:
            note = f"{report.totals[Outcome.OK]:,} pictures are compared"
        self._progress.update(done, note)
