import json
import os
from pathlib import Path

import pytest

from pipelines.crawl.report import CrawlReport
from pipelines.dataset.folder import DatasetFolder


def test_what_is_read_is_the_sum_over_the_crawlers(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    assert CrawlReport.read(folder) == CrawlReport(crawlers=0)
    first = CrawlReport({"ok": 2}, {"a.com": 7.0, "b.com": 1.0}, 1, ("http://c.com",))
    second = CrawlReport({"ok": 1, "corrupt": 4}, {"a.com": 9.0}, 0)
    folder.publish_json(folder.progress(0), first.to_json())
    folder.publish_json(folder.progress(2), second.to_json())
    Path(folder.progress(3) + ".0123.tmp").write_text("{")  # in the making
    report = CrawlReport.read(folder)
    assert report == CrawlReport(
        {"ok": 3, "corrupt": 4}, {"a.com": 9.0, "b.com": 1.0}, 1, ("http://c.com",), crawlers=2
    )
    assert report.lines == 7
    CrawlReport.forget(folder)
    assert CrawlReport.read(folder) == CrawlReport(crawlers=0)


def test_a_report_in_words() -> None:
    report = CrawlReport(
        outcomes=dict(zip("abcdef", (1, 2, 3, 4, 5, 6), strict=True)) | {"ok": 280},
        slowest={"a.com": 2, "b.com": 7, "c.com": 1, "d.com": 3_661},
        given_up=1_200,
        last_given_up=("http://e.org", "http://f.org"),
        seconds=10.0,
    )
    assert report.describe() == (
        "28.0 ok/s, ok 280, f 6, e 5, d 4, c 3, "
        "slowest d.com 1:01:01, b.com 0:00:07, a.com 0:00:02, "
        "given up 1,200 hosts (http://e.org, http://f.org, …)"
    )
    waiting = CrawlReport(outage="no host has answered for 0:01:00")
    both = CrawlReport.sum([CrawlReport(), waiting, CrawlReport()])
    assert both.describe() == "0.0 ok/s, no host has answered for 0:01:00: waiting"
    assert CrawlReport().describe() == "0.0 ok/s"
    assert CrawlReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_what_an_earlier_run_fetched_counts_and_is_no_speed() -> None:
    crawlers = [
        CrawlReport({"ok": 10}, earlier={"ok": 5, "corrupt": 1}, seconds=seconds)
        for seconds in (10.0, 8.0)
    ]
    report = CrawlReport.sum(CrawlReport.from_json(one.to_json()) for one in crawlers)
    assert report.lines == 20
    assert report.describe() == "2.0 ok/s, ok 30, corrupt 2"


def test_a_report_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_: int) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "fsync", wait)
    folder = DatasetFolder(str(tmp_path))
    CrawlReport({"ok": 2}).publish(folder, 0)
    assert CrawlReport.read(folder).lines == 2
