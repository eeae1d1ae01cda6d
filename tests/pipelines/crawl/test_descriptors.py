import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:3])))
"""
ROOM = f"""
{LIMIT}
from pipelines.crawl.descriptors import room_for
room = room_for(10)
print(room.in_flight, room.connections, room.warning)
files = [open("/dev/null") for _ in range(3 * room.in_flight + room.connections)]
"""
CRAWL = f"""
{LIMIT}
import asyncio, contextlib
from pipelines.crawl.descriptors import room_for
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.web import Web
from pipelines.lists.url_list import Entry

hosts = [f"127.0.1.{{n}}" for n in range(1, 61)]

async def main():
    room = room_for(256)
    crawl = CrawlOptions(concurrency=room.in_flight, requests_per_host=1000)
    allowed = frozenset(hosts)
    limits = dict(timeout_s=30, max_bytes=9, user_agent="me", connections=room.connections)
    async with HttpClient(allow_hosts=allowed, **limits) as client:
        web = Web(client, crawl)
        async def fetch(host, n):
            url = f"http://{{host}}:{{sys.argv[3]}}/{{n}}"
            async with web.fetch(Entry("n1", url, url, host)) as answer:
                with contextlib.closing(answer):
                    return answer.sha256
        found = await asyncio.gather(*(fetch(host, n) for n in range(4) for host in hosts))
        print(len(found), len(set(found)))

asyncio.run(main())
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    root = Path(__file__).parents[3]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.parametrize(("soft", "hard", "fit"), [(64, 512, True), (48, 48, False)])
def test_as_many_are_in_flight_as_the_hard_limit_allows(soft: int, hard: int, fit: bool) -> None:
    done = run(ROOM, soft, hard)
    assert done.returncode == 0, done.stderr
    in_flight, _, warning = done.stdout.rstrip("\n").split(" ", 2)
    if fit:
        assert (in_flight, warning) == ("10", "")
    else:
        assert 1 < int(in_flight) < 10
        told = f"no more than {hard} files may be open at once (ulimit -n): {in_flight} requests"
        assert warning == f"{told} in flight instead of 10"


def test_a_limit_too_low_for_one_request_is_an_error() -> None:
    assert "WorkError: no more than 16 files may be open at once" in run(ROOM, 16, 16).stderr


@pytest.fixture
def keeping_alive() -> Iterator[int]:
    """The port of a server on all loopback addresses that keeps every connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"\r\n" in (await reader.read(4_096)):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xd8\xff")
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "0.0.0.0", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await stop.wait()
        server.close()

    ports: list[int] = []
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    loop.set_exception_handler(lambda *_: None)
    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    started.wait()
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.mark.slow
def test_connections_that_are_kept_alive_make_room_for_others(keeping_alive: int) -> None:
    done = run(CRAWL, 48, 48, keeping_alive)
    assert (done.returncode, done.stdout) == (0, "240 1\n"), done.stderr
