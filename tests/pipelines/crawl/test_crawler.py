import asyncio
import contextlib
import hashlib
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import skimage.data
from PIL import Image

from pipelines.command.cli import WorkError
from pipelines.crawl.answer import Body, Failure, Redirect, Silence
from pipelines.crawl.crawler import CrawledShard, Crawler
from pipelines.crawl.hosts import GIVE_UP_AFTER
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.dataset.examples import Example, Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.tfrecord import read_records
from pipelines.lists.url_list import parse_line

SHARD = "train-00000-of-00001"
OPTIONS = DatasetOptions(crop_size=32, scales=(2,))
SPEED = CrawlOptions(requests_per_host=100_000, concurrency=16, timeout_s=5, user_agent="me")


def png(number: int, side: int = 60) -> bytes:
    file = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).crop((number, 0, number + side, side)).save(file, "PNG")
    return file.getvalue()


Answer = Failure | Redirect


class Script:
    """A client that gives each URL its answers in order, the last for ever."""

    def __init__(self, answers: Mapping[str, Sequence[bytes | Answer]]) -> None:
        self._answers = answers
        self.asked: Counter[str] = Counter()

    async def get(self, url: str, **how: Any) -> Body | Answer:
        answers = self._answers.get(url, [Failure(Outcome.HTTP_CLIENT_ERROR, "none", 404)])
        answer = answers[min(self.asked[url], len(answers) - 1)]
        self.asked[url] += 1
        if isinstance(answer, Answer):
            return answer
        return Body(io.BytesIO(answer), len(answer), hashlib.sha256(answer).hexdigest())

    async def reaches(self, url: str) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "data"))


Plan = dict[str, Sequence[str | bytes]]


def crawl(
    client: Any, folder: DatasetFolder, plan: Plan, crawl: CrawlOptions = SPEED, **options: Any
) -> dict[str, CrawledShard]:
    """The crawled shards by name."""
    for shard, lines in plan.items():
        encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
        folder.publish_bytes(folder.plan(shard), b"".join(line + b"\n" for line in encoded))

    async def run() -> dict[str, CrawledShard]:
        settings = OPTIONS if options.get("robots", True) else DatasetOptions(robots=False)
        known = {"answered": options.get("answered", ())}
        crawler = Crawler(client, folder, settings, crawl, parse_line, backoff_s=0.01, **known)
        return {done.attempt.shard: done async for done in crawler.run(plan)}

    return asyncio.run(asyncio.wait_for(run(), 60))


def rows(shard: CrawledShard) -> list[Row]:
    return [line.row for line in shard.fetched]


def rows_of(client: Any, folder: DatasetFolder, lines: Sequence[str | bytes]) -> list[Row]:
    return rows(crawl(client, folder, {SHARD: lines})[SHARD])


def outcomes(rows: Sequence[Row]) -> dict[str | None, Outcome]:
    return {row.image_id: row.outcome for row in rows}


def over_http(server: Any, folder: DatasetFolder, lines: Sequence[str | bytes]) -> list[Row]:
    class Opened(Script):
        """Opens the client inside the loop that uses it."""

        async def get(self, url: str, **how: Any) -> Body | Answer:
            async with HttpClient(
                timeout_s=20.0,
                max_bytes=100_000,
                user_agent="me",
                allow_hosts=frozenset({"127.0.0.1"}),
            ) as client:
                return await client.get(url, **how)

    return rows_of(Opened({}), folder, lines)


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


LOST = Failure(Outcome.CONNECTION_LOST)
BUSY = Failure(Outcome.HTTP_SERVER_ERROR, "busy", 500)
SLOW_DOWN = Failure(Outcome.RATE_LIMITED, "slow down", 429, 0.01)


def test_only_what_may_help_is_tried_again(folder: DatasetFolder) -> None:
    answers: dict[str, Sequence[bytes | Failure]] = {
        "http://a.com/1": [LOST, LOST, png(1)],
        "http://a.com/2": [LOST, LOST, LOST, png(2)],
        "http://a.com/3": [BUSY, png(3)],
        "http://a.com/4": [BUSY],
        "http://a.com/5": [Failure(Outcome.HTTP_CLIENT_ERROR, "gone", 410)],
        "http://a.com/6": [Failure(Outcome.TIMED_OUT)],
        "http://a.com/7": [Failure(Outcome.TLS_FAILED)],
        "http://b.com/8": [SLOW_DOWN, SLOW_DOWN, png(4)],
        "http://b.com/9": [SLOW_DOWN],
    }
    client = Script(answers)
    found = outcomes(rows_of(client, folder, [f"{url[-1]}\t{url}" for url in answers]))
    assert found == {
        "1": Outcome.OK,
        "2": Outcome.CONNECTION_LOST,
        "3": Outcome.OK,
        "4": Outcome.HTTP_SERVER_ERROR,
        "5": Outcome.HTTP_CLIENT_ERROR,
        "6": Outcome.TIMED_OUT,
        "7": Outcome.TLS_FAILED,
        "8": Outcome.OK,
        "9": Outcome.RATE_LIMITED,
    }
    asked = {url[-1]: count for url, count in client.asked.items() if "robots" not in url}
    assert asked == dict(zip("123456789", (3, 3, 2, 3, 1, 1, 1, 3, 5), strict=True))


