"""One GET, with its limits: a response, or the outcome that stands for the failure."""

import asyncio
import contextlib
import hashlib
import ipaddress
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from pipelines.outcomes import Outcome
from pipelines.url_list import request_url

MAX_REDIRECTS = 5
ROBOTS_PATH = "/robots.txt"
_MAX_HEADER_BYTES = 16_384
# Larger bodies go to disk, so that memory does not follow the number of requests in flight.
_BODY_IN_MEMORY_BYTES = 256 << 10
_READ_BYTES = 64 << 10
_KEEP_ALIVE_S = 30
_DNS_CACHE_S = 600
_DNS_CACHE_HOSTS = 10_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_PLACEHOLDER_PATH = re.compile(r"/photo_unavailable[^/]*$")


@dataclass(frozen=True)
class Body:
    """A complete body, on disk where it is large."""

    file: BinaryIO
    num_bytes: int
    sha256: str

    def read(self) -> bytes:
        """All of it."""
        self.file.seek(0)
        return self.file.read()

    def close(self) -> None:
        """Frees it."""
        self.file.close()


@dataclass(frozen=True)
class Failure:
    """Why a GET gave no body."""

    outcome: Outcome
    detail: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    """What the host asked for with 429 or 503."""

    def __post_init__(self) -> None:
        # A host's bytes that are no text would be none in the tables either.
        if self.detail is not None:
            text = self.detail.encode(errors="backslashreplace").decode()
            object.__setattr__(self, "detail", text)


class BlockedAddress(OSError):
    """The address of a socket about to connect is not a public one."""


@dataclass
class _Hop:
    """What the socket factory knows of the request that it serves."""

    host: str
    blocked: str | None = None


_hop: ContextVar[_Hop] = ContextVar("hop")


