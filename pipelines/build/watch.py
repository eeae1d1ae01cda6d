"""Watches a running job through the small files that its crawlers write."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.build.engine import Engine
from pipelines.build.transforms import Job, deal
from pipelines.command.cli import WorkError
from pipelines.command.progress import Progress
from pipelines.crawl.report import CrawlReport

_logger = logging.getLogger(__name__)
_BACK = "the network is back: what failed meanwhile is requested again"
_SILENCE = (
    "no worker has done anything for {:.0f} s (--silence): see whether they run and reach the "
    "web, the store and the job service; the same command goes on from there"
)
_NOT_BEGUN = (
    "{} of {} worker processes have not begun within {:.0f} s: see whether this machine is "
    "overloaded, or connections to itself are blocked; the same command goes on from there"
)
_BEGIN_S = 120.0
_STOP_S = 10.0  # an object store may not answer


@dataclass(frozen=True)
class Event:
    """What the user is told; a failure also ends the job."""

    message: str
    is_failure: bool = False


class Watch:
    """Tells what a new report means. It has no thread and no clock of its own.

    After ``silence_s`` without news the job has failed: not every runner notices that a host is
    gone. It has failed as well if not all of ``workers`` processes have begun within two minutes:
    for one that cannot reach the driver the runner would wait forever. ``now`` is in seconds, as
    in tick.
    """

    def __init__(self, silence_s: float, now: float, workers: int = 0) -> None:
        self._silence_s, self._workers = silence_s, workers
        self._begun = self._heard = now
        self._news: tuple[object, ...] = ()
        self._outage = ""

    def tick(self, report: CrawlReport, files: Sequence[int], now: float) -> list[Event]:
        """What has happened since the last tick.

        ``files`` counts what the job has written: any change of it is a sign of a worker.
        """
        events = []
        if bool(report.outage) != bool(self._outage):
            events.append(Event(f"{report.outage}: waiting" if report.outage else _BACK))
        self._outage = report.outage
        # A crawler that waits for its network is not silent.
        news = (report.lines, report.outage, *files)
        if news != self._news:
            self._news, self._heard = news, now
        elif now - self._heard > self._silence_s:
            events.append(Event(_SILENCE.format(now - self._heard), is_failure=True))
        missing = self._workers - report.crawlers
        if missing > 0 and now - self._begun > _BEGIN_S:
            text = _NOT_BEGUN.format(missing, self._workers, now - self._begun)
            events.append(Event(text, is_failure=True))
        return events


@contextmanager
def watched(job: Job, engine: Engine, interrupt: Callable[[Exception], None]) -> Iterator[None]:
    """Shows from a thread what the crawlers report, while the block waits for the runner.

    A failure is handed to ``interrupt``.
    """
    finished = job.folder.attempts().keys() & job.plan.shards.keys()
    initial = sum(job.plan.shards[shard] for shard in finished)
    # An interrupted run leaves its reports behind.
    CrawlReport.forget(job.folder, job.crawl.crawlers)
    stop = threading.Event()
    # A worker process has a crawler at once, unless there are more processes than crawlers.
    workers = min(engine.workers, len(deal(job)))
    watch = Watch(engine.silence_s, time.monotonic(), workers)
    thread = threading.Thread(
        target=_show, args=(job, initial, watch, interrupt, stop), name="watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_STOP_S)


def _show(
    job: Job,
    initial: int,
    watch: Watch,
    interrupt: Callable[[Exception], None],
    stop: threading.Event,
) -> None:
    started = time.monotonic()
    total = sum(job.plan.shards.values())
    with Progress("crawl", total, unit="URLs", initial=initial) as progress:
        ended = False
        while not ended:
            ended = stop.wait(job.folder.progress_interval_s)
            try:
                report = CrawlReport.read(job.folder, job.crawl.crawlers)
                files = [len(job.folder.names(name)) for name in ("fetched", "outcomes")]
            except Exception as error:  # a store may fail for a moment; the next turn is soon
                _logger.warning("the progress cannot be read: %s", error)
                continue
            now = time.monotonic()
            progress.update(min(initial + report.lines, total), report.describe(now - started))
            for event in watch.tick(report, files, now):
                if event.is_failure:
                    interrupt(WorkError(event.message))
                    return
                _logger.warning("%s", event.message)
