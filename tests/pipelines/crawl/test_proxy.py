"""A crawl through a proxy: what it is asked, what it may reach, how it fails."""

import asyncio
import base64
import contextlib
import gc
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.command.cli import WorkError
from pipelines.crawl.answer import Body, Failure, Silence
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.options import PROXY_PASSWORD, PROXY_USER
from pipelines.dataset.outcome import Outcome

Answer = Callable[..., bytes]
PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 20
ADDRESSES = {"photos.example": "93.184.216.34", "inside.example": "10.0.0.7"}


class Names:
    """Knows the names above, and counts what it is asked."""

    asked = 0

    async def addresses(self, host: str) -> list[str]:
        type(self).asked += 1
        if host not in ADDRESSES:
            raise OSError(None, "no such name")
        return [ADDRESSES[host]]

    async def close(self) -> None:
        pass


def get(proxy: str, *urls: str, allow: str = "") -> Any:
    """What a client gives for each URL; the one result where there is one."""

    async def fetch() -> list[Any]:
        async with client(proxy, allow) as asking:
            return [await asking.picture(url) for url in urls]

    results = asyncio.run(fetch())
    return results[0] if len(results) == 1 else results


def client(proxy: str, allow: str = "", timeout_s: float = 5.0) -> HttpClient:
    return HttpClient(
        timeout_s=timeout_s,
        max_bytes=1_000_000,
        user_agent="tester/1.0",
        allow_hosts=frozenset({allow}),
        proxy=proxy,
        resolver=Names,
    )


def test_a_picture_comes_through_the_proxy(server: Any, http_answer: Answer) -> None:
    server.routes["http://photos.example/a.jpg"] = http_answer(PICTURE)
    body = get(server.url(), "http://photos.example/a.jpg")
    assert isinstance(body, Body)
    assert body.read() == PICTURE
    body.close()
    assert b"Proxy-Authorization" not in server.heads[0]


def test_a_name_is_looked_up_once(server: Any, http_answer: Answer) -> None:
    Names.asked = 0
    missing = get(server.url(), *[f"http://photos.example/{n}.jpg" for n in range(3)])
    assert [failure.outcome for failure in missing] == [Outcome.HTTP_CLIENT_ERROR] * 3
    assert Names.asked == 1


def test_user_and_password_come_from_the_environment(
    server: Any, http_answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROXY_USER, "me")
    monkeypatch.setenv(PROXY_PASSWORD, "secret")
    server.routes["http://photos.example/a.jpg"] = http_answer(PICTURE)
    get(server.url(), "http://photos.example/a.jpg").close()
    assert base64.b64encode(b"me:secret") in server.heads[0]


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://inside.example/a.jpg", "inside.example is 10.0.0.7"),
        ("https://inside.example/a.jpg", "inside.example is 10.0.0.7"),
        ("http://127.0.0.1/a.jpg", "127.0.0.1 is 127.0.0.1"),
        ("http://169.254.169.254/a.jpg", "169.254.169.254 is 169.254.169.254"),
    ],
)
def test_the_proxy_is_never_asked_for_what_is_not_public(
    server: Any, url: str, detail: str
) -> None:
    failure = get(server.url(), url)
    assert (failure.outcome, failure.detail) == (Outcome.BLOCKED_ADDRESS, detail)
    assert not server.requests


def test_a_host_may_be_allowed(server: Any, http_answer: Answer) -> None:
    server.routes["http://inside.example/a.jpg"] = http_answer(PICTURE)
    get(server.url(), "http://inside.example/a.jpg", allow="inside.example").close()


def test_a_name_without_an_address_is_not_asked_for(server: Any) -> None:
    failure = get(server.url(), "http://nowhere.example/a.jpg")
    assert failure.outcome is Outcome.DNS_FAILED
    assert not server.requests


def test_a_host_that_the_proxy_cannot_reach(server: Any, http_answer: Answer) -> None:
    server.routes["photos.example:443"] = http_answer(status="502 Bad Gateway")
    failure = get(server.url(), "https://photos.example/a.jpg")
    assert failure.outcome is Outcome.CONNECT_FAILED
    assert "502" in failure.detail


OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    ("after", "silence"), [(b"SSH-2.0-OpenSSH_9.6\r\n", None), (b"", Silence.HOST)]
)
def test_a_host_behind_a_tunnel_that_speaks_at_once_or_leaves(
    server: Any, after: bytes, silence: Silence | None
) -> None:
    server.routes["photos.example:443"] = OPEN + after
    failure = get(server.url(), "https://photos.example/a.jpg")
    assert (failure.outcome, failure.silence) == (Outcome.CONNECT_FAILED, silence)


