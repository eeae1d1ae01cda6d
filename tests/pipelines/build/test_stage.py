import logging
from pathlib import Path

import pytest

from pipelines.build.stage import Shown, Sight, Stage
from pipelines.build.transforms import Job
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import Plan

BEGUN = CrawlReport({"ok": 3})


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Of 8 lines in 4 shards."""
    shards = {f"train-0000{number}-of-00004": 2 for number in range(4)}
    plan = Plan(DatasetOptions(), {"sha256": "aa", "lines": 8, "rejected": {}}, shards)
    return Job(DatasetFolder(str(tmp_path)), plan, CrawlOptions(), Source("list"))


@pytest.mark.parametrize(
    ("sight", "stage"),
    [
        (Sight(is_submitted=False), Stage.SUBMISSION),
        (Sight(), Stage.START),
        (Sight(fetched=4), Stage.START),  # an earlier run fetched all
        (Sight(BEGUN), Stage.CRAWL),
        (Sight(BEGUN, fetched=3), Stage.CRAWL),
        (Sight(BEGUN, fetched=4), Stage.DUPLICATES),
        (Sight(BEGUN, fetched=4, written=1), Stage.WRITING),
        (Sight(BEGUN, fetched=4, written=4), Stage.MANIFEST),
    ],
)
def test_stages(sight: Sight, stage: Stage) -> None:
    assert sight.stage(4) is stage


def test_a_crawl_that_ended_between_two_looks_has_its_last_line(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown = Shown(job, 0, now=0)
    shown.show(Sight(CrawlReport({"ok": 8}), fetched=4, written=4), now=1)
    shown.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("crawl: 8 of 8 URLs (100 %), ")


def test_each_stage_that_counts_has_a_last_line_and_no_other_one(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown = Shown(job, 2, now=0)
    report = CrawlReport({"ok": 5, "corrupt": 1}, earlier={"ok": 2})
    for sight in (
        Sight(is_submitted=False),
        Sight(CrawlReport({"ok": 1})),
        Sight(report, fetched=4),
        Sight(report, fetched=4, written=1),
        Sight(report, fetched=4, written=4),
    ):
        shown.show(sight, now=10)
    shown.close()
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("crawl: 8 of 8 URLs (100 %), ")
    # What an earlier run fetched is in the counts, and not in the speed.
    assert first.endswith("0.5 pictures/s, ok 7, corrupt 1")
    assert second.startswith("writing: 4 of 4 shards (100 %), ")
