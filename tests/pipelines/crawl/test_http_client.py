import asyncio
import contextlib
import gzip
import hashlib
import io
import ipaddress
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.crawl.answer import Body, Failure, Redirect, Silence
from pipelines.crawl.http_client import HttpClient, is_public, parse_retry_after
from pipelines.crawl.names import CaresResolver
from pipelines.crawl.robots import MAX_ROBOTS_BYTES
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import read_table, write_table
from tests.support.resolver import FixedResolver

Answer = Callable[..., bytes]
PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 2_000


def get(*urls: str, **options: Any) -> Any:
    """What a client with short limits gives for each URL; the one result where there is one.

    Redirects to other origins are followed.
    """
    addresses = options.pop("addresses", ["127.0.0.1"])
    settings = {
        "timeout_s": 5.0,
        "max_bytes": 1_000_000,
        "user_agent": "tester/1.0",
        "allow_hosts": frozenset({"127.0.0.1", "localhost"}),
        "resolver": partial(FixedResolver, *addresses),
    }

    async def follow(client: HttpClient, url: str) -> Body | Failure:
        result = await client.picture(url)
        while isinstance(result, Redirect):
            result = await client.picture(result.url, result.count)
        return result

    async def fetch() -> list[Body | Failure]:
        async with HttpClient(**(settings | options)) as client:
            return [await follow(client, url) for url in urls]

    results = asyncio.run(fetch())
    for result in results:
        if isinstance(result, Failure):
            check_row(result)
    return results[0] if len(results) == 1 else results


def reaches(url: str, **options: Any) -> bool:
    """Whether a client says that a host can be connected to."""
    settings = {"timeout_s": 5.0, "max_bytes": 1, "user_agent": ""}
    allowed = {"allow_hosts": frozenset({"127.0.0.1", "named.example"})}

    async def ask() -> bool:
        async with HttpClient(**(settings | allowed | options)) as client:
            return await client.reaches(url)

    return asyncio.run(ask())


def check_row(failure: Failure) -> None:
    """A failure of any origin can be written to the tables."""
    row = Row(failure.outcome, "n1", "http://a/", http_status=failure.http_status)
    file = io.BytesIO()
    write_table(file, [row, Row(failure.outcome, detail=failure.detail)])
    assert len(read_table(file)) == 2


def test_a_body_with_its_hash(server: Any, http_answer: Answer) -> None:
    server.routes["/a%20b?c=d"] = http_answer(PICTURE)
    body = get(server.url("/a%20b?c=d"))
    assert (body.num_bytes, body.sha256) == (len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
    assert body.read() == body.read() == PICTURE
    body.close()
    head = server.heads[0].lower()
    assert b"user-agent: tester/1.0" in head
    assert b"cookie" not in head


def test_an_empty_body(server: Any, http_answer: Answer) -> None:
    server.routes["/"] = http_answer()
    body = get(server.url())
    assert (body.num_bytes, body.read()) == (0, b"")
    body.close()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("201 Created", Outcome.HTTP_CLIENT_ERROR),
        ("204 No Content", Outcome.HTTP_CLIENT_ERROR),
        ("206 Partial Content", Outcome.HTTP_CLIENT_ERROR),
        ("300 Multiple Choices", Outcome.HTTP_CLIENT_ERROR),
        ("302 Without Location", Outcome.HTTP_CLIENT_ERROR),
        ("304 Not Modified", Outcome.HTTP_CLIENT_ERROR),
        ("401 Unauthorized", Outcome.HTTP_CLIENT_ERROR),
        ("404 Not Found", Outcome.HTTP_CLIENT_ERROR),
        ("410 Gone", Outcome.HTTP_CLIENT_ERROR),
        ("500 Internal Server Error", Outcome.HTTP_SERVER_ERROR),
        ("599 \xff\xfe", Outcome.HTTP_SERVER_ERROR),
        ("429 Too Many Requests", Outcome.RATE_LIMITED),
        ("503 Service Unavailable", Outcome.RATE_LIMITED),
    ],
)
def test_a_status_has_its_outcome(
    server: Any, http_answer: Answer, status: str, outcome: Outcome
) -> None:
    server.routes["/"] = http_answer(b"", status)
    failure = get(server.url())
    assert (failure.outcome, failure.http_status) == (outcome, int(status[:3]))


