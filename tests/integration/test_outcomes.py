"""One hostile web, one build over it: every outcome there is, each line's own."""

import asyncio
import gzip
import hashlib
import io
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from pipelines.build import transforms
from pipelines.build.build import build
from pipelines.build.engine import EMBEDDED, Engine
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.lists.list_file import Source
from pipelines.pictures import decoder
from tests.support.build import rows
from tests.support.site import png

pytestmark = pytest.mark.slow

MAX_BYTES = 200_000
TIMEOUT_S = 6.0
MANY = 60
"""URLs of a host that is given up: more than are in flight at once before that."""
DEAD = {Outcome.CONNECT_FAILED, Outcome.HOST_GIVEN_UP}
SILENT = {Outcome.TIMED_OUT, Outcome.HOST_GIVEN_UP}
# Whether bytes after the announced length are seen depends on when they come.
SHORTER = {Outcome.CORRUPT, Outcome.BAD_RESPONSE}
COPIES = {Outcome.OK, Outcome.DUPLICATE_IMAGE}
FATAL = b"\x89PNG\r\n\x1a\n kills its decoder"

_FAULTY_DECODER = f"""
import os
from pipelines.pictures import decoder
from tests.support.build import rows
true = decoder.examples_of
def examples_of(original, options):
    if original.data == {FATAL!r}:
        os.abort()
    return true(original, options)
decoder.examples_of = examples_of
decoder.main()
"""

Route = bytes | list[bytes] | Callable[[asyncio.StreamWriter], Awaitable[None]]
Expected = Outcome | set[Outcome]


class Names:
    """Names under .test are this machine's, some of them by way of IPv6; others are none."""

    async def addresses(self, host: str) -> list[str]:
        if host == "mapped.test":
            return ["::ffff:127.0.0.1"]
        if not host.endswith(".test"):
            raise OSError(None, "no such name")
        return ["127.0.0.1"]

    async def close(self) -> None:
        pass


