import io
from pathlib import Path

import pytest
from apache_beam.metrics import MetricsFilter
from PIL import Image

from pipelines.cli import WorkError
from pipelines.finish import FinishedShard
from pipelines.manifest import Manifest
from pipelines.options import CrawlOptions, DatasetOptions
from pipelines.outcome_table import write_table
from pipelines.plan import Source, prepare
from pipelines.runners import EMBEDDED, beam_options, pipeline
from pipelines.storage import DatasetFolder
from pipelines.transforms import BuildDataset, Job, _write_manifest, deal

SHARDS = {f"train-{n:05}-of-00008": 10 + n for n in range(8)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    lines = sum(SHARDS.values())
    source = {"sha256": "aa", "lines": lines, "rejected": {}}
    folder = DatasetFolder(str(tmp_path))
    return Job(folder, DatasetOptions(), CrawlOptions(crawlers=3), SHARDS, source)


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


def finished(**changes: dict[str, int]) -> list[FinishedShard]:
    return [
        FinishedShard(name, 1, "bb", 9, changes.get(name, {"ok": 1, "corrupt": lines - 1}))
        for name, lines in SHARDS.items()
    ]


def test_the_manifest_adds_up(job: Job) -> None:
    (values,) = _write_manifest(finished(), job)
    manifest = Manifest.load(job.folder.root)
    assert manifest.to_json() == values
    assert manifest.num_examples("train") == 8
    assert sum(manifest.outcomes.values()) == job.source["lines"]


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
    planned = prepare(folder, DatasetOptions(), Source(str(pictures), is_folder=True))
    job = Job(
        *(folder, DatasetOptions(), CrawlOptions(), planned.shards, planned.source, str(pictures))
    )
    graph = pipeline(beam_options([], EMBEDDED), 1)
    _ = graph | BuildDataset(job)
    result = graph.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("crawl"))["counters"]
    assert {counter.key.metric.name: counter.result for counter in counters} == {
        "ok": 1,
        "not_an_image": 3,
    }
