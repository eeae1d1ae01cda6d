"""The open connections of an event loop: kept alive, guarded, through TLS or a proxy or not."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohappyeyeballs
from yarl import URL

from pipelines.command.machine import MachineError, is_machines
from pipelines.crawl.connection import Connection, Disconnected, Receive
from pipelines.crawl.names import Names
from pipelines.crawl.proxy import Proxy
from pipelines.crawl.response import BadResponse, Head
from pipelines.lists.url_list import is_address

_KEPT_ALIVE_S = 30.0
_NEXT_ADDRESS_S = 0.25
# Of connections that are kept alive without need, those that stay where room is made.
_STAY_PART = 3 / 4


class BlockedAddress(OSError):
    """The address of a socket about to connect may not be reached."""


class ConnectFailed(Exception):
    """No connection came about; ``is_refused`` by somebody, where that is known."""

    def __init__(self, text: str, *, is_refused: bool = False) -> None:
        super().__init__(text)
        self.is_refused = is_refused


@dataclass
class Attempt:
    """What became of attempts to reach a host of several addresses."""

    host: str
    blocked: str | None = None
    """Which of them may not be reached."""
    fault: OSError | None = None
    """This machine's, which the errors of other addresses would hide."""


Guard = Callable[[str, str], bool]
"""Whether a host may be reached at an address."""


class _Socket(socket.socket):
    """Tells its attempt of an error of this machine."""

    attempt: Attempt

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and self.family == socket.AF_INET6:
                # It has no address of that kind itself: the host cannot be reached from here.
                raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)) from None
            if is_machines(error) and not isinstance(error, BlockingIOError):
                self.attempt.fault = error
            raise


