from pathlib import Path

import pytest

from pipelines.build.dry_run import describe
from pipelines.command.cli import UsageError
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source

LINES = [
    *(f"n01440764_{n}\thttp://farm{n % 3}.static.flickr.com/{n}.jpg" for n in range(900)),
    *(f"n01440764_{n}\thttp://a{n}.org/" for n in range(100)),
    "n01440764_1001\thttp://a1.org",
    "no line",
    "n01440764_1002\tftp://a1.org/",
]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(LINES))
    return Source(str(path))


def described(source: Source, options: DatasetOptions, crawl: CrawlOptions) -> dict[str, str]:
    rows = (line.split("  ", 1) for line in describe(source, options, crawl).splitlines())
    return {name: value.strip() for name, value in rows}


def test_what_a_build_would_do(source: Source) -> None:
    options = DatasetOptions(num_shards=3)
    rows = described(source, options, CrawlOptions(crawlers=2, requests_per_host=10))
    assert rows["lines"] == "1,003"
    assert rows["malformed or unsupported"] == "malformed_line 1, unsupported_url 1"
    assert rows["duplicate URLs"] == "1"
    assert rows["URLs to fetch"] == "1,000"
    assert rows["host families"] == "101"
    assert rows["shards"] == "train 3, validation 1, test 1"
    assert rows["busiest host"] == "flickr.com: 900 URLs, at 10 a second at least 0:01:30"
    assert rows["time"].startswith("about 0:01:58 with 2 crawlers, one of which gets 65% of")
    assert rows["disk"].startswith("at most 0.3 GB while building and 0.2 GB in the end")
    assert "115 KB an example" in rows["disk"]


def test_disk_follows_the_options_of_an_example(source: Source) -> None:
    options = DatasetOptions(crop_size=400, crops_per_image=10, scales=(2,))
    rows = described(source, options, CrawlOptions())
    # 1,000 originals of 103 KB, and 10,000 examples of 4 * (83 + 75 / 4) KB.
    assert rows["disk"].startswith("at most 8.2 GB while building and 4.2 GB in the end")


def test_time_is_the_crawlers_where_no_host_holds_them_back(source: Source) -> None:
    rows = described(source, DatasetOptions(), CrawlOptions(requests_per_host=1e6))
    assert rows["time"].startswith("about 0:00:04 with 1 crawlers")


def test_time_is_that_of_the_crawler_with_most_shards(source: Source) -> None:
    options = DatasetOptions(num_shards=10, splits={"train": 1.0})
    for crawlers, of_ten in ((1, "0:01:30"), (4, "0:01:48"), (10, "0:01:30"), (100, "0:01:30")):
        crawl = CrawlOptions(crawlers=crawlers, requests_per_host=10)
        rows = described(source, options, crawl)
        assert rows["time"].startswith(f"about {of_ten} with {min(crawlers, 10)} crawlers")


def test_a_list_whose_lines_are_all_bad_is_described(source: Source, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("bad\nn1_1\thttp://a.org/\n")
    bad = Source(str(tmp_path / "bad.txt"))
    rows = described(bad, DatasetOptions(limit=1), CrawlOptions())
    assert rows["URLs to fetch"] == "0"
    assert "busiest host" not in rows


def test_a_folder_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    text = describe(Source(str(tmp_path), is_folder=True), DatasetOptions(), CrawlOptions())
    rows = dict(line.split("  ", 1) for line in text.splitlines())
    assert list(rows) == ["pictures", "of each split", "shards", "disk"]
    assert rows["pictures"].strip() == "1"
    assert rows["of each split"].strip() == "about train 1, validation 0, test 0"
    assert "URL" not in text


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        describe(Source(str(tmp_path / "none")), DatasetOptions(), CrawlOptions())
