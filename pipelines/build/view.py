"""A build that is not finished, as its files tell another process than its driver."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipelines.build.stage import Sight, Stage
from pipelines.command.progress import format_duration
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import holder_of

_GOES_ON = "the command that began it goes on from there"


@dataclass(frozen=True)
class View:
    """What can be told of a build from its files."""

    text: str
    """In lines."""
    goes_on: bool
    """Whether somebody builds there now."""


def look(folder: DatasetFolder) -> View | None:
    """How far the build of a folder has come; None where none was begun, or it is finished.

    Raises UsageError for a damaged build.json, FileNotFoundError where a file goes meanwhile.
    """
    build = BuildRecord.load(folder)
    state = state_of(folder, build)
    holder = "" if state is State.COMPLETE else holder_of(folder)
    if state is State.COMPLETE or not (build or holder):
        return None
    planned = build if state is State.PLANNED else None
    if not holder:
        told = f"nobody builds here; {_left(folder, planned)}{_GOES_ON}"
        return View(f"{folder.root}: {told}\n", goes_on=False)
    return View(f"{folder.root}, built by {holder}\n\n{_seen(folder, planned)}", goes_on=True)


def _left(folder: DatasetFolder, build: BuildRecord | None) -> str:
    """What an interrupted build has, after its plan."""
    if build is None:
        return ""
    shards, fetched = _shards(folder, build)
    lines, total = sum(shards[shard] for shard in fetched), sum(shards.values())
    return (
        f"{lines:,} of {total:,} {_what(build)} are fetched, {len(fetched):,} of {len(shards):,} "
        "shards; "
    )


def _seen(folder: DatasetFolder, build: BuildRecord | None) -> str:
    if build is None:
        return "stage      plan\n"
    shards, fetched = _shards(folder, build)
    sight = Sight(CrawlReport.read(folder), len(fetched), len(folder.names("outcomes")))
    rows = _rows(sight, shards, _what(build))
    table = "".join(f"{name:<10} {text}\n" for name, text in rows)
    totals = sight.report.totals
    every = totals.total()
    outcomes = "".join(
        f"{word:<20} {count:>12,} {100 * count / every:5.1f} %\n"
        for word, count in totals.most_common()
    )
    return f"{table}\n{outcomes}" if outcomes else table


def _shards(folder: DatasetFolder, build: BuildRecord) -> tuple[dict[str, int], Collection[str]]:
    """The lines of each shard, and the shards that are fetched."""
    shards = folder.read_json(folder.plan_index)["shards"]
    return shards, folder.build_of(build.generation).attempts().keys() & shards.keys()


def _what(build: BuildRecord) -> str:
    return "pictures" if build.source["is_folder"] else "lines"


def _rows(sight: Sight, shards: Mapping[str, int], what: str) -> list[tuple[str, str]]:
    report, stage = sight.report, sight.stage(len(shards))
    if stage is Stage.WRITING:
        return [("stage", f"writing, {sight.written:,} of {len(shards):,} shards")]
    if stage is not Stage.CRAWL:
        return [("stage", stage.title)]
    total, rate = sum(shards.values()), report.rate(report.lines)
    done = min(report.totals.total(), total)
    rows = [
        ("stage", f"crawl, {done:,} of {total:,} {what} ({100 * done / total:.0f} %)"),
        ("pace", f"{rate:,.1f} {what}/s for {format_duration(report.seconds)}"),
    ]
    if rate:
        # A slow host's lines take their time, whatever the pace of the others.
        left_s = max([(total - done) / rate, *report.slowest.values()])
        rows.append(("time left", format_duration(left_s)))
    for name, text in (
        ("slowest", report.slowest_text),
        ("given up", report.given_up_text if report.given_up else ""),
        ("waiting", report.outage),
        ("warning", report.warning),
    ):
        if text:
            rows.append((name, text))
    return rows