def test_what_a_host_says_of_a_failure_is_not_kept_at_any_length(
    server: Any, http_answer: Answer
) -> None:
    server.routes["/reason"] = http_answer(b"", "404 " + "x" * 200_000)
    server.routes["/tag"] = http_answer(headers={"X-Robots-Tag": "noai" + "," * 200_000})
    for failure in get(server.url("/reason"), server.url("/tag")):
        assert len(failure.detail) == 1_000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("-5", 0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10),
        ("Wed Oct 21 07:28:10 2015", 10),
        ("Wed, 21 Oct 2015 07:28:10 -0000", 10),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("9" * 400, None),
        ("soon", None),
        ("", None),
        ("1.5", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after(
    value: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/Los_Angeles")
        time.tzset()
        found = parse_retry_after(value, now=1_445_412_480)
    time.tzset()
    assert found == seconds


@pytest.mark.slow
@given(st.text())
def test_any_retry_after_is_a_pause_or_none(value: str) -> None:
    pause = parse_retry_after(value)
    assert pause is None or pause >= 0


def test_a_pause_that_a_host_asks_for_is_told(server: Any, http_answer: Answer) -> None:
    for path, value in (("/1", "17"), ("/2", "9" * 400)):
        server.routes[path] = http_answer(b"", "429 Slow Down", {"Retry-After": value})
    asked, nonsense = get(server.url("/1"), server.url("/2"))
    assert asked.retry_after_s == 17
    assert nonsense.outcome is Outcome.RATE_LIMITED


def redirect(to: str, status: str = "302 Found") -> dict[str, Any]:
    return {"body": b"", "status": status, "headers": {"Location": to}}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Any, http_answer: Answer, status: int) -> None:
    server.routes["/1"] = http_answer(**redirect("/2#x", f"{status} Moved"))
    server.routes["/2"] = http_answer(**redirect(server.url("/a b", "localhost")))
    server.routes["/a%20b"] = http_answer(b"there")
    body = get(server.url("/1"))
    assert body.read() == b"there"
    body.close()


def test_a_location_in_bytes_that_are_no_text_is_followed(server: Any, http_answer: Answer) -> None:
    server.routes["/"] = http_answer(**redirect("/caf\xe9"))
    server.routes["/caf%E9"] = http_answer(b"there")
    body = get(server.url())
    assert body.read() == b"there"
    body.close()


def test_five_redirects_are_followed_and_a_sixth_is_not(server: Any, http_answer: Answer) -> None:
    for number in range(1, 9):
        server.routes[f"/{number}"] = http_answer(**redirect(f"/{number - 1}"))
    server.routes["/0"] = http_answer(b"there")
    server.routes["/loop"] = http_answer(**redirect("/loop"))
    reached, missed, loop = get(*(server.url(path) for path in ("/5", "/6", "/loop")))
    assert reached.read() == b"there"
    reached.close()
    assert missed.outcome is loop.outcome is Outcome.TOO_MANY_REDIRECTS
    assert server.requests["/loop"] == 6


def test_a_redirect_to_another_origin_is_told_and_counted(server: Any, http_answer: Answer) -> None:
    there = server.url("/there", "localhost")
    server.routes["/1"] = http_answer(**redirect("/2"))
    server.routes["/2"] = http_answer(**redirect(there))

    async def fetch() -> list[Body | Failure | Redirect]:
        async with HttpClient(
            timeout_s=5, max_bytes=10, user_agent="", allow_hosts=frozenset({"127.0.0.1"})
        ) as client:
            url = server.url("/1")
            return [await client.picture(url, before) for before in (0, 3, 4, 5)]

    found = asyncio.run(fetch())
    assert found[:2] == [Redirect(there, 2), Redirect(there, 5)]
    assert {getattr(result, "outcome", None) for result in found[2:]} == {"too_many_redirects"}
    assert not server.requests["/there"]


@pytest.mark.parametrize(
    ("location", "outcome"),
    [
        ("file:///etc/passwd", Outcome.UNSUPPORTED_URL),
        ("data:image/png;base64,AAAA", Outcome.UNSUPPORTED_URL),
        ("ftp://a.com/x", Outcome.UNSUPPORTED_URL),
        ("http://[", Outcome.UNSUPPORTED_URL),
        ("http://a:99999/", Outcome.UNSUPPORTED_URL),
        ("http://10.0.0.1/x", Outcome.BLOCKED_ADDRESS),
        ("http://127.0.0.2/x", Outcome.BLOCKED_ADDRESS),
        ("http://2130706434/x", Outcome.BLOCKED_ADDRESS),
        ("http://0x7f.2/x", Outcome.BLOCKED_ADDRESS),
        ("http://0x7f.0.0.256/x", Outcome.UNSUPPORTED_URL),
        ("http://[::1]/x", Outcome.BLOCKED_ADDRESS),
        ("http://169.254.169.254/latest/meta-data", Outcome.BLOCKED_ADDRESS),
        ("http://inside.example/x", Outcome.BLOCKED_ADDRESS),
    ],
)
def test_redirects_elsewhere_are_not_followed(
    server: Any, http_answer: Answer, location: str, outcome: Outcome
) -> None:
    server.routes["/"] = http_answer(**redirect(location))
    assert get(server.url()).outcome is outcome


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
def test_addresses_that_are_not_public_are_blocked(server: Any, host: str) -> None:
    failure = get(f"http://{host}:{server.port}/", allow_hosts=frozenset())
    assert failure.outcome is Outcome.BLOCKED_ADDRESS
    assert failure.detail
    assert not server.requests


@pytest.mark.parametrize("port", [1, 25, 6667, 10080])
def test_ports_of_other_protocols_are_blocked_also_after_a_redirect(
    server: Any, http_answer: Answer, port: int
) -> None:
    blocked = f"http://127.0.0.1:{port}/"
    server.routes["/"] = http_answer(**redirect(blocked))
    for failure in get(blocked, server.url()):
        assert failure.outcome is Outcome.BLOCKED_ADDRESS
        assert str(port) in failure.detail
    assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1"])
def test_other_spellings_of_an_address_reach_nothing(server: Any, host: str) -> None:
    failure = get(f"http://{host}:{server.port}/", allow_hosts=frozenset(), resolver=CaresResolver)
    refused = (Outcome.BLOCKED_ADDRESS, Outcome.DNS_FAILED, Outcome.UNSUPPORTED_URL)
    assert failure.outcome in refused
    assert not server.requests


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_name_that_resolves_to_a_private_address_is_blocked(server: Any, address: str) -> None:
    failure = get(server.url("/", "public.example"), addresses=[address])
    assert failure.outcome is Outcome.BLOCKED_ADDRESS
    assert failure.detail == f"public.example is {address}"
    assert not server.requests


def test_only_the_named_host_may_be_private(server: Any, http_answer: Answer) -> None:
    server.routes["/"] = http_answer(b"x")
    allow = frozenset({"named.example"})
    named, other = get(
        server.url("/", "named.example"), server.url("/", "other.example"), allow_hosts=allow
    )
    assert isinstance(named, Body)
    named.close()
    assert other.outcome is Outcome.BLOCKED_ADDRESS


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("100.64.0.1", False),
        ("198.18.0.1", False),
        ("239.1.1.1", False),
        ("fe80::1%eth0", False),
        ("ff02::1", False),
        ("::", False),
        ("2002:a00:1::", False),
        ("fec0::1", False),
        ("64:ff9b:1::a00:1", False),
        ("::127.0.0.1", False),
        ("::8.8.8.8", True),
        ("::ffff:239.1.1.1", False),
    ],
)
def test_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_an_address_is_public_or_not_however_it_is_wrapped(ip: ipaddress.IPv4Address) -> None:
    assert not is_public(str(ip)) or ip.is_global
    assert is_public(f"::ffff:{ip}") <= ip.is_global
    assert is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) | int(ip)))) <= ip.is_global