def test_a_host_that_wants_a_long_pause_is_not_waited_for(folder: DatasetFolder) -> None:
    client = Script({"http://a.com/0": [Failure(Outcome.RATE_LIMITED, "later", 429, 3600)]})
    speed = CrawlOptions(requests_per_host=100_000, concurrency=4)  # one at a time a family
    lines = [f"{n}\thttp://a.com/{n}" for n in range(5)]
    (shard,) = crawl(client, folder, {SHARD: lines}, speed).values()
    assert outcomes(rows(shard))["0"] is Outcome.RATE_LIMITED
    assert {row.outcome for row in rows(shard)} <= {Outcome.RATE_LIMITED, "http_client_error"}
    assert client.asked["http://a.com/0"] == 1


@pytest.mark.parametrize("outcome", [Outcome.DNS_FAILED, Outcome.CONNECT_FAILED])
def test_a_dead_host_is_given_up_for_good(folder: DatasetFolder, outcome: Outcome) -> None:
    urls = [f"http://dead.com/{n}" for n in range(40)]
    dead = {url: [Failure(outcome)] for url in [*urls, "http://dead.com/robots.txt"]}
    client = Script(dead | {"http://alive.com/1": [png(0)]})
    speed = CrawlOptions(requests_per_host=100_000, concurrency=4)
    plan: Plan = {
        "train-00000-of-00002": [f"{n}\t{url}" for n, url in enumerate(urls[:20])],
        "train-00001-of-00002": ["a\thttp://alive.com/1"]
        + [f"{n}\t{url}" for n, url in enumerate(urls[20:])],
    }
    first, second = crawl(client, folder, plan, speed).values()
    counts = Counter(row.outcome for row in [*rows(first), *rows(second)])
    assert counts == {outcome: GIVE_UP_AFTER, Outcome.HOST_GIVEN_UP: 40 - GIVE_UP_AFTER, "ok": 1}
    assert sum(client.asked[url] for url in dead) == GIVE_UP_AFTER


class Cut(Script):
    """A web whose network is gone between two times, once the hosts of the first are known."""

    def __init__(self, answers: dict[str, Sequence[bytes | Failure]], cut: int, probes: int):
        super().__init__(answers)
        self._cut, self._probes = cut, probes

    @property
    def is_gone(self) -> bool:
        return self.asked.total() >= self._cut and self._probes > 0

    async def get(self, url: str, **how: Any) -> Body | Answer:
        if not self.is_gone:
            return await super().get(url)
        kind = Silence.NAME_SERVER if "name" in url else Silence.HOST
        return Failure(Outcome.CONNECT_FAILED, silence=kind)

    async def reaches(self, url: str) -> bool:
        self._probes -= self.is_gone
        return not self.is_gone


