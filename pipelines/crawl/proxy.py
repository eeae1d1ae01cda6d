"""A proxy between the crawler and all hosts."""

import asyncio
import base64
import os
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from pipelines.command.cli import WorkError
from pipelines.crawl.options import PROXY_PASSWORD, PROXY_USER
from pipelines.lists.url_list import is_address

_KEPT_S = 600.0
_KEPT_HOSTS = 10_000


class NameNotFound(OSError):
    """A host without an address; ``os_error`` is the resolver's own error."""

    def __init__(self, host: str, os_error: OSError) -> None:
        super().__init__(f"{host}: {os_error}")
        self.os_error = os_error


class Proxy:
    """An http or https proxy, for one event loop. Its own failures are no host's: WorkError."""

    def __init__(self, url: str, resolver: Callable[[], AbstractResolver]) -> None:
        self.url = URL(url)
        self._new_resolver = resolver
        self._resolver: AbstractResolver | None = None
        self._found: dict[str, tuple[float, list[str]]] = {}

    async def close(self) -> None:
        """Ends the look-ups."""
        if self._resolver is not None:
            await self._resolver.close()

    async def addresses(self, host: str) -> list[str]:
        """All addresses of a host, for the address guard. Raises NameNotFound.

        No socket shows where a request goes to, so that the name is looked up for this alone.
        """
        if is_address(host):
            return [host]
        now = asyncio.get_running_loop().time()
        until, found = self._found.pop(host, (now, []))
        if until <= now:
            self._resolver = self._resolver or self._new_resolver()
            try:
                results = await self._resolver.resolve(host, family=socket.AF_UNSPEC)
            except OSError as error:
                raise NameNotFound(host, error) from error
            until, found = now + _KEPT_S, [result["host"] for result in results]
        self._found[host] = until, found
        if len(self._found) > _KEPT_HOSTS:
            del self._found[next(iter(self._found))]
        return found

    def login(self, scheme: str) -> dict[str, Any]:
        """Arguments of aiohttp's request with user and password, for https in the tunnel's head."""
        if not (user := os.environ.get(PROXY_USER)):
            return {}
        login = f"{user}:{os.environ.get(PROXY_PASSWORD, '')}".encode()
        header = {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}
        return {"proxy_headers" if scheme == "https" else "headers": header}

    def check_status(self, status: int) -> None:
        """Raises WorkError where an answer's status is the proxy's refusal of the crawler."""
        if status == 407:
            raise WorkError(
                f"the proxy {self.url} wants a user and a password (status 407): set {PROXY_USER} "
                f"and {PROXY_PASSWORD} in the environment of the workers"
            )

    def check_error(self, error: Exception) -> None:
        """Raises WorkError where a request failed because the proxy itself cannot be used."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            self.check_status(error.status)
        place = (self.url.raw_host, self.url.port)
        if isinstance(error, aiohttp.ClientConnectorError) and (error.host, error.port) == place:
            raise WorkError(f"the proxy {self.url} takes no connection: {error}")
