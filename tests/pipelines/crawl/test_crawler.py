import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.crawler import Crawler
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.crawl.web import Web
from pipelines.dataset.examples import Example, Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.tfrecord import read_records
from pipelines.lists.url_list import Entry, parse_line

SHARD = "train-00000-of-00001"
OPTIONS = DatasetOptions(crop_size=32, scales=(2,))


def png(number: int, side: int = 60) -> bytes:
    file = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).crop((number, 0, number + side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "data"))


Plan = dict[str, Sequence[str | bytes]]


class Source:
    """Has one picture for every URL; tells of a host that it gave up."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    @asynccontextmanager
    async def fetch(self, entry: Entry) -> AsyncIterator[Body | Failure]:
        self.fetched.append(entry.request_url)
        yield Body(io.BytesIO(png(0)), len(png(0)), hashlib.sha256(png(0)).hexdigest())

    def report(self) -> CrawlReport:
        return CrawlReport(given_up=1, last_given_up=("http://a.com",))


async def crawled(source: Any, folder: DatasetFolder, lines: Sequence[str | bytes]) -> list[Row]:
    """The rows of a shard with these lines."""
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    folder.publish_bytes(folder.plan(SHARD), b"".join(line + b"\n" for line in encoded))
    crawler = Crawler(
        source.fetch, folder, OPTIONS, parse_line, concurrency=16, report=source.report
    )
    (shard,) = [shard async for shard in crawler.run([SHARD])]
    return [line.row for line in shard.fetched]


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def outcomes(rows: Sequence[Row]) -> dict[str | None, Outcome]:
    return {row.image_id: row.outcome for row in rows}


def over_http(server: Any, folder: DatasetFolder, lines: Sequence[str | bytes]) -> list[Row]:
    speed = CrawlOptions(requests_per_host=100_000, concurrency=16, timeout_s=20, user_agent="me")

    async def fetch() -> list[Row]:
        async with HttpClient(
            timeout_s=speed.timeout_s,
            max_bytes=100_000,
            user_agent=speed.user_agent,
            allow_hosts=frozenset({"127.0.0.1"}),
        ) as client:
            with closing(Web(client, speed, backoff_s=0.01)) as web:
                return await crawled(web, folder, lines)

    return run(fetch())


def test_every_line_gets_its_row_over_real_sockets(
    server: Any, http_answer: Callable[..., bytes], folder: DatasetFolder
) -> None:
    server.routes |= {
        "/good.png": http_answer(png(0)),
        "/again.png": http_answer(png(0)),
        "/small.png": http_answer(png(1, side=20)),
        "/cut.png": http_answer(png(2)[:-99]),
        "/page.jpg": http_answer(b"<html>"),
        "/large.png": http_answer(bytes(100_001)),
        "/shy.png": http_answer(png(3), headers={"X-Robots-Tag": "noai"}),
        "/lost.png": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx",
        "/robots.txt": http_answer(b"User-agent: *\nDisallow: /secret"),
    }
    base = server.url("")
    lines: list[str | bytes] = [
        f"n01_1\t{base}/good.png",
        f"n01_2\t{base}/again.png",
        f"n01_3\t{base}/small.png",
        f"n01_4\t{base}/cut.png",
        f"n01_5\t{base}/page.jpg",
        f"n01_6\t{base}/large.png",
        f"n01_7\t{base}/shy.png",
        f"n01_8\t{base}/lost.png",
        f"n01_9\t{base}/secret/1.png",
        f"n01_10\t{base}/none.png",
        "n01_11\thttp://10.0.0.1/x.png",
        "n01_12\tftp://a.com/x.png",
        f"n01_13\t{base}/x/../good.png",
        b"mal\xffformed",
        f"n01_15\t{base}/go\rod.png".encode(),
    ]
    shard = over_http(server, folder, lines)
    by_id = {row.image_id: row for row in shard}
    assert len(shard) == len(lines)
    assert outcomes(shard) == {
        "n01_1": Outcome.OK,
        "n01_2": Outcome.OK,  # what has the same content is settled after the shuffle
        "n01_3": Outcome.TOO_SMALL,
        "n01_4": Outcome.CORRUPT,
        "n01_5": Outcome.NOT_AN_IMAGE,
        "n01_6": Outcome.TOO_MANY_BYTES,
        "n01_7": Outcome.OPTED_OUT,
        "n01_8": Outcome.CONNECTION_LOST,
        "n01_9": Outcome.ROBOTS_DENIED,
        "n01_10": Outcome.HTTP_CLIENT_ERROR,
        "n01_11": Outcome.BLOCKED_ADDRESS,
        "n01_12": Outcome.UNSUPPORTED_URL,
        "n01_13": Outcome.DUPLICATE_URL,
        None: Outcome.MALFORMED_LINE,
        "n01_15": Outcome.DUPLICATE_URL,
    }
    assert by_id["n01_13"].duplicate_of == f"n01_1 {base}/good.png"
    assert by_id["n01_10"].http_status == 404
    assert by_id[None].line == b"mal\xffformed"
    good = by_id["n01_1"]
    assert (good.width, good.height, good.num_bytes) == (60, 60, len(png(0)))
    assert good.sha256 == hashlib.sha256(png(0)).hexdigest()
    assert server.requests["/good.png"] == server.requests["/robots.txt"] == 1
    assert server.requests["/lost.png"] == 3
    assert not server.requests["/secret/1.png"]

    (attempt,) = folder.attempts()[SHARD]
    with folder.open(attempt.candidates) as file:
        examples = {Example.from_bytes(r).image_id for r in read_records(file)}
    assert examples == {"n01_1", "n01_2"}
    with folder.open(attempt.originals) as file:
        originals = {o.image_id: o.data for o in map(Original.from_bytes, read_records(file))}
    assert originals.keys() >= {"n01_1", "n01_2", "n01_3"}
    assert originals["n01_1"] == png(0)
    assert CrawlReport.from_json(json.loads(Path(folder.progress(0)).read_text())).lines == 15
    assert not list(Path(folder.path("tmp")).iterdir())


def test_of_a_repeated_url_the_least_id_is_kept(folder: DatasetFolder) -> None:
    url = "http://a.com/1.png"
    source = Source()
    lines = [f"n2\t{url}", f"n1\t{url}#top", f"n3\t{url}", f"n1\t{url}"]
    rows = run(crawled(source, folder, lines))
    assert source.fetched == [url]
    kept = [row for row in rows if row.outcome is Outcome.OK]
    assert [(row.image_id, row.url) for row in kept] == [("n1", f"{url}#top")]
    assert {row.duplicate_of for row in rows if row not in kept} == {f"n1 {url}#top"}


def test_progress_tells_of_lines_and_hosts(folder: DatasetFolder) -> None:
    run(crawled(Source(), folder, [f"n{n}\thttp://a.com/{n}" for n in range(3)]))
    report = CrawlReport.from_json(json.loads(Path(folder.progress(0)).read_text()))
    assert report == CrawlReport(
        {"ok": 3}, given_up=1, last_given_up=("http://a.com",), seconds=report.seconds
    )
    assert report.seconds > 0


def test_a_bug_in_one_url_fails_the_crawl_and_publishes_nothing(folder: DatasetFolder) -> None:
    class Broken(Source):
        @asynccontextmanager
        async def fetch(self, entry: Entry) -> AsyncIterator[Body | Failure]:
            raise ZeroDivisionError
            yield

    with pytest.raises(ZeroDivisionError):
        run(crawled(Broken(), folder, [f"{n}\thttp://a.com/{n}" for n in range(5)]))
    assert folder.attempts() == {}
