import io
from pathlib import Path

import pytest
from apache_beam.metrics import MetricsFilter
from PIL import Image

from pipelines.build.duplicates import PLACEHOLDER_FAMILIES
from pipelines.build.engine import EMBEDDED, Engine
from pipelines.build.finish import FinishedShard
from pipelines.build.runner import pipeline
from pipelines.build.transforms import (
    BuildDataset,
    Crawl,
    Job,
    _answered,
    _write_manifest,
    deal,
    sharing,
)
from pipelines.command.cli import WorkError
from pipelines.crawl.crawler import CrawledShard
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.dataset import attempt_table
from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import read_table, write_table
from pipelines.lists.list_file import Source
from pipelines.lists.plan import Plan, prepare

SHARDS = {f"train-{n:05}-of-00008": 10 + n for n in range(8)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    lines = sum(SHARDS.values())
    source = {"sha256": "aa", "lines": lines, "rejected": {}}
    folder = DatasetFolder(str(tmp_path))
    plan = Plan(DatasetOptions(), source, SHARDS)
    return Job(folder, plan, CrawlOptions(crawlers=3), Source("list"))


def loads(job: Job) -> list[int]:
    dealt = dict(deal(job))
    assert sorted(dealt) == [0, 1, 2]
    assert sorted(shard for shards in dealt.values() for shard in shards) == sorted(SHARDS)
    done = job.folder.attempts()
    return [
        sum(SHARDS[shard] for shard in dealt[crawler] if shard not in done) for crawler in range(3)
    ]


def test_crawlers_get_equal_parts_of_the_lines(job: Job) -> None:
    assert max(loads(job)) - min(loads(job)) <= max(SHARDS.values())


def test_what_is_fetched_already_weighs_nothing(job: Job) -> None:
    table = io.BytesIO()
    write_table(table, [])
    for shard in list(SHARDS)[:4]:
        job.folder.publish_bytes(job.folder.new_attempt(shard).table, table.getvalue())
    assert max(loads(job)) - min(loads(job)) <= max(SHARDS.values())
    assert sum(loads(job)) == sum(list(SHARDS.values())[4:])
    # Each crawler reads as many tables of what is fetched, before it begins.
    fetched = job.folder.attempts().keys()
    read = [len(fetched & set(shards)) for _, shards in deal(job)]
    assert sorted(read) == [1, 1, 2]


def test_only_crawlers_that_fetch_share_a_host_s_pace(job: Job) -> None:
    table = io.BytesIO()
    write_table(table, [])
    assert sharing(job).crawl.crawlers == 3
    for left, shard in reversed(list(enumerate(SHARDS))):
        job.folder.publish_bytes(job.folder.new_attempt(shard).table, table.getvalue())
        assert sharing(job).crawl.crawlers == max(1, min(left, 3))


def test_what_is_fetched_already_is_in_the_report_of_its_crawler(job: Job) -> None:
    for shard in list(SHARDS)[:3]:
        table = io.BytesIO()
        attempt_table.write_table(table, [Fetched(Row(Outcome.CORRUPT, shard, sha256="aa"))])
        job.folder.publish_bytes(job.folder.new_attempt(shard).table, table.getvalue())
    assert len(list(Crawl(job).process((1, list(SHARDS)[:3])))) == 3
    report = CrawlReport.read(job.folder)
    assert (report.crawlers, report.lines, report.earlier) == (1, 0, {"corrupt": 3})


def test_what_earlier_shards_say_of_hosts_that_answer(job: Job) -> None:
    rows = [
        Row(Outcome.OK, "1", "http:\\\\A.org/x", sha256="00"),
        Row(Outcome.HTTP_CLIENT_ERROR, "2", "http://b.org/x?y", http_status=404),
        Row(Outcome.CONNECT_FAILED, "3", "http://c.org/"),
        Row(Outcome.MALFORMED_LINE, line=b"4"),
        Row(Outcome.OK, "5", "folder/5.png", sha256="00"),
    ]
    shard = CrawledShard(job.folder.new_attempt("train"), [Fetched(row) for row in rows])
    assert _answered(shard) == ["http://a.org", "http://b.org"]


def finished(**changes: dict[str, int]) -> list[FinishedShard]:
    return [
        FinishedShard(name, 1, "bb", 99, changes.get(name, {"ok": 1, "corrupt": lines - 1}))
        for name, lines in SHARDS.items()
    ]


def test_the_manifest_adds_up(job: Job) -> None:
    (values,) = _write_manifest(finished(), job)
    manifest = Manifest.load(job.folder.root)
    assert manifest.to_json() == values
    assert manifest.num_examples("train") == 8
    assert sum(manifest.outcomes.values()) == job.plan.source["lines"]


def test_a_missing_shard_or_line_is_found(job: Job) -> None:
    with pytest.raises(WorkError, match="1 shards never came through, train-00007"):
        list(_write_manifest(finished()[:-1], job))
    shards = finished()
    shards[0].outcomes["ok"] += 1
    with pytest.raises(WorkError, match="109 outcomes for 108 lines"):
        list(_write_manifest(shards, job))
    assert not job.folder.exists(job.folder.manifest)


def test_no_example_no_manifest(job: Job) -> None:
    shards = [FinishedShard(name, 0, "", 0, {"corrupt": lines}) for name, lines in SHARDS.items()]
    assert list(_write_manifest(shards, job)) == []
    assert not job.folder.exists(job.folder.manifest)


def test_beam_counts_every_outcome(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (300, 300)).save(pictures / "good.png")
    for number in range(3):
        (pictures / f"{number}.jpg").write_text("none")
    folder = DatasetFolder(str(tmp_path / "set"))
    source = Source(str(pictures), is_folder=True)
    plan = prepare(folder, DatasetOptions(), source)
    job = Job(folder, plan, CrawlOptions(), source)
    graph = pipeline(Engine.of(EMBEDDED), 1)
    _ = graph | BuildDataset(job)
    result = graph.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("crawl"))["counters"]
    assert {counter.key.metric.name: counter.result for counter in counters} == {
        "ok": 1,
        "not_an_image": 3,
    }


