"""Host names -> addresses, kept for a while."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

import aiodns

_KEPT_S = 600.0
_KEPT_HOSTS = 10_000
_SILENT = frozenset(
    {
        aiodns.error.ARES_ESERVFAIL,
        aiodns.error.ARES_EREFUSED,
        aiodns.error.ARES_ECONNREFUSED,
        aiodns.error.ARES_ETIMEOUT,
    }
)


class NameNotFound(OSError):
    """A host without an address.

    ``fault`` is this machine's error, if that was why; ``is_silent``: no name server has answered.
    """

    def __init__(self, host: str, error: OSError) -> None:
        super().__init__(f"{host}: {error.strerror or error}")
        cause = error.__cause__
        status = cause.args[0] if isinstance(cause, aiodns.error.DNSError) else None
        self.is_silent = isinstance(error, TimeoutError) or status in _SILENT
        self.fault = _fault(status)


def _fault(status: int | None) -> OSError | None:
    """This machine's error behind one of c-ares, which does not tell of it."""
    if status == aiodns.error.ARES_ENOMEM:
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if status == aiodns.error.ARES_ECONNREFUSED:
        try:
            socket.socket(type=socket.SOCK_DGRAM).close()
        except OSError as fault:
            return fault
    return None


class Resolver(Protocol):
    """Looks names up for one event loop."""

    async def addresses(self, host: str) -> list[str]:
        """All addresses of a host, one at least. Raises OSError."""

    async def close(self) -> None:
        """Ends the look-ups."""


class CaresResolver:
    """A Resolver by c-ares, which takes no threads: a pool of them would strangle a crawl of
    thousands of hosts. ``options`` are those of aiodns.DNSResolver."""

    def __init__(self, **options: Any) -> None:
        self._resolver = aiodns.DNSResolver(**options)

    async def addresses(self, host: str) -> list[str]:
        """As Resolver has it."""
        try:
            found = await self._resolver.getaddrinfo(
                host, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except aiodns.error.DNSError as error:
            raise OSError(None, str(error.args[-1])) from error
        return [node.addr[0].decode("ascii") for node in found.nodes]

    async def close(self) -> None:
        """As Resolver has it."""
        await self._resolver.close()


class Names:
    """What names stand for, for one event loop. A look-up takes ``timeout_s`` at most: several
    silent name servers would take longer than a request."""

    def __init__(self, resolver: Callable[[], Resolver], timeout_s: float) -> None:
        self._new, self._timeout_s = resolver, timeout_s
        self._resolver = resolver()
        self._found: dict[str, tuple[float, list[str]]] = {}
        self._asked: dict[str, asyncio.Task[list[str]]] = {}
        self._clock = asyncio.get_running_loop().time

    async def close(self) -> None:
        """Ends the look-ups."""
        for task in self._asked.values():
            task.cancel()
        await self._resolver.close()

    async def find(self, host: str) -> list[str]:
        """All addresses of a host, looked up once for all that ask. Raises NameNotFound."""
        until, addresses = self._found.get(host, (0.0, []))
        if until > self._clock():
            return addresses
        if not (task := self._asked.get(host)):
            task = self._asked[host] = asyncio.create_task(self._look_up(self._resolver, host))
            task.add_done_callback(lambda done: self._keep(host, done))
        return await asyncio.shield(task)

    async def find_anew(self, host: str) -> list[str]:
        """The same by a new resolver, which has nothing in its cache."""
        resolver = self._new()
        try:
            return await self._look_up(resolver, host)
        finally:
            await resolver.close()

    def _keep(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._asked[host]
        with contextlib.suppress(asyncio.CancelledError, NameNotFound):
            self._found.pop(host, None)  # what is looked up last is forgotten last
            self._found[host] = self._clock() + _KEPT_S, task.result()
        if len(self._found) > _KEPT_HOSTS:
            del self._found[next(iter(self._found))]

    async def _look_up(self, resolver: Resolver, host: str) -> list[str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await resolver.addresses(host)
        except TimeoutError:
            message = f"no name server has answered within {self._timeout_s:g} s"
            raise NameNotFound(host, TimeoutError(None, message)) from None
        except OSError as error:
            raise NameNotFound(host, error) from error