def test_a_name_without_an_address() -> None:
    assert get("http://none.example/", addresses=[]).outcome is Outcome.DNS_FAILED


def test_a_refused_connection(server: Any) -> None:
    server.close()
    failure = get(server.url())
    assert (failure.outcome, failure.silence) == (Outcome.CONNECT_FAILED, None)


class NameServer:
    """Answers every question with one code, or never."""

    def __init__(self, code: int | None) -> None:
        self._code = code
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.resolver = partial(
            CaresResolver,
            nameservers=["127.0.0.1"],
            udp_port=self._socket.getsockname()[1],
            timeout=0.1,
            tries=2,
        )
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4_096)
            if self._code is not None:
                flags = bytes([0x81, 0x80 | self._code])
                self._socket.sendto(
                    question[:2] + flags + question[4:6] + bytes(4) + bytes(2) + question[12:],
                    client,
                )


@pytest.mark.parametrize(
    ("code", "silence"),
    [
        (3, None),
        (0, None),
        (2, Silence.NAME_SERVER),
        (5, Silence.NAME_SERVER),
        (None, Silence.NAME_SERVER),
    ],
    ids=["no such name", "no address", "server failure", "refused", "nothing"],
)
def test_a_silent_name_server_is_told_from_one_that_knows_of_no_such_name(
    code: int | None, silence: Silence | None
) -> None:
    server = NameServer(code)
    failure = get("http://none.example/", resolver=server.resolver)
    assert (failure.outcome, failure.silence) == (Outcome.DNS_FAILED, silence), failure


