from pathlib import Path

import pytest

from pipelines.build.view import View, look
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import Lease
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import Plan, prepare


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "set"))


@pytest.fixture
def plan(folder: DatasetFolder, tmp_path: Path) -> Plan:
    """Of 40 lines of 40 hosts."""
    source = tmp_path / "urls.tsv"
    source.write_text("".join(f"n{i:08}_1\thttp://host{i}.com/a.jpg\n" for i in range(40)))
    return prepare(folder, DatasetOptions(), Source(str(source)))


def text(folder: DatasetFolder) -> str:
    view = look(folder)
    assert view
    assert view.goes_on
    return view.text.partition("\n\n")[2]


def fetch(folder: DatasetFolder, shard: str) -> None:
    folder.publish_bytes(folder.new_attempt(shard).table, b"")


def test_a_crawl_shows_pace_time_left_hosts_and_outcomes(folder: DatasetFolder, plan: Plan) -> None:
    with Lease(folder):
        assert text(folder) == "stage      start\n"
        report = CrawlReport(
            {"ok": 5, "timed_out": 3}, {"a.com": 1.0}, earlier={"ok": 2}, seconds=4.0
        )
        report.publish(folder, 0)
        assert text(folder) == (
            "stage      crawl, 10 of 40 lines (25 %)\n"
            "pace       2.0 lines/s for 0:00:04\n"
            "time left  0:00:15\n"
            "slowest    a.com 0:00:01\n"
            "\n"
            "ok                              7  70.0 %\n"
            "timed_out                       3  30.0 %\n"
        )
        second = CrawlReport({}, {"b.com": 99.0}, 1, ("http://c.com",), outage="no host answers")
        second.publish(folder, 1)
        assert "time left  0:01:39\nslowest    b.com 0:01:39, a.com 0:00:01\n" in text(folder)
        assert "given up   1 hosts (http://c.com)\nwaiting    no host answers\n" in text(folder)


def test_later_stages(folder: DatasetFolder, plan: Plan) -> None:
    CrawlReport({"ok": 40}, seconds=4.0).publish(folder, 0)
    for shard in plan.shards:
        fetch(folder, shard)
    count = len(plan.shards)
    with Lease(folder):
        assert text(folder).startswith("stage      duplicates\n\nok ")
        folder.publish_bytes(folder.outcomes(min(plan.shards)), b"")
        assert text(folder).startswith(f"stage      writing, 1 of {count} shards\n")


def test_an_interrupted_build_says_what_it_has(folder: DatasetFolder, plan: Plan) -> None:
    shard, lines = min(plan.shards.items())
    fetch(folder, shard)
    view = look(folder)
    assert view == View(
        f"{folder.root}: nobody builds here; {lines} of 40 lines are fetched, 1 of "
        f"{len(plan.shards)} shards; the command that began it goes on from there\n",
        goes_on=False,
    )


def test_before_the_plan(folder: DatasetFolder) -> None:
    assert look(folder) is None
    with Lease(folder):
        assert text(folder) == "stage      plan\n"


def test_a_finished_dataset_is_no_build(folder: DatasetFolder, plan: Plan) -> None:
    folder.publish_bytes(folder.manifest, b"{}")
    with Lease(folder):
        assert look(folder) is None