def test_nothing_is_left_of_a_tunnel_to_a_silent_host(server: Any) -> None:
    async def open_and_wait(writer: asyncio.StreamWriter) -> None:
        writer.write(OPEN)
        await asyncio.sleep(60)

    async def fetch() -> int:
        async with client(server.url(), timeout_s=0.6) as asking:
            failure = await asking.picture("https://photos.example/a.jpg")
            assert isinstance(failure, Failure)
            assert failure.outcome is Outcome.CONNECT_FAILED
            return len(asking._connections._open)

    server.routes["photos.example:443"] = open_and_wait
    assert asyncio.run(fetch()) == 0


def test_a_proxy_is_not_told_the_user_of_a_url(server: Any, http_answer: Answer) -> None:
    server.routes["http://photos.example/a.jpg?b"] = http_answer(PICTURE)
    get(server.url(), "http://me:secret@photos.example/a.jpg?b").close()
    assert b"Authorization: Basic bWU6c2VjcmV0\r\n" in server.heads[0]


@pytest.mark.parametrize("url", ["http://photos.example/a.jpg", "https://photos.example/a.jpg"])
def test_a_proxy_that_wants_a_password_fails_the_crawl(
    server: Any, http_answer: Answer, url: str
) -> None:
    asks = http_answer(status="407 Proxy Authentication Required")
    server.routes |= {"http://photos.example/a.jpg": asks, "photos.example:443": asks}
    with pytest.raises(WorkError, match=f"wants a user and a password .*: set {PROXY_USER} and"):
        get(server.url(), url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_fails_the_crawl(scheme: str) -> None:
    with pytest.raises(WorkError, match=r"the proxy http://127.0.0.1:9/? takes no connection"):
        get("http://127.0.0.1:9", f"{scheme}://photos.example/a.jpg")


def test_a_proxy_whose_certificate_nobody_vouches_for_fails_the_crawl(tls_server: Any) -> None:
    with pytest.raises(WorkError, match="the proxy https://127"):
        get(tls_server.url().replace("http:", "https:"), "http://photos.example/a.jpg")


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that connects every CONNECT to a port of this machine; what it was asked."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as host:
            asked.append(client.recv(1 << 16).split(b"\r\n")[0])
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(host, client), daemon=True).start()
            pump(client, host)

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


def test_https_goes_through_a_tunnel_whose_end_is_checked(tls_server: Any) -> None:
    with tunnel(tls_server.port) as (proxy, asked):
        failure = get(proxy, "https://photos.example/a.jpg")
    assert isinstance(failure, Failure)
    assert failure.outcome is Outcome.TLS_FAILED
    assert asked == [b"CONNECT photos.example:443 HTTP/1.1"]


@pytest.fixture
def trusted(tmp_path: Path, tls_server: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of tls_server, which is vouched for now."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    return tmp_path / "pem"


def test_a_picture_comes_through_an_https_proxy(
    tls_server: Any, trusted: Path, http_answer: Answer
) -> None:
    tls_server.routes["http://photos.example/a.jpg"] = http_answer(PICTURE)
    body = get(f"https://127.0.0.1:{tls_server.port}", "http://photos.example/a.jpg")
    assert isinstance(body, Body)
    assert body.read() == PICTURE
    body.close()


# asyncio leaves TLS inside TLS to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_https_picture_comes_through_an_https_proxy(
    tls_server: Any, trusted: Path, http_answer: Answer
) -> None:
    tls_server.routes["/a.jpg"] = http_answer(PICTURE)
    asked = []
    served = asyncio.Event()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        host = await asyncio.open_connection("127.0.0.1", tls_server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, host[1]), pump(host[0], writer))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await host[1].wait_closed()
        served.set()

    async def fetch() -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(trusted)
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
            async with client(f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as asking:
                answer = await asking.picture("https://photos.example/a.jpg")
            await served.wait()
            return answer

    body = asyncio.run(fetch())
    assert isinstance(body, Body), body
    assert body.read() == PICTURE
    body.close()
    assert asked == [b"CONNECT photos.example:443 HTTP/1.1"]
    gc.collect()


def test_during_an_outage_the_proxy_is_asked(server: Any) -> None:
    async def ask(proxy: str) -> bool:
        async with HttpClient(
            timeout_s=5.0, max_bytes=1, user_agent="", proxy=proxy, resolver=Names
        ) as client:
            return await client.reaches("http://photos.example/")

    assert asyncio.run(ask(server.url()))
    assert not asyncio.run(ask("http://127.0.0.1:9"))
