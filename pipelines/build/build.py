"""A build from its options to a finished folder: lease, plan, graph, reruns, clean-up."""

import logging
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import getproxies_environment as proxies

from pipelines.build.advice import advice
from pipelines.build.cluster import RemoteJob
from pipelines.build.engine import Engine, still_runs
from pipelines.build.interruption import Interruption
from pipelines.build.reason import reason
from pipelines.build.runner import run
from pipelines.build.transforms import BuildDataset, Job
from pipelines.build.watch import watched
from pipelines.command.cli import Interrupted, UsageError, WorkError, was_interrupted
from pipelines.command.machine import machine_reason
from pipelines.command.stores import store_errors
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder, tells_of_no_space
from pipelines.dataset.lease import Lease
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS, DatasetOptions
from pipelines.dataset.outcome import describe_totals
from pipelines.dataset.outcome_table import all_rows
from pipelines.lists.plan import AnySource, prepare, refuse_other_options

_logger = logging.getLogger(__name__)
_MOST_FRUITLESS_DEATHS = 3
_STORE_ANSWERS_S = 30.0
_AGAIN = "the same command goes on from there"


def build(
    folder: DatasetFolder,
    options: DatasetOptions,
    crawl: CrawlOptions,
    source: AnySource,
    engine: Engine,
    *,
    overwrite: bool = False,
    keep_originals: bool = True,
) -> None:
    """Builds, or goes on with, the dataset in a folder. Raises UsageError or WorkError."""
    folder.refuse_unreachable()
    if not overwrite:
        refuse_other_options(folder, options)
    with (
        _one_line_where_the_machine_fails(folder),
        store_errors(WorkError),
        Lease(folder, outlives_driver=engine.outlives_driver, still_runs=still_runs) as lease,
    ):
        folder.discard_unfinished()
        plan = prepare(folder, options, source, overwrite=overwrite)
        folder = folder.build_of(plan.generation)
        if folder.is_complete:
            _logger.info("%s is already complete", folder.root)
        else:
            _run(Job(folder, plan, crawl, source), engine, lease)
            if not folder.is_complete:
                totals = Counter[str](row.outcome for row in all_rows(folder))
                raise WorkError(f"not one picture became an example: {describe_totals(totals)}")
        folder.clean_up(keep_originals=keep_originals)
    _report(folder, source)


@contextmanager
def _one_line_where_the_machine_fails(folder: DatasetFolder) -> Iterator[None]:
    try:
        yield
    except (UsageError, Interrupted):
        raise
    except Exception as error:
        if not (why := _machine_reason(error, folder)):
            raise
        raise WorkError(f"{why}, and {_AGAIN}") from None


def _machine_reason(error: BaseException, folder: DatasetFolder) -> str:
    """What a worker's machine, or this one, lacks or breaks, and the cure; empty if nothing."""
    # It may be inside a group, or a worker's text.
    text = "".join(traceback.format_exception(error))
    why = machine_reason(text)
    if tells_of_no_space(text) and (folder.is_local or not why):
        return f"no space is left for {folder.root}; what is fetched is kept: make room"
    return why and f"the machine cannot go on: {why}; what is fetched is kept"


@dataclass(frozen=True)
class _FailedRun:
    """A run of the graph that another one may complete."""

    error: Exception
    deaths: int
    """Of worker processes."""


def _tell_of_unused_proxy(job: Job) -> None:
    found = [f"{scheme}_proxy" for scheme in ("http", "https", "all") if scheme in proxies()]
    if found and not job.crawl.proxy and not job.source.pictures:
        _logger.warning(
            "pictures are fetched without the proxy of %s: --proxy URL takes one",
            " and ".join(found),
        )


def _run(job: Job, engine: Engine, lease: Lease) -> None:
    """Runs the graph, and again after a failure as long as that leads anywhere."""
    _tell_of_unused_proxy(job)
    fruitless = 0
    before = len(job.folder.attempts())
    while failed := _run_once(job, engine, lease):
        why = reason(failed.error)
        try:
            with store_errors(WorkError):
                if job.folder.within(_STORE_ANSWERS_S, lambda: job.folder.is_complete):
                    _logger.warning("the job failed after its last file was written (%s)", why)
                    return
                after = len(job.folder.within(_STORE_ANSWERS_S, job.folder.attempts))
        except (TimeoutError, WorkError) as silent:
            raise WorkError(f"{why}; {silent}: {_AGAIN}") from failed.error
        progressed, before = after > before, after
        if not may_run_again(progressed, failed.deaths, fruitless):
            raise WorkError(f"{why}; what is fetched is kept: {_AGAIN}") from failed.error
        fruitless = 0 if progressed else fruitless + 1
        _logger.warning("the job failed (%s) and is started again", why)


def may_run_again(progressed: bool, deaths: int, fruitless: int) -> bool:
    """Whether a job that failed is started again.

    It is where the run got a shard done. Otherwise only where worker processes died, and not after
    ``fruitless`` such runs in a row before this one that got nothing done: a process may be killed
    for want of memory, but the same error comes again.
    """
    return progressed or (deaths > 0 and fruitless < _MOST_FRUITLESS_DEATHS)


def _run_once(job: Job, engine: Engine, lease: Lease) -> _FailedRun | None:
    """Runs the graph. Raises where no further run can help."""
    with Interruption() as waiting:
        try:
            with watched(job, engine, waiting.interrupt) as submitted:

                def note(remote: RemoteJob | None) -> None:
                    if remote and remote.is_submitted:
                        submitted()
                    record = engine.cluster.to_json(remote) if engine.cluster and remote else None
                    lease.remember(record)

                run(BuildDataset(job), engine, job.crawl.crawlers, note)
        except UsageError:
            raise
        except Interrupted:
            if was_interrupted() or not job.folder.is_complete:
                raise
            return None  # cancelled by others, after its last file was written
        except WorkError as error:
            raise WorkError(reason(error)) from error
        except Exception as error:
            if was_interrupted():  # inside Beam, which makes an error of it
                raise KeyboardInterrupt from None
            if _machine_reason(error, job.folder):
                raise
            return _FailedRun(error, len(waiting.deaths))
    return None


def _report(folder: DatasetFolder, source: AnySource) -> None:
    manifest = Manifest.load(folder.root)
    counts = ", ".join(f"{split} {manifest.num_examples(split):,}" for split in SPLITS)
    _logger.info("outcomes: %s", describe_totals(manifest.outcomes))
    _logger.info("examples: %s; described in %s", counts, folder.manifest)
    if source.is_folder:
        for sentence in advice(folder, manifest):
            _logger.warning("%s", sentence)
