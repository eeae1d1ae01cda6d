"""Watches a running job through the small files that its crawlers write."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.build.engine import Engine
from pipelines.build.stage import Shown, Sight, Stage
from pipelines.build.transforms import Job, deal
from pipelines.command.cli import WorkError
from pipelines.crawl.report import CrawlReport

_logger = logging.getLogger(__name__)
_BACK = "the network is back: what failed meanwhile is requested again"
_AGAIN = "the same command goes on from there"
_NOT_BEGUN = (
    "{} of {} worker processes have not begun within {:.0f} s: see whether this machine is "
    f"overloaded, or connections to itself are blocked; {_AGAIN}"
)
_WAITING = (
    "{} of {} crawlers have not begun within {:.0f} s: has the job as many slots? Their part of "
    "every host's pace lies idle"
)
_UNCOMPILED = (
    "{} of {} crawlers lack the C module: there Pillow does its work, to the same bytes, in about "
    "four times the time"
)
_BEGIN_S = 120.0
_WARN_S = 60.0
LIFELESS_S = 300.0
"""A crawler on a cluster gives a sign of life far more often; a job begins sooner."""
_STOP_S = 10.0  # an object store may not answer


# What a silent stage is about, and what to look at.
_SILENT = {
    Stage.SUBMISSION: (
        "the job has not been submitted for {:.0f} s",
        "its package goes to the cluster, see whether that takes it",
    ),
    Stage.START: (
        "no crawler has begun for {:.0f} s",
        "see whether the job has its slots, and whether each TaskManager or executor host has a "
        "worker pool of its own that no other job uses; the pools' logs say why workers end",
    ),
    Stage.CRAWL: (
        "no crawler has reported for {:.0f} s",
        "see whether the workers run, and reach the store and the job",
    ),
}
_SILENT_LATER = (
    "the stage after the crawl has written nothing for {:.0f} s",
    "it may be at work: the runner's page shows its records; else see whether its workers run",
)
_STUCK = (
    "no crawler has done anything for {:.0f} s (--silence): see whether they reach the web, the "
    f"store and the job; {_AGAIN}"
)


@dataclass(frozen=True)
class Event:
    """What the user is told; a failure also ends the job."""

    message: str
    is_failure: bool = False


@dataclass(frozen=True)
class Patience:
    """How long a job may be silent: not every runner notices that a host is gone."""

    silence_s: float = float("inf")
    """Of crawlers that live and of later stages: they may wait for slow hosts, or sort."""
    lifeless_s: float = float("inf")
    """Before the first crawler begins, and without a sign of life of any."""
    workers: int = 0
    """Processes of this machine that must have begun within two minutes: for one that cannot reach
    the driver the embedded runner would wait forever."""


class Watch:
    """Tells what a new sight means. It has no thread and no clock of its own: ``now``, in seconds,
    is the time at which a job of so many shards and crawlers began to be watched, as in tick."""

    def __init__(self, patience: Patience, shards: int, crawlers: int, now: float) -> None:
        self._patience, self._shards, self._crawlers = patience, shards, crawlers
        self._begun = self._moved = self._alive = now
        self._stage: Stage | None = None
        self._news: tuple[object, ...] = ()
        self._heard, self._outage = 0.0, ""
        self._told: set[str] = set()

    def excuse(self, now: float) -> None:
        """Nothing could be seen until now: that is nobody's silence."""
        self._moved = self._alive = now

    def tick(self, sight: Sight, now: float) -> list[Event]:
        """What has happened since the last tick."""
        events = [*self._outages(sight.report), *self._silence(sight, now)]
        return [*events, *self._missing(sight.report, now)]

    def _outages(self, report: CrawlReport) -> Iterator[Event]:
        if bool(report.outage) != bool(self._outage):
            yield Event(f"{report.outage}: waiting" if report.outage else _BACK)
        self._outage = report.outage

    def _silence(self, sight: Sight, now: float) -> Iterator[Event]:
        stage = sight.stage(self._shards)
        if stage is Stage.SUBMISSION:
            self._begun = now
        # A crawler that waits for its network is not silent.
        news = (stage, sight.report.lines, sight.report.outage, sight.fetched, sight.written)
        if news != self._news:
            self._news, self._moved = news, now
        if self._moved == now or sight.heard != self._heard:
            self._heard, self._alive = sight.heard, now
            self._told.discard("silence")
        silent_s, still_s = now - self._alive, now - self._moved
        said, look = _SILENT.get(
            stage, (f"stage {stage.title}: {_SILENT_LATER[0]}", _SILENT_LATER[1])
        )
        limit_s = self._patience.silence_s
        if stage in (Stage.START, Stage.CRAWL):
            limit_s = min(limit_s, self._patience.lifeless_s)
        if silent_s > limit_s:
            yield Event(f"{said.format(silent_s)}: {look}; {_AGAIN}", is_failure=True)
        elif still_s > self._patience.silence_s:
            yield Event(_STUCK.format(still_s), is_failure=True)
        elif silent_s > _WARN_S and limit_s < float("inf") and self._once("silence"):
            yield Event(f"{said.format(silent_s)} (the job fails after {limit_s:.0f} s): {look}")

    def _missing(self, report: CrawlReport, now: float) -> Iterator[Event]:
        waited_s = now - self._begun
        missing = self._patience.workers - report.crawlers
        if missing > 0 and waited_s > _BEGIN_S:
            text = _NOT_BEGUN.format(missing, self._patience.workers, waited_s)
            yield Event(text, is_failure=True)
        waiting = self._crawlers - report.crawlers
        is_cluster = self._patience.lifeless_s < float("inf")
        waits = report.crawlers and waiting > 0 and waited_s > _WARN_S
        if waits and is_cluster and self._once("waiting"):
            yield Event(_WAITING.format(waiting, self._crawlers, waited_s))
        if report.uncompiled and waiting <= 0 and self._once("uncompiled"):
            yield Event(_UNCOMPILED.format(report.uncompiled, report.crawlers))
        if report.warning and self._once("warning"):
            yield Event(report.warning)

    def _once(self, what: str) -> bool:
        is_new = what not in self._told
        self._told.add(what)
        return is_new