class HttpClient:
    """GETs for one event loop, over shared connections and one TLS context.

    Usable as an async context manager. ``resolver`` is a parameter for tests.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        max_bytes: int,
        user_agent: str,
        allow_hosts: frozenset[str] = frozenset(),
        resolver: Callable[[], AbstractResolver] = aiohttp.AsyncResolver,
    ) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._user_agent = user_agent
        self._allow_hosts = allow_hosts
        self._resolver = resolver

    async def __aenter__(self) -> Self:
        # A context for each connection costs 40 ms of CPU.
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=ssl.create_default_context(),
            resolver=self._resolver(),
            ttl_dns_cache=_DNS_CACHE_S,
            dns_cache_max_size=_DNS_CACHE_HOSTS,
            keepalive_timeout=_KEEP_ALIVE_S,
            socket_factory=self._guarded_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline of get() is for all hops
            headers={"User-Agent": self._user_agent, "Accept": "image/*,*/*;q=0.5"},
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, url: str, *, max_bytes: int | None = None) -> Body | Failure:
        """The body of a 200 answer after at most five redirects, or why there is none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(URL(url, encoded=True), max_bytes or self._max_bytes)
        except TimeoutError:
            return Failure(Outcome.TIMED_OUT, f"after {self._timeout_s:g} s")

    async def _follow(self, url: URL, max_bytes: int) -> Body | Failure:
        for _ in range(MAX_REDIRECTS + 1):
            result = await self._hop(url, max_bytes)
            if not isinstance(result, URL):
                return result
            url = result
        return Failure(Outcome.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}, last to {url}")

    async def _hop(self, url: URL, max_bytes: int) -> Body | Failure | URL:
        hop = _Hop(url.raw_host or "")
        _hop.set(hop)
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                return await self._read(url, answer, max_bytes)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            if hop.blocked is not None:
                return Failure(Outcome.BLOCKED_ADDRESS, f"{hop.host} is {hop.blocked}")
            return Failure(_outcome_of(error), _describe(error))

    async def _read(
        self, url: URL, answer: aiohttp.ClientResponse, max_bytes: int
    ) -> Body | Failure | URL:
        if answer.status in _REDIRECTS and "Location" in answer.headers:
            return _redirect(url, answer)
        if answer.status != 200:
            return _status_failure(answer)
        opted_out = _opt_out(answer.headers.getall("X-Robots-Tag", []))
        if opted_out and url.raw_path != ROBOTS_PATH:  # many hosts keep it out of search results
            return Failure(Outcome.OPTED_OUT, f"X-Robots-Tag: {opted_out}", 200)
        if _PLACEHOLDER_PATH.search(url.raw_path):
            return Failure(Outcome.PLACEHOLDER, f"redirected to {url}", 200)
        if (answer.content_length or 0) > max_bytes:
            return _too_many_bytes(f"{answer.content_length:,}", max_bytes)
        return await _read_body(answer.content, max_bytes)

    def _guarded_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for the very address that it will connect to, if that may be reached."""
        family, kind, protocol, _, endpoint = address
        hop = _hop.get()
        if not is_public(endpoint[0]) and hop.host not in self._allow_hosts:
            hop.blocked = endpoint[0]
            raise BlockedAddress(f"{endpoint[0]} is not a public address")
        guarded = socket.socket(family, kind, protocol)
        guarded.setblocking(False)
        return guarded


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable, also inside an IPv4-mapped or 6to4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return inner.is_global
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF).is_global
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


async def _read_body(content: aiohttp.StreamReader, max_bytes: int) -> Body | Failure:
    file = tempfile.SpooledTemporaryFile(_BODY_IN_MEMORY_BYTES)  # noqa: SIM115  closed by Body
    digest, count = hashlib.sha256(), 0
    try:
        while chunk := await content.read(_READ_BYTES):
            count += len(chunk)
            if count > max_bytes:
                file.close()
                return _too_many_bytes("more", max_bytes)
            digest.update(chunk)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    return Body(file, count, digest.hexdigest())  # type: ignore[arg-type]


def _redirect(url: URL, answer: aiohttp.ClientResponse) -> URL | Failure:
    raw = answer.headers["Location"].encode(errors="surrogateescape")
    location = raw.decode(errors="percent")
    try:
        return request_url(urljoin(str(url), location))
    except ValueError as error:
        detail = f"redirected to {location[:200]!r}: {error}"
        return Failure(Outcome.UNSUPPORTED_URL, detail, answer.status)


def _too_many_bytes(found: str, max_bytes: int) -> Failure:
    return Failure(Outcome.TOO_MANY_BYTES, f"{found} than {max_bytes:,}", 200)


def _status_failure(answer: aiohttp.ClientResponse) -> Failure:
    status = answer.status
    if status in (429, 503):
        outcome = Outcome.RATE_LIMITED
        retry_after_s = parse_retry_after(answer.headers.get("Retry-After"))
        return Failure(outcome, answer.reason, status, retry_after_s)
    outcome = Outcome.HTTP_SERVER_ERROR if status >= 500 else Outcome.HTTP_CLIENT_ERROR
    return Failure(outcome, answer.reason, status)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds from a Retry-After header, a number or a date; None where it says nothing.

    ``now`` is the time in seconds since the epoch, the present one by default.
    """
    if value is None:
        return None
    with contextlib.suppress(ValueError, OverflowError):
        return max(float(int(value)), 0.0)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = parsedate_to_datetime(value).timestamp()
        return max(date - (time.time() if now is None else now), 0.0)
    return None


def _opt_out(values: list[str]) -> str | None:
    """The X-Robots-Tag value that asks not to use the picture, for all robots or for us."""
    for value in values:
        agent, colon, rest = value.partition(":")
        directives = rest if colon and agent.strip().lower() == "imagenet-superres" else value
        if _OPT_OUT & {part.strip().lower() for part in directives.split(",")}:
            return value
    return None


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Outcome.DNS_FAILED
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Outcome.TLS_FAILED
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome.CONNECT_FAILED
    if isinstance(error, aiohttp.InvalidURL):
        return Outcome.UNSUPPORTED_URL
    return Outcome.CONNECTION_LOST


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
