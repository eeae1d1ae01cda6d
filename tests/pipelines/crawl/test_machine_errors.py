import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.command.machine import MachineError, is_machines
from pipelines.crawl import connections
from pipelines.crawl.answer import Failure
from pipelines.crawl.connection import Connection
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.names import CaresResolver
from pipelines.dataset.outcome import Outcome
from tests.support.resolver import FixedResolver

Answer = Callable[..., bytes]
PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 2_000
# Those of no port for the machine, of its descriptors, memory, disk and processes.
MACHINES = {
    *("EADDRINUSE", "EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EAGAIN"),
    *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO"),
}
# asyncio takes these for a connection that is under way.
UNDER_WAY = {errno.EAGAIN, errno.EINPROGRESS, errno.EINTR, errno.EALREADY}


def outcomes(
    url: str, numbers: Iterable[int], meet: Callable[[int], object], **options: Any
) -> Any:
    """What a URL's outcome is when each error is met; None where it is the machine's."""

    async def fetch() -> dict[int, Outcome | None]:
        found: dict[int, Outcome | None] = {}
        async with client(**options) as asking:
            for number in numbers:
                meet(number)
                try:
                    answer = await asking.picture(url)
                except MachineError as error:
                    assert str(error).startswith(f"[Errno {number}] {os.strerror(number)}")
                    found[number] = None
                else:
                    assert isinstance(answer, Failure)
                    found[number] = answer.outcome
        return found

    return asyncio.run(fetch())


def client(**options: Any) -> HttpClient:
    allowed = frozenset({"127.0.0.1", "two.example", "2001:db8::1"})
    settings = {"timeout_s": 5.0, "max_bytes": 1_000_000, "user_agent": "me"}
    return HttpClient(**(settings | {"allow_hosts": allowed} | options))


class Failing:
    """A method in which one error after another is met."""

    def meet(self, number: int) -> None:
        self.error = OSError(number, os.strerror(number))

    def __call__(self, *_: Any) -> None:
        raise self.error


def told(number: int, outcome: Outcome) -> Outcome | None:
    """The outcome of a URL; None where the error is the machine's."""
    return None if errno.errorcode[number] in MACHINES else outcome


def test_every_error_of_a_connection_attempt_is_the_urls_or_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = Failing()
    monkeypatch.setattr(socket.socket, "connect", failing)
    found = outcomes("http://127.0.0.1/", errno.errorcode.keys() - UNDER_WAY, failing.meet)
    assert found == {number: told(number, Outcome.CONNECT_FAILED) for number in found}


def test_every_error_of_a_new_socket_is_the_urls_or_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = Failing()
    monkeypatch.setattr("pipelines.crawl.connections._Socket", failing)
    found = outcomes("http://127.0.0.1/", errno.errorcode, failing.meet)
    assert found == {number: told(number, Outcome.CONNECT_FAILED) for number in found}


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_every_error_of_an_open_connection_is_the_urls_or_the_machines(
    server: Any, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    failing = Failing()

    async def say_nothing(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    class Breaking(Connection):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            asyncio.get_running_loop().call_later(0.001, self.end, transport)

        def end(self, transport: Any) -> None:
            if start:
                self.data_received(start)
            transport._force_close(failing.error)

    monkeypatch.setattr("pipelines.crawl.connections.Connection", Breaking)
    server.routes["/"] = say_nothing
    found = outcomes(server.url(), errno.errorcode, failing.meet)
    # On a busy machine it may still count as being made.
    lost = (Outcome.CONNECTION_LOST, Outcome.CONNECT_FAILED)
    assert all(one in {told(number, outcome) for outcome in lost} for number, one in found.items())


@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")])
def test_an_error_of_this_machine_at_one_of_two_addresses_is_told(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, str]
) -> None:
    def fail(_: Any, address: Any) -> None:
        number = errno.ENOBUFS if address[0] == "192.0.2.2" else errno.ECONNREFUSED
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "connect", fail)
    two = partial(FixedResolver, *addresses)
    found = outcomes("http://two.example/", [errno.ENOBUFS], id, resolver=two)
    assert found == {errno.ENOBUFS: None}


def test_an_error_of_this_machine_is_told_where_the_next_address_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = partial(FixedResolver, "127.0.0.2", "127.0.0.1")
    connect = socket.socket.connect

    def fail(this: Any, address: Any) -> None:
        if address[0] == "127.0.0.2":
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        connect(this, address)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # the one that the system holds for later
            monkeypatch.setattr(socket.socket, "connect", fail)
            url = f"http://two.example:{address[1]}/"
            found = outcomes(url, [errno.ENOBUFS], id, resolver=two, timeout_s=0.6)
    assert found == {errno.ENOBUFS: None}


def test_an_error_of_this_machine_is_told_where_the_next_address_is_of_no_known_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = partial(FixedResolver, "192.0.2.1", "2001:db8::1")

    class NoIpv6(connections._Socket):
        def __init__(self, family: int, *kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *kind)

    failing = Failing()
    monkeypatch.setattr(socket.socket, "connect", failing)
    monkeypatch.setattr(connections, "_Socket", NoIpv6)
    found = outcomes("http://two.example/", [errno.ENOBUFS], failing.meet, resolver=two)
    assert found == {errno.ENOBUFS: None}


def test_a_machine_without_ipv6_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing()
    monkeypatch.setattr(socket.socket, "connect", failing)
    found = outcomes("http://[2001:db8::1]/", [errno.EADDRNOTAVAIL], failing.meet)
    assert found == {errno.EADDRNOTAVAIL: Outcome.CONNECT_FAILED}


def test_a_number_of_tls_is_none_of_the_machine() -> None:
    error = OSError(errno.EIO, "Some I/O error occurred")
    assert is_machines(error)
    error.__cause__ = ssl.SSLSyscallError(errno.EIO, "Some I/O error occurred")
    assert not is_machines(error)
    assert not is_machines(error.__cause__)


def test_a_look_up_without_a_free_descriptor_is_the_machines() -> None:
    async def fetch() -> None:
        resolver = partial(CaresResolver, nameservers=["127.0.0.1"], timeout=0.1, tries=1)
        async with client(resolver=resolver) as asking:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            held = [os.dup(0)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        held.append(os.dup(0))
                await asking.picture("http://named.example/")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for number in held:
                    os.close(number)

    with pytest.raises(MachineError, match=os.strerror(errno.EMFILE)):
        asyncio.run(fetch())


def test_large_bodies_lie_in_the_spool(
    server: Any, http_answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    server.routes["/"] = http_answer(PICTURE)

    async def fetch(spool: Path) -> bytes:
        async with client(spool=spool) as asking:
            with contextlib.closing(await asking.picture(server.url())) as body:
                return body.read()

    assert asyncio.run(fetch(tmp_path)) == PICTURE
    with pytest.raises(MachineError, match="No such file"):
        asyncio.run(fetch(tmp_path / "gone"))


def test_every_error_of_the_spool_is_the_machines(
    server: Any, http_answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing()
    server.routes["/"] = http_answer(PICTURE)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", failing)
    assert {*outcomes(server.url(), errno.errorcode, failing.meet).values()} == {None}