def photo(number: int, side: int = 64) -> bytes:
    """A picture like no other."""
    file = io.BytesIO()
    picture = Image.fromarray(skimage.data.astronaut()).crop(
        (30 * number % 440, 60 * (number // 14), 30 * number % 440 + 72, 60 * (number // 14) + 72)
    )
    picture.resize((side, side)).save(file, "PNG")
    return file.getvalue()


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


class Web:
    """The list's lines, what each must become, and the servers behind them."""

    def __init__(self, server: Any, answer: Callable[..., bytes]) -> None:
        self.server, self.answer = server, answer
        self.lines: list[bytes] = []
        self.expected: list[tuple[Expected, int | None]] = []
        self.allowed = {"127.0.0.1"}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.closed_port = free.getsockname()[1]

    def line(self, line: bytes, outcome: Expected, status: int | None = None) -> None:
        self.lines.append(line)
        self.expected.append((outcome, status))

    def url(self, url: str, outcome: Expected, status: int | None = None) -> None:
        self.line(b"n01440764_%d\t%s" % (len(self.lines), url.encode()), outcome, status)

    def page(
        self, url: str, route: Route, outcome: Expected = Outcome.OK, status: int | None = None
    ) -> None:
        """A URL ``name.test/path`` whose server answers so."""
        host, slash, path = url.partition("/")
        self.allowed.add(host)
        self.server.routes[host + slash + path] = route
        self.url(f"http://{host}:{self.server.port}/{path}", outcome, status)

    def robots(self, host: str, route: Route) -> None:
        self.server.routes[f"{host}/robots.txt"] = route

    def redirect(self, to: str) -> bytes:
        return self.answer(b"", "302 Found", {"Location": to})


@pytest.fixture
def web(server: Any, tls_server: Any, http_answer: Callable[..., bytes]) -> Web:
    web = Web(server, http_answer)
    answer, redirect = web.answer, web.redirect
    good = (photo(number) for number in range(100))
    good_answers = (answer(data) for data in good)
    lost = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc"

    web.line(b"no tab", Outcome.MALFORMED_LINE)
    web.line(b"\xff\tx y\t", Outcome.UNSUPPORTED_URL)
    for url in ("ftp://a.com/x.jpg", "file:///etc/passwd", "data:image/png;base64,AAAA"):
        web.url(url, Outcome.UNSUPPORTED_URL)

    web.page("a.test/1.png", next(good_answers))
    web.url(f"http:\\\\A.test:{server.port}\\x\\..\\1.png", Outcome.DUPLICATE_URL)
    web.page("a.test/b%20%C3%A9.png?x=1&y=2", next(good_answers))
    web.lines[-1] = web.lines[-1].replace(b"%20%C3%A9", " é".encode()).replace(b"&", b"&amp;")

    web.url("http://nobody.invalid/1.png", Outcome.DNS_FAILED)
    for number in range(MANY):
        web.url(f"http://dead.test:{web.closed_port}/{number}.png", DEAD)
        web.page(f"silent.test/{number}.png", silence, SILENT)
    web.url(f"https://a.test:{tls_server.port}/1.png", Outcome.TLS_FAILED)
    web.page("slow.test/drip.png", drip, Outcome.TIMED_OUT)

    web.page("lost.test/always.png", lost, Outcome.CONNECTION_LOST)
    web.page("lost.test/once.png", [lost, next(good_answers)])
    web.page("lost.test/ssh.png", b"SSH-2.0-OpenSSH_9.6\r\n", Outcome.BAD_RESPONSE)
    web.page("lie.test/less.png", answer(next(good), length=300), SHORTER)
    web.page("lie.test/much.png", answer(b"x", length=10**12), Outcome.TOO_MANY_BYTES)
    web.page("lie.test/large.png", answer(bytes(MAX_BYTES + 1)), Outcome.TOO_MANY_BYTES)

    packed = {"Content-Encoding": "gzip"}
    whole = gzip.compress(next(good))
    unending = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    web.page("gzip.test/good.png", answer(whole, headers=packed))
    web.page("gzip.test/cut.png", unending + whole[:-4], Outcome.CONNECTION_LOST)
    bomb = answer(gzip.compress(b"GIF89a" + bytes(50_000_000)), headers=packed)
    web.page("gzip.test/bomb.png", bomb, Outcome.TOO_MANY_BYTES, 200)

    for status in ("204 No Content", "206 Partial Content", "404 Not Found", "410 Gone"):
        page = answer(next(good) if status.startswith("206") else b"", status)
        web.page(f"b.test/{status[:3]}", page, Outcome.HTTP_CLIENT_ERROR, int(status[:3]))
    error = answer(b"", "500 Internal Server Error")
    web.page("c.test/always.png", error, Outcome.HTTP_SERVER_ERROR, 500)
    web.page("c.test/once.png", [error, next(good_answers)])
    busy = answer(b"", "429 Too Many Requests", {"Retry-After": "1"})
    web.page("busy.test/once.png", [busy, next(good_answers)])
    web.page("busier.test/1.png", answer(b"", "503 Busy"), Outcome.RATE_LIMITED, 503)
    later = answer(b"", "429 Too Many Requests", {"Retry-After": "3600"})
    web.page("later.test/1.png", [later, next(good_answers)], Outcome.RATE_LIMITED, 429)
    web.page("shy.test/1.png", answer(next(good), headers={"X-Robots-Tag": "noai"}), "opted_out")

    web.page("moved.test/ok.png", redirect(f"http://a.test:{server.port}/moved.png"))
    web.server.routes["a.test/moved.png"] = next(good_answers)
    to = redirect(f"http://denied.test:{server.port}/no.png")
    web.page("moved.test/denied.png", to, Outcome.ROBOTS_DENIED)
    web.page("moved.test/loop", redirect("/loop"), Outcome.TOO_MANY_REDIRECTS)
    web.page("moved.test/file", redirect("file:///etc/passwd"), Outcome.UNSUPPORTED_URL, 302)
    web.page("moved.test/data", redirect("data:image/png;base64,AA"), Outcome.UNSUPPORTED_URL, 302)
    web.page("moved.test/gone", redirect("photo_unavailable.png"), Outcome.PLACEHOLDER, 200)
    web.server.routes["moved.test/photo_unavailable.png"] = next(good_answers)
    inside = f":{server.port}/inside.png"
    web.server.routes["/inside.png"] = next(good_answers)
    for number, host in enumerate(("0x7f.2", "inside.test", "mapped.test", "[::1]")):
        to = redirect(f"http://{host}{inside}")
        web.page(f"moved.test/{number}", to, Outcome.BLOCKED_ADDRESS)
    for host in (
        *("2130706434", "0x7f000003", "0x7f.4", "0177.0.0.5", "127.6"),
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "inside.test",
        "mapped.test",
    ):
        web.url(f"http://{host}{inside}", Outcome.BLOCKED_ADDRESS)

    web.robots("denied.test", answer(b"User-agent: *\nDisallow: /no"))
    web.page("denied.test/no.png", next(good_answers), Outcome.ROBOTS_DENIED)
    web.page("denied.test/yes.png", next(good_answers))
    rules = b"User-agent: *\nDisallow: /no\n" + b"# padding\n" * 60_000
    web.robots("wordy.test", answer(rules))
    web.page("wordy.test/no.png", next(good_answers), Outcome.ROBOTS_DENIED)
    web.page("wordy.test/yes.png", next(good_answers))
    web.robots("broken.test", error)
    web.page("broken.test/1.png", next(good_answers), Outcome.ROBOTS_DENIED, 500)
    web.robots("flaky.test", [lost, answer(b"User-agent: *\nDisallow: /no")])
    web.page("flaky.test/no.png", next(good_answers), Outcome.ROBOTS_DENIED)
    web.robots("torn.test", lost)
    web.page("torn.test/1.png", next(good_answers), Outcome.CONNECTION_LOST)
    web.robots("round.test", redirect("/robots.txt"))
    web.page("round.test/1.png", next(good_answers))
    web.robots("away.test", redirect(f"http://denied.test:{server.port}/robots.txt"))
    web.page("away.test/no.png", next(good_answers), Outcome.ROBOTS_DENIED)

    web.page("p.test/page.jpg", answer(b"<html>parked</html>"), Outcome.NOT_AN_IMAGE)
    web.page("p.test/long.jpg", answer(b"<html>" + bytes(99_999)), Outcome.NOT_AN_IMAGE, 200)
    web.page("p.test/empty.jpg", answer(), Outcome.NOT_AN_IMAGE)
    web.page("p.test/photoshop.jpg", answer(b"8BPS" + bytes(99)), Outcome.UNSUPPORTED_FORMAT)
    web.page("p.test/bomb.png", answer(huge_png()), Outcome.TOO_MANY_PIXELS)
    web.page("p.test/cut.png", answer(next(good)[:-60]), Outcome.CORRUPT)
    web.page("p.test/small.png", answer(photo(0, side=20)), Outcome.TOO_SMALL)
    flat = png(Image.new("RGB", (60, 60), "red"))
    web.page("p.test/flat.png", answer(flat), Outcome.TOO_FLAT)
    web.page("p.test/fatal.png", answer(FATAL), Outcome.DECODER_DIED)
    web.page("p.test/changed.png", next(good_answers), Outcome.CHANGED_CONTENT, 200)
    web.lines[-1] += b"\tsha256:" + b"0" * 64
    web.page("p.test/same.png", answer(same := next(good)))
    web.lines[-1] += b"\tmd5:" + hashlib.md5(same).hexdigest().encode()
    copy = next(good_answers)
    web.page("p.test/copy.png", copy, COPIES)
    web.page("q.test/copy.png", copy, COPIES)
    return web


def huge_png() -> bytes:
    """A PNG file whose header announces 10,000 megapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + b"\0\0\0\x09IDAT"


@pytest.fixture
def built(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetFolder]:
    """The dataset of a build in this process, with names, pauses and a decoder for the test."""
    start = asyncio.create_subprocess_exec

    async def started(
        python: str, option: str, _: str, *arguments: str, **pipes: int
    ) -> asyncio.subprocess.Process:
        return await start(python, option, _FAULTY_DECODER, *arguments, **pipes)

    monkeypatch.setattr(decoder.asyncio, "create_subprocess_exec", started)
    monkeypatch.setattr(transforms, "HttpClient", partial(HttpClient, resolver=Names))
    monkeypatch.setattr(transforms, "Web", partial(transforms.Web, backoff_s=0.05))
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"".join(line + b"\n" for line in web.lines))
    folder = DatasetFolder(str(tmp_path / "set"))
    options = DatasetOptions(
        crop_size=32,
        scales=(2,),
        num_shards=2,
        splits={"train": 0.5, "validation": 0.25, "test": 0.25},
        max_bytes=MAX_BYTES,
        min_detail=0.01,
        allow_hosts=tuple(web.allowed | {"dead.test"}),
    )
    crawl = CrawlOptions(concurrency=32, timeout_s=TIMEOUT_S, requests_per_host=10_000)
    build(folder, options, crawl, Source(str(listed)), Engine.of(EMBEDDED))
    yield folder


def test_every_line_of_a_hostile_web_has_its_outcome(web: Web, built: DatasetFolder) -> None:
    told = rows(Path(built.root))
    assert len(told) == len(web.lines)
    found = {row.line or row.image_id: row for row in told}
    assert len(found) == len(told)
    wrong = []
    for line, (outcome, status) in zip(web.lines, web.expected, strict=True):
        image_id = line.partition(b"\t")[0].decode(errors="replace").replace("\ufffd", "%FF")
        row = found[line if line in found else image_id]
        allowed = outcome if isinstance(outcome, set) else {outcome}
        if row.outcome not in allowed or (status and row.http_status != status):
            wrong.append((outcome, status, row))
    assert not wrong, "\n".join(map(str, wrong))
    totals = Counter(row.outcome for row in told)
    assert Manifest.load(built.root).outcomes == totals
    assert totals.total() == len(web.lines)

    by_host: dict[str, Counter[Outcome]] = {}
    for row in told:
        name = (row.url or "").split("/")[2:3]
        by_host.setdefault("".join(name).partition(":")[0], Counter())[row.outcome] += 1
    assert by_host["dead.test"].keys() == DEAD
    assert by_host["silent.test"].keys() == SILENT
    assert by_host["p.test"][Outcome.DUPLICATE_IMAGE] + by_host["q.test"]["duplicate_image"] == 1

    # Of every outcome there is, some line of this test provokes it.
    assert totals.keys() == set(Outcome)

    asked = [head.lower() for head in web.server.heads]
    for host in (b"inside.test", b"mapped.test", b"2130706434", b"0x7f", b"127.", b"[::"):
        assert not [head for head in asked if b"\r\nhost: " + host in head]
    robots = Counter(
        head.partition(b"host: ")[2].partition(b":")[0]
        for head in asked
        if head.startswith(b"get /robots.txt ")
    )
    assert robots[b"a.test"] == robots[b"denied.test"] - 1 == 1  # the other for away.test
    assert robots[b"broken.test"] == robots[b"torn.test"] == 3
