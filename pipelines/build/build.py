"""A build from its options to a finished folder: lease, plan, graph, reruns, clean-up."""

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines.build.finish import outcome_totals
from pipelines.build.runners import EMBEDDED, reason, run, watched_workers
from pipelines.build.transforms import BuildDataset, Job
from pipelines.command.cli import UsageError, WorkError, was_interrupted
from pipelines.command.progress import Progress
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.folder import DatasetFolder, store_errors, tells_of_no_space
from pipelines.dataset.lease import Lease
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS, DatasetOptions
from pipelines.dataset.outcome import describe_totals
from pipelines.lists.plan import AnySource, prepare, refuse_other_options

_logger = logging.getLogger(__name__)
_MOST_FRUITLESS_DEATHS = 3
_GIVE_UP_S = 10.0  # an object store may not answer
_BACK = "the network is back: what failed meanwhile is requested again"
_AGAIN = "the same command goes on from there"


def build(
    folder: DatasetFolder,
    options: DatasetOptions,
    crawl: CrawlOptions,
    source: AnySource,
    beam_flags: PipelineOptions,
    *,
    overwrite: bool = False,
    keep_originals: bool = True,
    silence_s: float = float("inf"),
) -> None:
    """Builds, or goes on with, the dataset in a folder. Raises UsageError or WorkError.

    After ``silence_s`` without a sign of any worker the build has failed.
    """
    folder.refuse_unreachable()
    if not overwrite:
        refuse_other_options(folder, options)
    outlives_driver = beam_flags.view_as(StandardOptions).runner != EMBEDDED
    with (
        _one_line_where_space_is_short(folder),
        store_errors(WorkError),
        Lease(folder, outlives_driver=outlives_driver),
    ):
        folder.discard_unfinished()
        planned = prepare(folder, options, source, overwrite=overwrite)
        if folder.exists(folder.manifest):
            folder.clean_up(keep_originals=keep_originals)
            _logger.info("%s is already complete", folder.root)
            _report(folder)
            return
        job = Job(
            folder,
            options,
            crawl,
            planned.shards,
            planned.source,
            source.pictures,
            source.parse,
        )
        _run(job, beam_flags, silence_s)
        if not folder.exists(folder.manifest):
            totals = outcome_totals(folder, planned.shards)
            raise WorkError(f"not one picture became an example: {describe_totals(totals)}")
        folder.clean_up(keep_originals=keep_originals)
    _report(folder)


@contextmanager
def _one_line_where_space_is_short(folder: DatasetFolder) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_no_space(error):
            raise
        raise WorkError(
            f"no space is left for {folder.root}; what is fetched is kept: make room, and {_AGAIN}"
        ) from None


def _is_no_space(error: BaseException) -> bool:
    # It may be inside a group, or a worker's text.
    return tells_of_no_space("".join(traceback.format_exception(error)))


def _run(job: Job, beam_flags: PipelineOptions, silence_s: float) -> None:
    """Runs the graph; again where it failed but shards got done, or a worker died."""
    workers = min(job.crawl.crawlers, os.cpu_count() or 1)
    fruitless = 0
    while True:
        done = len(job.folder.attempts())
        deaths: list[RuntimeError] = []
        try:
            with (
                watched_workers() as (interrupt, deaths),
                _progress(job, silence_s, interrupt),
            ):
                run(BuildDataset(job), beam_flags, workers)
            return
        except UsageError:
            raise
        except WorkError as error:
            raise WorkError(reason(error)) from error
        except Exception as error:
            if was_interrupted():  # inside Beam, which makes an error of it
                raise KeyboardInterrupt from None
            if _is_no_space(error):
                raise
            try:
                with store_errors(WorkError):
                    attempts = job.folder.within(30.0, job.folder.attempts)
            except (TimeoutError, WorkError) as silent:
                raise WorkError(f"{reason(error)}; {silent}: {_AGAIN}") from error
            fruitless = 0 if len(attempts) > done else fruitless + 1
            if fruitless > (_MOST_FRUITLESS_DEATHS if deaths else 0):
                raise WorkError(f"{reason(error)}; what is fetched is kept: {_AGAIN}") from error
            _logger.warning("the job failed (%s) and is started again", reason(error))


def _report(folder: DatasetFolder) -> None:
    manifest = Manifest.load(folder.root)
    counts = ", ".join(f"{split} {manifest.num_examples(split):,}" for split in SPLITS)
    _logger.info("outcomes: %s", describe_totals(manifest.outcomes))
    _logger.info("examples: %s; described in %s", counts, folder.manifest)


@contextmanager
def _progress(job: Job, silence_s: float, interrupt: Callable[[Exception], None]) -> Iterator[None]:
    """Shows what the crawlers report, from a thread, while the runner blocks.

    Interrupts the runner after ``silence_s`` without news: not all notice that a host is gone.
    """
    stop = threading.Event()
    finished = job.folder.attempts().keys() & job.shards.keys()
    initial = sum(job.shards[shard] for shard in finished)
    total = sum(job.shards.values())
    # What a run that ended before the crawl did has left behind.
    job.folder.delete([job.folder.progress(number) for number in range(job.crawl.crawlers)])

    def show() -> None:
        started = heard = time.monotonic()
        news: tuple[object, ...] = ()
        with Progress("crawl", total, unit="URLs", initial=initial) as progress:
            ended, outage = False, ""
            while not ended:
                ended = stop.wait(job.folder.progress_interval_s)
                now = time.monotonic()
                try:
                    report = read_progress(job)
                    files = [len(job.folder.names(name)) for name in ("fetched", "outcomes")]
                except Exception as error:  # a store may fail for a moment; the next turn is soon
                    _logger.warning("the progress cannot be read: %s", error)
                    continue
                progress.update(min(initial + report.lines, total), report.describe(now - started))
                if bool(outage) != bool(report.outage):
                    _logger.warning("%s", f"{report.outage}: waiting" if report.outage else _BACK)
                outage = report.outage
                # A crawler that waits for its network does not keep silent.
                if news != (news := (report.lines, report.outage, *files)):
                    heard = now
                elif now - heard > silence_s:
                    interrupt(WorkError(_silence(now - heard)))
                    return

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_GIVE_UP_S)


def _silence(seconds: float) -> str:
    return (
        f"no worker has done anything for {seconds:.0f} s (--silence): see whether they run and "
        f"reach the web, the store and the job service; {_AGAIN}"
    )


def read_progress(job: Job) -> CrawlReport:
    """What all crawlers of this run have reported so far."""
    paths = [job.folder.progress(number) for number in range(job.crawl.crawlers)]
    return CrawlReport.sum(
        CrawlReport.from_json(job.folder.read_json(path))
        for path in paths
        if job.folder.exists(path)
    )