@contextmanager
def watched(
    job: Job, engine: Engine, interrupt: Callable[[Exception], None]
) -> Iterator[Callable[[], None]]:
    """Shows from a thread what the crawlers report, while the block waits for the runner.

    A failure is handed to ``interrupt``. Gives what is to be called when the job is submitted.
    """
    finished = job.folder.attempts().keys() & job.plan.shards.keys()
    initial = sum(job.plan.shards[shard] for shard in finished)
    # An interrupted run leaves its reports behind.
    CrawlReport.forget(job.folder)
    stop, submitted = threading.Event(), threading.Event()
    if not engine.cluster:
        submitted.set()
    crawlers = len(deal(job))
    # A worker process has a crawler at once, unless there are more processes than crawlers.
    patience = Patience(
        engine.silence_s,
        min(engine.silence_s, LIFELESS_S) if engine.cluster else engine.silence_s,
        min(engine.workers, crawlers),
    )
    now = time.monotonic()
    watch = Watch(patience, len(job.plan.shards), crawlers, now)
    unit = "pictures" if job.source.pictures else "URLs"
    shown = Shown(job.plan.shards, initial, unit)
    look = _look(job, submitted)
    thread = threading.Thread(
        target=_show, args=(job, look, watch, shown, interrupt, stop), name="watch", daemon=True
    )
    thread.start()
    try:
        yield submitted.set
    finally:
        stop.set()
        thread.join(_STOP_S)


def _look(job: Job, submitted: threading.Event) -> Callable[[], Sight]:
    folder = job.folder
    before = folder.times("outcomes")

    def look() -> Sight:
        written = [name for name, at in folder.times("outcomes").items() if before.get(name) != at]
        return Sight(
            CrawlReport.read(folder),
            len(folder.attempts().keys() & job.plan.shards.keys()),
            len(written),
            folder.last_change("progress"),
            submitted.is_set(),
        )

    return look


def _show(
    job: Job,
    look: Callable[[], Sight],
    watch: Watch,
    shown: Shown,
    interrupt: Callable[[Exception], None],
    stop: threading.Event,
) -> None:
    try:
        ended = False
        while not ended:
            ended = stop.wait(job.folder.progress_interval_s)
            now = time.monotonic()
            try:
                sight = look()
            except Exception as error:  # a store may fail for a moment; the next turn is soon
                _logger.warning("the progress cannot be read: %s", error)
                watch.excuse(now)
                continue
            shown.show(sight)
            for event in watch.tick(sight, now):
                if event.is_failure:
                    interrupt(WorkError(event.message))
                    return
                _logger.warning("%s", event.message)
    finally:
        shown.close()
