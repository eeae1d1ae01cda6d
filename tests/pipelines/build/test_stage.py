import logging

import pytest

from pipelines.build.stage import Shown, Sight, Stage
from pipelines.crawl.report import CrawlReport

BEGUN = CrawlReport({"ok": 3})


SHARDS = {f"train-0000{number}-of-00004": 2 for number in range(4)}


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
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    shown = Shown(SHARDS, 0)
    shown.show(Sight(CrawlReport({"ok": 8}), fetched=4, written=4))
    shown.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("crawl: 8 of 8 URLs (100 %), ")


def test_each_stage_that_counts_has_a_last_line_and_no_other_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    shown = Shown(SHARDS, 2)
    report = CrawlReport({"ok": 5, "corrupt": 1}, earlier={"ok": 2}, seconds=10)
    for sight in (
        Sight(is_submitted=False),
        Sight(CrawlReport({"ok": 1})),
        Sight(report, fetched=4),
        Sight(report, fetched=4, written=1),
        Sight(report, fetched=4, written=4),
    ):
        shown.show(sight)
    shown.close()
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("crawl: 8 of 8 URLs (100 %), ")
    # What an earlier run fetched is in the counts, and not in the speed.
    assert first.endswith("0.5 ok/s, ok 7, corrupt 1")
    assert second.startswith("writing: 4 of 4 shards (100 %), ")