def test_what_fails_while_the_crawlers_own_network_is_gone_is_requested_again(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.crawl.outage.PATIENCE_S", 0.01)
    monkeypatch.setattr("pipelines.crawl.outage.AGAIN_S", 0.01)
    urls = [f"http://{name}{n % 30}.org/{n}" for n in range(300) for name in ("host", "name")]
    client = Cut({}, cut=100, probes=20)
    lines = [f"{n}\t{url}" for n, url in enumerate(urls)]
    (shard,) = crawl(client, folder, {SHARD: lines}).values()
    assert {row.outcome for row in rows(shard)} == {Outcome.HTTP_CLIENT_ERROR}
    assert not client.is_gone
    report = CrawlReport.from_json(json.loads(Path(folder.progress(0)).read_text()))
    assert (report.lines, report.given_up, report.outage) == (600, 0, "")


def test_hosts_that_answered_an_earlier_run_are_asked_in_an_outage_from_the_start(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.crawl.outage.PATIENCE_S", 0.01)
    monkeypatch.setattr("pipelines.crawl.outage.AGAIN_S", 0.01)
    lines = [f"{n}\thttp://h{n % 3}.org/{n}" for n in range(30)]
    found = []
    for answered in ([], [f"http://earlier{n}.org" for n in range(3)]):
        client = Cut({}, cut=0, probes=20)
        (shard,) = crawl(client, folder, {SHARD: lines}, answered=answered).values()
        found.append({row.outcome for row in rows(shard)})
    assert found == [
        {Outcome.CONNECT_FAILED, Outcome.HOST_GIVEN_UP},
        {Outcome.HTTP_CLIENT_ERROR},
    ]


def test_a_name_server_that_is_gone_for_a_while_is_waited_for(
    server: Any, folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Much less than the name server is silent for, as it is in earnest.
    monkeypatch.setattr("pipelines.crawl.outage.PATIENCE_S", 0.01)
    monkeypatch.setattr("pipelines.crawl.outage.AGAIN_S", 0.1)
    questions = 0

    def answer_questions(names: socket.socket) -> None:
        nonlocal questions
        with contextlib.suppress(OSError):
            while True:
                question, client = names.recvfrom(4_096)
                questions += 1
                if not 20 < questions < 120:  # all names of the web are this machine
                    name = question[12 : question.index(b"\0", 12) + 5]
                    head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
                    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1"
                    names.sendto(head + name + record, client)

    names = [f"h{n}.example" for n in range(40)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        threading.Thread(target=answer_questions, args=(listener,), daemon=True).start()
        resolver = partial(
            aiohttp.AsyncResolver,
            nameservers=["127.0.0.1"],
            udp_port=listener.getsockname()[1],
            timeout=0.1,
            tries=2,
        )

        lines = [f"{n}\t{server.url(f'/{n}', host)}\n" for n, host in enumerate(names * 5)]
        folder.publish_bytes(folder.plan(SHARD), "".join(lines).encode())

        async def run() -> list[CrawledShard]:
            async with HttpClient(
                timeout_s=20,
                max_bytes=100_000,
                user_agent="me",
                allow_hosts=frozenset(names),
                resolver=resolver,
            ) as client:
                crawler = Crawler(client, folder, OPTIONS, SPEED, parse_line)
                return [done async for done in crawler.run([SHARD])]

        (shard,) = asyncio.run(asyncio.wait_for(run(), 60))
    assert {row.outcome for row in rows(shard)} == {Outcome.HTTP_CLIENT_ERROR}
    assert questions >= 120


def test_an_outage_without_end_fails_the_crawl(
    folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"PATIENCE_S": 0.01, "AGAIN_S": 0.01, "LIMIT_S": 0.1}.items():
        monkeypatch.setattr(f"pipelines.crawl.outage.{name}", seconds)
    lines = [f"{n}\thttp://h{n % 30}.org/{n}" for n in range(100)]
    with pytest.raises(WorkError, match="the network seems to be gone"):
        crawl(Cut({}, cut=50, probes=10**6), folder, {SHARD: lines})
    assert folder.attempts() == {}


def test_robots_are_asked_once_a_host_and_obeyed(folder: DatasetFolder) -> None:
    lines = [f"{n}\thttp://{host}/{n}" for n, host in enumerate(["a.com"] * 3 + ["b.a.com"] * 3)]
    client = Script({"http://a.com/robots.txt": [b"User-agent: *\nDisallow: /"]})
    found = outcomes(rows_of(client, folder, lines))
    assert Counter(found.values()) == {Outcome.ROBOTS_DENIED: 3, Outcome.HTTP_CLIENT_ERROR: 3}
    assert client.asked["http://a.com/robots.txt"] == 1
    assert client.asked["http://b.a.com/robots.txt"] == 1
    ignoring = Script({})
    crawl(ignoring, folder, {SHARD: lines}, robots=False)
    assert not [url for url in ignoring.asked if "robots" in url]


def test_the_target_of_a_redirect_is_asked_by_its_own_rules(folder: DatasetFolder) -> None:
    closed = [b"User-agent: *\nDisallow: /no"]
    there, twice = Redirect("http://b.com/yes", 1), Redirect("http://a.com/back", 2)
    answers: dict[str, Sequence[bytes | Answer]] = {
        "http://b.com/robots.txt": closed,
        **{f"http://a.com/{n}": [Redirect("http://b.com/no", 1)] for n in range(20)},
        "http://a.com/ok": [there],
        "http://b.com/yes": [png(0)],
        "http://a.com/round": [Redirect("http://b.com/round", 1)],
        "http://b.com/round": [twice],
        "http://a.com/back": [png(1)],
        "http://a.com/dead": [Redirect("http://dead.com/", 1)],
        "http://dead.com/robots.txt": [Failure(Outcome.DNS_FAILED, "none")],
    }
    client = Script(answers)
    lines = [f"{url[-4:]}\t{url}" for url in answers if url.startswith("http://a.com/")]
    # One request at a time: none may be held while another host's robots.txt is asked for.
    speed = CrawlOptions(requests_per_host=100_000, concurrency=1)
    (shard,) = crawl(client, folder, {SHARD: lines}, speed).values()
    found = {row.url: row for row in rows(shard)}
    assert {found[f"http://a.com/{n}"].outcome for n in range(20)} == {Outcome.ROBOTS_DENIED}
    detail = "redirected to http://b.com/no: by robots.txt"
    assert found["http://a.com/1"].detail == detail
    assert found["http://a.com/ok"].outcome is found["http://a.com/round"].outcome is Outcome.OK
    assert found["http://a.com/dead"].outcome is Outcome.DNS_FAILED
    assert client.asked["http://b.com/robots.txt"] == client.asked["http://a.com/robots.txt"] == 1
    assert not client.asked["http://b.com/no"]
    assert not client.asked["http://dead.com/"]


def test_the_target_of_a_redirect_is_asked_at_its_own_pace(folder: DatasetFolder) -> None:
    later = Failure(Outcome.RATE_LIMITED, "later", 429, 3600)
    answers = {f"http://h{n}.com/": [Redirect("http://b.com/", 1)] for n in range(20)}
    client = Script(answers | {"http://b.com/": [later]})
    lines = [f"{n}\t{url}" for n, url in enumerate(answers)]
    speed = CrawlOptions(requests_per_host=100_000, concurrency=1)
    (shard,) = crawl(client, folder, {SHARD: lines}, speed, robots=False).values()
    assert {row.outcome for row in rows(shard)} == {Outcome.RATE_LIMITED}
    assert client.asked["http://b.com/"] == 1


def test_of_a_repeated_url_the_least_id_is_kept(folder: DatasetFolder) -> None:
    url = "http://a.com/1.png"
    client = Script({url: [png(0)]})
    lines = [f"n2\t{url}", f"n1\t{url}#top", f"n3\t{url}", f"n1\t{url}"]
    rows = rows_of(client, folder, lines)
    assert client.asked[url] == 1
    kept = [row for row in rows if row.outcome is Outcome.OK]
    assert [(row.image_id, row.url) for row in kept] == [("n1", f"{url}#top")]
    assert {row.duplicate_of for row in rows if row not in kept} == {f"n1 {url}#top"}


def test_hosts_are_paced_apart(folder: DatasetFolder) -> None:
    class Clocked(Script):
        def __init__(self) -> None:
            super().__init__({})
            self.times: dict[str, list[float]] = {}

        async def get(self, url: str, **how: Any) -> Body | Answer:
            now = asyncio.get_running_loop().time()
            self.times.setdefault(url.split("/")[2], []).append(now)
            return await super().get(url)

    client = Clocked()
    lines = [f"{n}\thttp://{host}/{n}" for host in ("a.com", "b.com") for n in range(5)]
    speed = CrawlOptions(crawlers=2, requests_per_host=200, concurrency=64)
    crawl(client, folder, {SHARD: lines}, speed, robots=False)
    for times in client.times.values():
        # 200 a second for two crawlers, begun at a tenth of it: 10 a second, growing by one.
        assert times[-1] - times[0] > 0.25
    starts = [times[0] for times in client.times.values()]
    assert abs(starts[0] - starts[1]) < 0.1


def test_requests_in_flight_are_limited(folder: DatasetFolder) -> None:
    class Crowded(Script):
        now = most = 0

        async def get(self, url: str, **how: Any) -> Body | Answer:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.005)
            self.now -= 1
            return await super().get(url)

    client = Crowded({})
    lines = [f"{n}\thttp://h{n}.com/" for n in range(60)]
    speed = CrawlOptions(requests_per_host=100_000, concurrency=7)
    crawl(client, folder, {SHARD: lines}, speed, robots=False)
    assert client.most == 7
    assert client.asked.total() == 60


def test_a_bug_in_one_url_fails_the_crawl_and_publishes_nothing(folder: DatasetFolder) -> None:
    class Broken(Script):
        async def get(self, url: str, **how: Any) -> Body | Answer:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rows_of(Broken({}), folder, [f"{n}\thttp://a.com/{n}" for n in range(5)])
    assert folder.attempts() == {}