def test_three_silent_name_servers_are_no_silent_host() -> None:
    server = NameServer(None)
    silent = partial(
        server.resolver, nameservers=["127.0.0.1", "127.0.0.2", "127.0.0.3"], timeout=0.3, tries=3
    )
    failure = get("http://named.example/", timeout_s=1.5, resolver=silent)
    assert (failure.outcome, failure.silence) == (Outcome.DNS_FAILED, Silence.NAME_SERVER)
    assert "no name server has answered within 0.5 s" in failure.detail


def test_a_host_is_asked_for_a_connection_and_nothing_else(server: Any) -> None:
    assert reaches(server.url())
    assert reaches(server.url("/", "named.example"), resolver=partial(FixedResolver, "127.0.0.1"))
    assert not server.heads
    server.close()
    assert reaches(server.url())  # refused, but by somebody


def test_a_host_without_an_address_or_with_one_that_is_not_public_is_not_reached(
    server: Any,
) -> None:
    assert not reaches("http://a.example/", resolver=FixedResolver)
    for resolver in (FixedResolver("127.0.0.1"), FixedResolver("::1")):
        assert not reaches(server.url("/", "a.example"), resolver=lambda found=resolver: found)
    assert not reaches(server.url("/", "127.0.0.2"))
    assert not server.heads


def test_a_connection_that_does_not_come_about() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # the one that the system holds for later
            url = f"http://127.0.0.1:{address[1]}/"
            failure = get(url, timeout_s=0.6)
            assert not reaches(url, timeout_s=0.6)
    assert (failure.outcome, failure.silence) == (Outcome.CONNECT_FAILED, Silence.HOST)
    assert not failure.redirected