class Connections:
    """Asks hosts over connections of its own, directly or through ``proxy``.

    No more than ``most`` are open, those kept alive included; requests do not wait. A connection
    that is not there within ``timeout_s`` will not come any more. ``guard`` decides about every
    address, just before it is connected to.
    """

    def __init__(
        self, names: Names, guard: Guard, *, timeout_s: float, most: int, proxy: Proxy | None = None
    ) -> None:
        self._names, self._guard, self._proxy = names, guard, proxy
        self._timeout_s, self._most = timeout_s, most
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context()  # one for each connection would cost 40 ms of CPU
        self._open: set[Connection] = set()
        self._resting: dict[Connection, float] = {}
        """Since when; the longest first."""
        self._by_key: dict[object, list[Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Ends all of them."""
        if self._sweep:
            self._sweep.cancel()
        for connection in self._open:
            connection.close()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    async def ask(self, url: URL, headers: str, receive: Receive) -> Any:
        """The answer to a GET of a URL, its lines of ``headers`` after Host.

        Raises what Connection.ask does, and ConnectFailed, BlockedAddress, NameNotFound,
        ssl.SSLError.
        """
        host, port, is_tls = url.raw_host or "", url.port or 0, url.scheme == "https"
        attempt = Attempt(host)
        target = url.raw_path_qs
        if self._proxy:
            for address in await self._addresses(host):
                self._check(address, attempt)
            if not is_tls:
                target = f"{url.origin()}{target}"
                headers += self._proxy.login()
        request = f"GET {target} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n{headers}\r\n"
        key = (host, port, is_tls) if is_tls or not self._proxy else self._proxy.place
        while kept := self._kept(key):
            try:
                return await kept.ask(request.encode(), receive)
            except (Disconnected, BadResponse):
                # It had ended, or brings what is left of an earlier answer.
                if kept.has_answered:
                    raise
        connection = await self._connect(host, port, is_tls, attempt)
        connection.key = key
        return await connection.ask(request.encode(), receive)

    async def reach(self, host: str, port: int) -> None:
        """Connects to a host, or to the proxy, found by its name anew. Raises OSError."""
        address = (await self._addresses(host, anew=True))[0]
        if self._proxy:
            host, port = self._proxy.place
            address = (await self._addresses(host, anew=True))[0]
        attempt = Attempt(host)
        with self._socket(attempt, _endpoint(address, port)) as probe:
            await self._loop.sock_connect(probe, (address, port))

    async def _addresses(self, host: str, *, anew: bool = False) -> list[str]:
        if is_address(host):
            return [host]
        return await (self._names.find_anew(host) if anew else self._names.find(host))

    async def _connect(self, host: str, port: int, is_tls: bool, attempt: Attempt) -> Connection:
        if not self._proxy:
            return await self._open_to(host, port, is_tls, attempt)
        connection = await self._open_to_proxy(self._proxy, attempt)
        if is_tls:
            try:
                await self._tunnel(self._proxy, connection, host, port)
            except BaseException:
                self._end(connection)  # while TLS starts, nobody tells it of its end
                raise
        return connection

    async def _tunnel(self, proxy: Proxy, connection: Connection, host: str, port: int) -> None:
        """Has the proxy connect to a host, and starts TLS with that."""
        place = f"{f'[{host}]' if ':' in host else host}:{port}"
        request = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{proxy.login()}\r\n"
        head: Head = await connection.ask(request.encode(), lambda it: it, opens_tunnel=True)
        proxy.check_status(head.status)
        if head.status != 200:
            raise ConnectFailed(f"the proxy says {head.status} {head.reason}", is_refused=True)
        if connection.transport.is_closing():
            raise ConnectFailed(f"{place}: it speaks before TLS starts", is_refused=True)
        made = self._loop.start_tls(
            connection.transport, connection, self._tls, server_hostname=host.rstrip(".")
        )
        transport = await self._within(made, Attempt(host), port)
        assert transport is not None
        connection.transport = transport

    async def _open_to_proxy(self, proxy: Proxy, attempt: Attempt) -> Connection:
        try:
            return await self._open_to(*proxy.place, proxy.is_tls, attempt)
        except ConnectFailed as error:
            if error.__cause__ is None:  # it is silent, as where there is no network
                raise
            proxy.fail(error)
        except OSError as error:
            proxy.fail(error)

    async def _open_to(self, host: str, port: int, is_tls: bool, attempt: Attempt) -> Connection:
        if len(self._open) >= self._most:
            self._make_room()
        endpoints = [_endpoint(address, port) for address in await self._addresses(host)]
        dialled = self._dial(host, endpoints, is_tls, attempt)
        connection: Connection = await self._within(dialled, attempt, port)
        return connection

    async def _dial(
        self, host: str, endpoints: list[Any], is_tls: bool, attempt: Attempt
    ) -> Connection:
        # What else asks for a socket (a resolver) has no attempt.
        connected = await aiohappyeyeballs.start_connection(
            endpoints,
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            interleave=1,
            loop=self._loop,
            socket_factory=partial(self._socket, attempt),
        )
        _, connection = await self._loop.create_connection(
            lambda: Connection(self._rest, self._lost),
            sock=connected,
            ssl=self._tls if is_tls else None,
            server_hostname=host.rstrip(".") if is_tls else None,
        )
        self._open.add(connection)
        return connection

    async def _within(self, made: Awaitable[Any], attempt: Attempt, port: int) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await made
        except OSError as error:
            # Without a name of its own, which would hold the error, and its traceback the name.
            if is_machines(attempt.fault or error):
                raise MachineError(attempt.fault or error) from error
            if attempt.blocked is not None:
                raise BlockedAddress(attempt.blocked) from None
            if isinstance(error, ssl.SSLError):
                raise
            if isinstance(error, TimeoutError) and error.errno is None:  # not the system's
                raise ConnectFailed(f"no connection within {self._timeout_s:g} s") from None
            refused = error.errno == errno.ECONNREFUSED
            raise ConnectFailed(f"{attempt.host}:{port}: {error}", is_refused=refused) from error

    def _socket(self, attempt: Attempt, endpoint: tuple[Any, ...]) -> socket.socket:
        """A socket for the very address that it will connect to, if that may be reached."""
        family, kind, protocol, _, address = endpoint
        if not self._proxy:
            self._check(address[0], attempt)
        try:
            guarded = _Socket(family, kind, protocol)
        except OSError as error:
            if is_machines(error):
                attempt.fault = error
            raise
        guarded.attempt = attempt
        guarded.setblocking(False)
        return guarded

    def _check(self, address: str, attempt: Attempt) -> None:
        if not self._guard(attempt.host, address):
            attempt.blocked = f"{attempt.host} is {address}"
            raise BlockedAddress(attempt.blocked)

    def _kept(self, key: object) -> Connection | None:
        """One that rests and can be asked, the latest."""
        kept = self._by_key.get(key, [])
        for connection in reversed(kept):
            if connection.is_free:
                self._forget(connection)
                return connection
        return None

    def _rest(self, connection: Connection) -> None:
        if connection.key is None:  # on its way through a tunnel
            return
        self._resting[connection] = self._loop.time()
        self._by_key.setdefault(connection.key, []).append(connection)
        if not self._sweep:
            self._sweep = self._loop.call_later(_KEPT_ALIVE_S, self._end_old)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """That it rests."""
        if self._resting.pop(connection, None) is not None:
            kept = self._by_key[connection.key]
            kept.remove(connection)
            if not kept:
                del self._by_key[connection.key]

    def _end_old(self) -> None:
        self._sweep = None
        end = self._loop.time() - _KEPT_ALIVE_S
        for connection, since in list(self._resting.items()):
            if since > end:
                self._sweep = self._loop.call_at(since + _KEPT_ALIVE_S, self._end_old)
                return
            self._end(connection)

    def _make_room(self) -> None:
        """Ends those that have rested longest, until a quarter is free."""
        for connection in list(self._resting):
            if len(self._open) <= self._most * _STAY_PART:
                return
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        self._lost(connection)
        connection.close()


def _endpoint(address: str, port: int) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