def test_what_all_shards_decide_together_reaches_their_tables(tmp_path: Path) -> None:
    phash = bytes(range(32))
    near = phash[:-1] + b"\xff"
    pictures = [("m1", "a", phash), ("m2", "a", phash), ("m3", "b", near), ("m4", "c", None)]
    pictures += [(f"n{number}", "d", phash[::-1]) for number in range(PLACEHOLDER_FAMILIES)]
    tables: dict[str, list[Fetched]] = {f"train-{n:05}-of-00003": [] for n in range(3)}
    for number, (image_id, sha256, of_it) in enumerate(pictures):
        row = Row(Outcome.OK, image_id, f"http://site{number}.com/", sha256=sha256)
        tables[f"train-{number % 3:05}-of-00003"].append(Fetched(row, phash=of_it))
    folder = DatasetFolder(str(tmp_path))
    for shard, fetched in tables.items():
        table = io.BytesIO()
        attempt_table.write_table(table, fetched)
        folder.publish_bytes(folder.new_attempt(shard).table, table.getvalue())
    counts = {shard: len(fetched) for shard, fetched in tables.items()}
    source = {"sha256": "aa", "lines": len(pictures), "rejected": {}}
    graph = pipeline(Engine.of(EMBEDDED), 1)
    plan = Plan(DatasetOptions(), source, counts)
    _ = graph | BuildDataset(Job(folder, plan, CrawlOptions(), Source("list")))
    graph.run().wait_until_finish()
    rows = {}
    for shard in tables:
        with folder.open(folder.outcomes(shard)) as file:
            rows |= {row.image_id: row for row in read_table(file)}
    assert {image_id: row.duplicate_of for image_id, row in rows.items() if row.duplicate_of} == {
        "m2": "m1 http://site0.com/",
        "m3": "m1 http://site0.com/",
    }
    assert [rows[image_id].outcome for image_id in ("m1", "m4")] == [Outcome.OK, Outcome.OK]
    assert {row.outcome for image_id, row in rows.items() if image_id and image_id[0] == "n"} == {
        Outcome.PLACEHOLDER
    }
