"""How connections are used again, and when not."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.crawl import connections
from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.connection import Connection, Disconnected
from pipelines.crawl.http_client import HttpClient
from pipelines.dataset.outcome import Outcome

PICTURE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xd8\xff"
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: "
Reply = Callable[[bytes, int], bytes | None]


class Host:
    """Answers by path, and counts its connections; None: it closes without a word."""

    def __init__(self, replies: dict[str, Any]) -> None:
        self._replies = replies
        self.asked: list[list[str]] = []
        """The paths of each connection."""
        self.heads: list[bytes] = []
        self._served: set[asyncio.Task[Any]] = set()

    async def end(self) -> None:
        """Waits until all connections have ended."""
        await asyncio.gather(*self._served)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths: list[str] = []
        self.asked.append(paths)
        task = asyncio.current_task()
        assert task
        self._served.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                paths.append(head.split()[1].decode())
                reply = self._replies[paths[-1]]
                if reply is None or (callable(reply) and (reply := reply(len(paths))) is None):
                    break
                for part in reply if isinstance(reply, list) else [reply]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.02 * isinstance(reply, list))
        writer.close()


def ask(host: Host, *paths: str, user: str = "", **options: Any) -> list[Body | Failure]:
    """What a client gives for paths, one after another."""

    async def fetch() -> list[Any]:
        settings = {"timeout_s": 3.0, "max_bytes": 1_000_000, "user_agent": "me"}
        allowed = {"allow_hosts": frozenset({"127.0.0.1"})}
        async with await asyncio.start_server(host.serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            found = []
            async with HttpClient(**(settings | allowed | options)) as client:
                for path in paths:
                    found.append(await client.picture(f"http://{user}127.0.0.1:{port}{path}"))
                    await asyncio.sleep(0.1)
            await host.end()
            return found

    results = asyncio.run(fetch())
    for result in results:
        if isinstance(result, Body):
            result.close()
    return results


@pytest.mark.parametrize(
    "first",
    [
        PICTURE,
        GONE + b"0\r\n\r\n",
        GONE + b"30000\r\n\r\n" + bytes(30_000),
        [GONE + b"30000\r\n\r\n", bytes(20_000), bytes(10_000)],
        [b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"0\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + PICTURE],
        b"HTTP/1.0 404 x\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["picture", "none", "page", "page in parts", "chunks", "interim", "1.0"],
)
def test_a_connection_is_used_again(first: Any) -> None:
    host = Host({"/1": first, "/2": PICTURE})
    one, other = ask(host, "/1", "/2")
    assert isinstance(one, Body) or one.http_status == 404
    assert isinstance(other, Body)
    assert host.asked == [["/1", "/2"]]


@pytest.mark.parametrize(
    "first",
    [
        GONE + b"70000\r\n\r\n",
        GONE + b"3\r\nConnection: close\r\n\r\nabc",
        b"HTTP/1.0 404 x\r\nContent-Length: 0\r\n\r\n",
        [b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"z\r\n"],
        [PICTURE, b"more"],
        PICTURE + b"more",
        GONE + b"3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [
            b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n",
            (b"1;" + b"e" * 9_000 + b"\r\nx\r\n") * 10,
            b"0\r\n\r\n",
        ],
    ],
    ids=[
        *("long page", "close", "1.0", "bad chunks", "more", "more at once", "two lengths"),
        "long between chunks",
    ],
)
def test_a_connection_is_not_used_again(first: Any) -> None:
    host = Host({"/1": first, "/2": PICTURE})
    assert isinstance(ask(host, "/1", "/2")[1], Body)
    assert host.asked == [["/1"], ["/2"]]


def test_a_page_is_no_answer_to_the_next_request() -> None:
    # Its rest comes when the next request is under way, over another connection.
    host = Host({"/1": [GONE + b"6\r\n\r\nabc"] + [b""] * 8 + [b"def"], "/2": PICTURE})
    gone, picture = ask(host, "/1", "/2")
    assert isinstance(gone, Failure)
    assert isinstance(picture, Body)
    assert host.asked == [["/1"], ["/2"]]


def test_a_kept_connection_that_ends_without_an_answer_costs_no_url() -> None:
    def once(count: int) -> bytes | None:
        return PICTURE if count == 1 else None

    host = Host({"/": once})
    assert [type(answer) for answer in ask(host, "/", "/", "/")] == [Body] * 3
    assert host.asked == [["/", "/"], ["/", "/"], ["/"]]


def test_a_new_connection_that_ends_without_an_answer_is_asked_once() -> None:
    host = Host({"/": None})
    (failure,) = ask(host, "/")
    assert isinstance(failure, Failure)
    assert failure.outcome is Outcome.CONNECTION_LOST
    assert failure.detail == "the connection ended before any answer did"
    assert host.asked == [["/"]]


def test_a_connection_that_ends_before_it_is_asked_is_not_waited_for() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def fetch() -> None:
        async with await asyncio.start_server(close, "127.0.0.1", 0) as listener:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(id, id), *listener.sockets[0].getsockname()
            )
            await asyncio.sleep(0.1)
            await asyncio.wait_for(connection.ask(b"GET / HTTP/1.1\r\n\r\n", id), 5)

    with pytest.raises(Disconnected):
        asyncio.run(fetch())


def test_a_failure_leaves_no_connection_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Connection]] = []

    class Noted(Connection):
        def __init__(self, *told: Any) -> None:
            super().__init__(*told)
            made.append(weakref.ref(self))

    monkeypatch.setattr(connections, "Connection", Noted)
    gc.disable()
    try:
        ask(Host({"/1": None, "/2": b"no HTTP", "/3": PICTURE}), "/1", "/2", "/3")
        assert [found() for found in made] == [None] * 3
    finally:
        gc.enable()


def test_a_connection_rests_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEPT_ALIVE_S", 0.05)
    host = Host({"/": PICTURE})
    ask(host, "/", "/")
    assert host.asked == [["/"], ["/"]]


def test_no_more_connections_are_kept_than_may_be_open() -> None:
    async def fetch() -> tuple[int, list[list[str]]]:
        host = Host({"/": PICTURE})
        hosts = [f"127.0.0.{number}" for number in range(1, 7)]
        async with await asyncio.start_server(host.serve, "0.0.0.0", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            async with HttpClient(
                timeout_s=3,
                max_bytes=9,
                user_agent="me",
                connections=4,
                allow_hosts=frozenset(hosts),
            ) as client:
                for number in (1, 2, 3, 4, 5, 6, 4, 6, 1):
                    (await client.picture(f"http://{hosts[number - 1]}:{port}/")).close()
                count = len(client._connections._open)
            await host.end()
            return count, host.asked

    open_, asked = asyncio.run(fetch())
    assert open_ <= 4
    # The first to rest were ended, the latest were there still.
    assert [len(paths) for paths in asked] == [1, 1, 1, 2, 1, 2, 1]


def test_a_user_and_a_password_of_a_url_are_sent() -> None:
    host = Host({"/": PICTURE})
    ask(host, "/", user="me:p%40ss@")
    assert b"Authorization: Basic bWU6cEBzcw==\r\n" in host.heads[0]