def test_a_failure_elsewhere_is_told_apart(server: Any, http_answer: Answer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        refusing = free.getsockname()[1]
    server.routes["/"] = http_answer(**redirect(f"http://localhost:{refusing}/"))
    server.routes["/silent"] = http_answer(**redirect("/silence"))
    server.routes["/silence"] = talk(b"")
    refused, silent = get(server.url(), server.url("/silent"), timeout_s=1.5)
    assert (refused.outcome, refused.redirected) == (Outcome.CONNECT_FAILED, False)
    assert (silent.outcome, silent.redirected) == (Outcome.TIMED_OUT, True)


def talk(*parts: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Sends the parts one after another for ever, the last again and again."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        while True:
            writer.write(parts[-1])
            await writer.drain()
            await asyncio.sleep(0.02)

    return drip


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"",),
    ],
    ids=["body", "header", "chunks", "silence"],
)
def test_a_drip_ends_at_the_deadline(server: Any, parts: tuple[bytes, ...]) -> None:
    server.routes["/"] = talk(*parts)
    failure = get(server.url(), timeout_s=1.5)
    assert failure == Failure(Outcome.TIMED_OUT, "after 1.5 s", silence=Silence.HOST)


def test_the_deadline_is_for_all_redirects_together(server: Any, http_answer: Answer) -> None:
    async def before(path: str) -> None:
        await asyncio.sleep(0.8)

    server.before = before
    server.routes["/"] = http_answer(**redirect("/"))
    assert get(server.url(), timeout_s=1.5).outcome is Outcome.TIMED_OUT


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        CHUNKED + b"5\r\nhello\r\n",
    ],
)
def test_what_ends_too_early_is_a_lost_connection(server: Any, raw: bytes) -> None:
    server.routes["/"] = raw
    assert get(server.url()).outcome is Outcome.CONNECTION_LOST


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0\1\2\3" * 99,
        b"<html>hello</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"ffffffffffffffffffffff\r\nx",
    ],
)
def test_what_is_no_http_is_a_bad_response(server: Any, raw: bytes) -> None:
    server.routes["/"] = raw
    assert get(server.url()).outcome is Outcome.BAD_RESPONSE
    assert Outcome.BAD_RESPONSE.tries == 1


def in_parts(*parts: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Sends each part in a packet of its own, and leaves the connection open."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        await asyncio.sleep(30)

    return send


@pytest.mark.parametrize(
    "parts",
    [
        (CHUNKED, b"zz\r\n"),
        (b"SSH-2.0-", b"OpenSSH_9.6\r\n"),
        [b"HTTP/1.1 103 x\r\nLink: " + b"x" * 30_000 + b"\r\n\r\n"] * 9,
        [CHUNKED + b"0\r\n", *[b"X: y\r\n" * 9_000] * 6],
    ],
    ids=["chunks", "SSH", "interim answers", "trailers"],
)
def test_what_is_no_http_is_not_waited_for(server: Any, parts: Sequence[bytes]) -> None:
    server.routes["/"] = in_parts(*parts)
    assert get(server.url()).outcome is Outcome.BAD_RESPONSE


LENGTH = b"Content-Length: 9\r\n"


@pytest.mark.parametrize(
    "head",
    [
        LENGTH * 2,
        LENGTH + b"X: y\r\n" + b"content-length:9 \r\n" + LENGTH,
        b"Content-Length: 9, 9\r\n",
        LENGTH + b"X: " + b"x" * (64 << 10) + b"\r\n",
        b"X: y\r\n" * 5_000 + LENGTH,
    ],
    ids=["twice", "thrice", "listed", "long", "many"],
)
def test_a_head_that_browsers_accept_is_accepted(server: Any, head: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + head + b"\r\nnine byte"
    cut = raw.index(b"gth: 9") if b"gth: 9" in raw else raw.index(b"9")
    server.routes |= {"/whole": raw, "/parts": in_parts(raw[:cut], raw[cut:-4], raw[-4:])}
    for path in server.routes:
        body = get(server.url(path))
        assert body.read() == b"nine byte"
        body.close()


def test_what_an_earlier_answer_left_on_a_connection_costs_no_url() -> None:
    connections = 0
    picture = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xd8\xff"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        before = b""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"no HTTP" if b"/bad" in head else before + picture)
                before = b"</html>"
        writer.close()

    async def fetch() -> list[Any]:
        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0) as listener,
            HttpClient(
                timeout_s=5, max_bytes=9, user_agent="", allow_hosts=frozenset({"127.0.0.1"})
            ) as client,
        ):
            port = listener.sockets[0].getsockname()[1]
            return [await client.picture(f"http://127.0.0.1:{port}/{n}") for n in ("1", "2", "bad")]

    first, second, bad = asyncio.run(fetch())
    for body in (first, second):
        assert body.read() == b"\xff\xd8\xff"
        body.close()
    assert bad.outcome is Outcome.BAD_RESPONSE
    assert connections == 3


def test_bytes_after_the_announced_length_are_not_read(server: Any) -> None:
    server.routes["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nten bytes, and more"
    result = get(server.url())
    if isinstance(result, Body):
        assert result.read() == b"ten bytes"
        result.close()
    else:  # all came at once
        assert result.outcome is Outcome.BAD_RESPONSE


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sampled_from(
            [
                *(b"HTTP/1.1 ", b"200 OK", b"\r\n", b"\r\n\r\n", b"Content-Length: 3", b"301 x"),
                *(b"Transfer-Encoding: chunked", b"Content-Encoding: deflate", b"abc", b"3"),
                *(b"X-Robots-Tag: \xff", b"Content-Type: \xfe/\xff; charset=\0", b"Location: /"),
            ]
        )
        | st.binary(max_size=8),
        max_size=12,
    )
)
def test_any_answer_is_a_body_or_a_failure(server: Any, parts: list[bytes]) -> None:
    server.routes["/"] = b"".join(parts)
    result = get(server.url(), timeout_s=5.0)
    assert isinstance(result, Body | Failure)
    if isinstance(result, Body):
        result.close()


def test_the_byte_limit_holds_with_and_without_a_length(server: Any, http_answer: Answer) -> None:
    server.routes["/said"] = http_answer(b"x" * 11)
    server.routes["/unsaid"] = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11
    server.routes["/lie"] = http_answer(b"x" * 5, length=10**15)
    server.routes["/fits"] = http_answer(b"x" * 10)
    *larger, fits = get(
        *(server.url(path) for path in ("/said", "/unsaid", "/lie", "/fits")), max_bytes=10
    )
    assert {failure.outcome for failure in larger} == {Outcome.TOO_MANY_BYTES}
    assert fits.num_bytes == 10
    fits.close()


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", deflate),
}


@pytest.mark.parametrize(("coding", "pack"), PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("closing", [False, True], ids=["by length", "by closing"])
def test_a_packed_body_is_unpacked_to_its_end(
    server: Any, coding: str, pack: Callable[[bytes], bytes], closing: bool
) -> None:
    packed = pack(PICTURE)
    for cut in (0, 1, 9, len(packed) // 2, len(packed) - 1, len(packed)):
        part = packed[: len(packed) - cut]
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nConnection: close\r\n"
        length = "" if closing else f"Content-Length: {len(part)}\r\n"
        server.routes["/"] = f"{head}{length}\r\n".encode() + part
        result = get(server.url())
        if 0 < cut < len(packed):
            assert result.outcome is Outcome.CONNECTION_LOST, cut
        else:
            assert result.read() == (b"" if cut else PICTURE)
            result.close()


def test_what_follows_the_end_of_a_packed_body_is_not_read(server: Any) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(PICTURE))
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    server.routes["/"] = endless
    body = get(server.url())
    assert body.read() == PICTURE
    body.close()
    assert sent < 50_000_000  # what the sockets hold


def test_a_long_body_that_is_no_picture_is_not_read_to_its_end(
    server: Any, http_answer: Answer
) -> None:
    sent = 0

    async def page(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n<!DOCTYPE html>")
        while True:
            writer.write(b" " * 100_000)
            await writer.drain()
            sent += 100_000

    server.routes["/page"] = page
    server.routes["/packed"] = http_answer(
        gzip.compress(bytes(900_000)), headers={"Content-Encoding": "gzip"}
    )
    server.routes["/short"] = http_answer(b"<html>" + bytes(60_000))
    server.routes["/drawing"] = http_answer(b"<?xml?> <svg>" + bytes(100_000))
    urls = [server.url(path) for path in ("/page", "/packed", "/short", "/drawing")]
    page_, packed, *bodies = get(*urls, max_bytes=10**9)
    assert page_.outcome is packed.outcome is Outcome.NOT_AN_IMAGE
    assert page_.http_status == 200
    assert "begins with b'<!DOCTYPE ht'" in page_.detail
    assert sent < 50_000_000  # what the sockets hold
    for body in bodies:
        assert isinstance(body, Body)
        body.close()


def test_an_unknown_coding_is_taken_as_it_is(server: Any, http_answer: Answer) -> None:
    server.routes["/"] = http_answer(b"packed", headers={"Content-Encoding": "br"})
    body = get(server.url())
    assert body.read() == b"packed"
    body.close()


@pytest.mark.parametrize(("coding", "pack"), PACKERS.values(), ids=PACKERS)
def test_compressed_bodies_are_unpacked_within_the_limit(
    server: Any, http_answer: Answer, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": coding}
    server.routes["/"] = http_answer(pack(PICTURE), headers=headers)
    server.routes["/bomb"] = http_answer(pack(b"GIF89a" + bytes(50_000_000)), headers=headers)
    body, bomb = get(server.url(), server.url("/bomb"))
    assert body.read() == PICTURE
    body.close()
    assert bomb.outcome is Outcome.TOO_MANY_BYTES


@pytest.mark.parametrize(
    ("value", "opted_out"),
    [
        ("noai", True),
        ("NoImageAI, nofollow", True),
        ("nofollow, noindex", True),
        ("none", True),
        ("nofollow", False),
        ("all", False),
        ("tester: noai", True),
        ("otherbot: noindex", False),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", False),
        ("noai, \xff", True),
    ],
)
def test_an_opt_out_is_respected(
    server: Any, http_answer: Answer, value: str, opted_out: bool
) -> None:
    server.routes["/"] = http_answer(b"x", headers={"X-Robots-Tag": value})
    result = get(server.url())
    if opted_out:
        assert result.outcome is Outcome.OPTED_OUT
    else:
        result.close()


def test_the_start_of_a_robots_txt_is_read_whatever_its_tag(
    server: Any, http_answer: Answer
) -> None:
    tag = {"X-Robots-Tag": "noindex"}
    packed = tag | {"Content-Encoding": "gzip"}
    server.routes |= {
        "/robots.txt": http_answer(**redirect("/elsewhere")),
        "/elsewhere": http_answer(b"x" * 2_000_000, headers=tag),
        "/short": http_answer(b"short", headers=tag),
        "/packed": http_answer(gzip.compress(bytes(2_000_000)), headers=packed),
    }

    async def fetch() -> list[Any]:
        async with HttpClient(
            timeout_s=5, max_bytes=10, user_agent="", allow_hosts=frozenset({"127.0.0.1"})
        ) as client:
            paths = ("/robots.txt", "/short", "/packed")
            return [await client.robots(server.url(path)) for path in paths]

    bodies = asyncio.run(fetch())
    assert all(isinstance(body, Body) for body in bodies), bodies
    start = [b"x" * MAX_ROBOTS_BYTES, b"short", bytes(MAX_ROBOTS_BYTES)]
    assert [body.read() for body in bodies] == start
    for body in bodies:
        body.close()


def test_flickrs_unavailable_picture_is_known_by_its_url(server: Any, http_answer: Answer) -> None:
    server.routes["/1.jpg"] = http_answer(**redirect("/images/photo_unavailable_l.png"))
    server.routes["/images/photo_unavailable_l.png"] = http_answer(b"x")
    assert get(server.url("/1.jpg")).outcome is Outcome.PLACEHOLDER


def test_a_certificate_that_nobody_vouches_for(tls_server: Any) -> None:
    failure = get(tls_server.url().replace("http:", "https:"))
    assert failure.outcome is Outcome.TLS_FAILED
    assert not tls_server.requests
