"""One GET, with its limits: a response, or the outcome that stands for the failure."""

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import io
import ipaddress
import os
import re
import socket
import ssl
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiodns.error
import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from pipelines.command.machine import MachineError, is_machines
from pipelines.crawl.answer import Answer, Body, Failure, Redirect, Silence
from pipelines.crawl.ports import BLOCKED_PORTS
from pipelines.crawl.proxy import NameNotFound, Proxy
from pipelines.crawl.response_head import MAX_HEAD_BYTES, Connector
from pipelines.crawl.robots import MAX_ROBOTS_BYTES, opt_out, product_token
from pipelines.dataset.outcome import Outcome, error_detail
from pipelines.lists.url_list import is_address, request_url
from pipelines.pictures.formats import may_be_picture

MAX_REDIRECTS = 5
# Larger bodies go to disk, so that memory does not follow the number of requests in flight.
_BODY_IN_MEMORY_BYTES = 256 << 10
_READ_BYTES = 64 << 10
# Read so much before judging: most HTML pages end within that, so the connection can be used
# again.
_PAGE_BYTES = 64 << 10
# Of the time for the whole request: a connection that takes longer will not come any more.
_CONNECT_PART = 1 / 3
# Of the time for connecting: with three attempts, each twice as long as the one before, a silent
# name server is told from a silent host.
_DNS_PART = 1 / 5
_PROBE_S = 5.0
_KEEP_ALIVE_S = 30
_DNS_CACHE_S = 600
_DNS_CACHE_HOSTS = 10_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAME_SERVER_SILENT = frozenset(
    {
        aiodns.error.ARES_ESERVFAIL,
        aiodns.error.ARES_EREFUSED,
        aiodns.error.ARES_ECONNREFUSED,
        aiodns.error.ARES_ETIMEOUT,
    }
)
_PLACEHOLDER_PATH = re.compile(r"/photo_unavailable[^/]*$")


class BlockedAddress(OSError):
    """The address of a socket about to connect is not a public one."""


@dataclass
class _Hop:
    """The request of a chain of redirects that is under way, also for the socket factory."""

    host: str = ""
    number: int = 0
    blocked: str | None = None
    fault: OSError | None = None
    """This machine's, met at one of several addresses."""


_hop: ContextVar[_Hop] = ContextVar("hop")


class _Resolver(AbstractResolver):
    """A resolver with a limit: several silent name servers would take longer than a request."""

    def __init__(self, resolver: AbstractResolver, timeout_s: float) -> None:
        self._resolver, self._timeout_s = resolver, timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._resolver.resolve(host, port, family)
        except TimeoutError:
            message = f"no name server has answered within {self._timeout_s:g} s"
            status = aiodns.error.ARES_ETIMEOUT
            raise OSError(None, message) from aiodns.error.DNSError(status, message)

    async def close(self) -> None:
        await self._resolver.close()


class _Socket(socket.socket):
    """Remembers an error of this machine, which the errors of other addresses would hide."""

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and self.family == socket.AF_INET6:
                # It has no address of that kind itself: the host cannot be reached from here.
                raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)) from None
            if is_machines(error) and not isinstance(error, BlockingIOError):
                _hop.get().fault = error
            raise


_Read = Callable[[URL, aiohttp.ClientResponse], Awaitable[Body | Failure]]


class HttpClient:
    """GETs for one event loop, over shared connections and one TLS context.

    Usable as an async context manager. All requests go through ``proxy``, if there is one, which
    raises WorkError where it cannot be used. Errors of this machine are no answer: MachineError.
    Large bodies lie in the folder ``spool``. No more than ``connections`` are kept open.
    ``resolver`` is a parameter for tests.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        max_bytes: int,
        user_agent: str,
        allow_hosts: frozenset[str] = frozenset(),
        proxy: str | None = None,
        spool: Path | None = None,
        connections: int = 1 << 20,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._user_agent, self._robot = user_agent, product_token(user_agent)
        self._allow_hosts = allow_hosts
        self._spool, self._connections = str(spool) if spool else None, connections
        # With options of its own, each has its own cache of names.
        new = resolver or partial(
            aiohttp.AsyncResolver, timeout=timeout_s * _CONNECT_PART * _DNS_PART, tries=3
        )
        within_s = timeout_s * _CONNECT_PART
        self._resolver: Callable[[], AbstractResolver] = lambda: _Resolver(new(), within_s)
        self._proxy = Proxy(proxy, self._resolver) if proxy else None

    async def __aenter__(self) -> Self:
        self._names = self._resolver()
        # A context for each connection costs 40 ms of CPU.
        connector = Connector(
            self._connections,
            limit=0,
            ssl=ssl.create_default_context(),
            resolver=self._names,
            ttl_dns_cache=_DNS_CACHE_S,
            dns_cache_max_size=_DNS_CACHE_HOSTS,
            keepalive_timeout=_KEEP_ALIVE_S,
            socket_factory=self._guarded_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The deadline for the whole is _get()'s, for all hops.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s * _CONNECT_PART),
            headers={
                "User-Agent": self._user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            # A body that is packed all the same is unpacked here, within limits and to its end.
            auto_decompress=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEAD_BYTES,
            trust_env=False,
            proxy=self._proxy.url if self._proxy else None,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._names.close()  # the session leaves it to who made it
        if self._proxy:
            await self._proxy.close()

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        """The body of a 200 answer, or why there is none, or that it is at another origin.

        At most five redirects are followed, ``redirects`` included, which led to the URL.
        """
        return await self._get(url, self._read_picture, redirects)

    async def robots(self, url: str) -> Answer:
        """The first MAX_ROBOTS_BYTES of a robots.txt, however it is tagged, wherever it is."""
        return await self._get(url, self._read_robots, leave=True)

    async def _get(
        self, url: str, read: _Read, redirects: int = 0, *, leave: bool = False
    ) -> Answer:
        """``leave``: redirects to other origins are followed as well."""
        hop = _Hop()
        _hop.set(hop)
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._follow(URL(url, encoded=True), hop, read, redirects, leave)
        except TimeoutError:
            detail = f"after {self._timeout_s:g} s"
            result = Failure(Outcome.TIMED_OUT, detail, silence=Silence.HOST)
        if hop.number and isinstance(result, Failure):
            return dataclasses.replace(result, redirected=True)
        return result

    async def reaches(self, url: str) -> bool:
        """Whether the host of a URL takes a connection, or refuses it, found by its name anew."""
        origin = URL(url)
        host, port = origin.raw_host or "", origin.port or 0
        _hop.set(_Hop(host))
        try:
            async with asyncio.timeout(_PROBE_S):
                version, address = await self._find(host)
                if self._proxy:
                    host, port = self._proxy.url.raw_host or "", self._proxy.url.port or 0
                    version, address = await self._find(host)
                endpoint = (version, socket.SOCK_STREAM, 0, "", (address, port))
                with self._guarded_socket(endpoint) as probe:
                    await asyncio.get_running_loop().sock_connect(probe, (address, port))
        except ConnectionRefusedError:
            return self._proxy is None
        except OSError as error:
            if is_machines(error):
                raise MachineError(error) from error
            return False
        return True

    async def _find(self, host: str) -> tuple[socket.AddressFamily, str]:
        """An address of a host, not from the cache."""
        if is_address(host):
            return socket.AF_INET6 if ":" in host else socket.AF_INET, host
        resolver = self._resolver()
        try:
            found, *_ = await resolver.resolve(host, family=socket.AF_UNSPEC)
        finally:
            await resolver.close()
        return socket.AddressFamily(found["family"]), found["host"]

    async def _follow(
        self, url: URL, hop: _Hop, read: _Read, redirects: int, leave: bool
    ) -> Answer:
        for hop.number in range(MAX_REDIRECTS + 1 - redirects):
            hop.host = url.raw_host or ""
            result = await self._hop(url, hop, read)
            if not isinstance(result, URL):
                return result
            count = redirects + hop.number + 1
            if not leave and count <= MAX_REDIRECTS and result.origin() != url.origin():
                return Redirect(str(result), count)
            url = result
        return Failure(Outcome.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}, last to {url}")

    async def _hop(self, url: URL, hop: _Hop, read: _Read) -> Body | Failure | URL:
        if url.port in BLOCKED_PORTS:
            return Failure(Outcome.BLOCKED_ADDRESS, f"port {url.port} is not one of the web's")
        try:
            login = {}
            if self._proxy:
                for address in await self._proxy.addresses(hop.host):
                    self._guard(address, hop)
                login = self._proxy.login(url.scheme)
            async with self._session.get(url, allow_redirects=False, **login) as answer:
                if self._proxy:
                    self._proxy.check_status(answer.status)
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    return _redirect(url, answer)
                if answer.status != 200:
                    return _status_failure(answer)
                return await read(url, answer)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, zlib.error) as error:
            if self._proxy:
                self._proxy.check_error(error)
            # The deadline's own error is no failure of the hop.
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise
            fault = hop.fault or _resolver_fault(error) or error
            if is_machines(fault):
                raise MachineError(fault) from error
            if hop.blocked is not None:
                return Failure(Outcome.BLOCKED_ADDRESS, f"{hop.host} is {hop.blocked}")
            return Failure(_outcome_of(error), error_detail(error), silence=_silence_of(error))

    async def _read_picture(self, url: URL, answer: aiohttp.ClientResponse) -> Body | Failure:
        opted_out = opt_out(answer.headers.getall("X-Robots-Tag", []), self._robot)
        if opted_out:
            return Failure(Outcome.OPTED_OUT, f"X-Robots-Tag: {opted_out}", 200)
        if _PLACEHOLDER_PATH.search(url.raw_path):
            return Failure(Outcome.PLACEHOLDER, f"redirected to {url}", 200)
        if (answer.content_length or 0) > self._max_bytes:
            return _too_many_bytes(f"{answer.content_length:,}, more", self._max_bytes)
        body = await _read_body(answer, self._max_bytes + 1, self._spool, wants_picture=True)
        if isinstance(body, Body) and body.num_bytes > self._max_bytes:
            body.close()
            return _too_many_bytes("more", self._max_bytes)
        return body

    async def _read_robots(self, _: URL, answer: aiohttp.ClientResponse) -> Body | Failure:
        return await _read_body(answer, MAX_ROBOTS_BYTES, self._spool)

    def _guard(self, address: str, hop: _Hop) -> None:
        if not is_public(address) and hop.host not in self._allow_hosts:
            hop.blocked = address
            raise BlockedAddress(f"{address} is not a public address")

    def _guarded_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for the very address that it will connect to, if that may be reached."""
        family, kind, protocol, _, endpoint = address
        if not self._proxy:
            self._guard(endpoint[0], _hop.get())
        try:
            guarded = _Socket(family, kind, protocol)
        except OSError as error:
            _hop.get().fault = error if is_machines(error) else None
            raise
        guarded.setblocking(False)
        return guarded


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable; of an IPv4 one inside an IPv6 one, that."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        if any(ip in network for network in _NOT_GLOBAL):
            return False
        if any(ip in network for network in _ENDS_IN_IPV4):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
    return bool(ip.is_global and not ip.is_multicast)


# Site-local addresses and NAT64's local prefix, which is_global of some Pythons takes for global.
_NOT_GLOBAL = tuple(map(ipaddress.ip_network, ("fec0::/10", "64:ff9b:1::/48")))
# NAT64, and the IPv4-compatible addresses of old.
_ENDS_IN_IPV4 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96")))


async def _read_body(
    answer: aiohttp.ClientResponse,
    num_bytes: int,
    spool: str | None,
    *,
    wants_picture: bool = False,
) -> Body | Failure:
    """The unpacked body, or its first ``num_bytes``.

    With ``wants_picture`` a long body that is no picture is not read to its end.
    """
    file = tempfile.SpooledTemporaryFile(_BODY_IN_MEMORY_BYTES, dir=spool)  # noqa: SIM115  closed by Body
    digest, count, packed = hashlib.sha256(), 0, None
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    try:
        while count < num_bytes and (chunk := await answer.content.read(_READ_BYTES)):
            if packed and packed.unused_data:  # of what follows the end nothing counts
                break
            if coding:
                packed = packed or _unpacker(coding, chunk)
            if packed:
                chunk = packed.decompress(chunk, num_bytes - count)
            chunk = chunk[: num_bytes - count]
            count += len(chunk)
            digest.update(chunk)
            with _to_disk():
                file.write(chunk)
                if wants_picture and count > _PAGE_BYTES:
                    wants_picture = False  # known from here on
                    file.seek(0)
                    start = file.read(1024)
                    if not may_be_picture(start):
                        file.close()
                        detail = f"more than {_PAGE_BYTES:,} bytes, begins with {start[:12]!r}"
                        return Failure(Outcome.NOT_AN_IMAGE, detail, 200)
                    file.seek(0, io.SEEK_END)
    except BaseException:
        file.close()
        raise
    if packed and not packed.eof and count < num_bytes:
        file.close()
        return Failure(Outcome.CONNECTION_LOST, f"the body's {coding} data ends too early")
    return Body(file, count, digest.hexdigest())  # type: ignore[arg-type]


@contextlib.contextmanager
def _to_disk() -> Iterator[None]:
    """Whatever goes wrong with a file is this machine's."""
    try:
        yield
    except OSError as error:
        raise MachineError(error) from error


def _unpacker(coding: str, start: bytes) -> "zlib._Decompress | None":
    """What unpacks a body that begins so; an unknown coding's bytes are taken as they are."""
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if coding == "deflate":  # with a zlib header or, as some servers understand it, without
        return zlib.decompressobj(zlib.MAX_WBITS if start[0] & 15 == 8 else -zlib.MAX_WBITS)
    return None


def _redirect(url: URL, answer: aiohttp.ClientResponse) -> URL | Failure:
    raw = answer.headers["Location"].encode(errors="surrogateescape")
    location = raw.decode(errors="percent")
    try:
        return request_url(location, str(url))
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
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # a date of HTTP is UTC, whether it says so or not
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp() - (time.time() if now is None else now), 0.0)
    return None


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, aiohttp.ClientConnectorDNSError | NameNotFound):
        return Outcome.DNS_FAILED
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Outcome.TLS_FAILED
    if isinstance(
        error,
        aiohttp.ClientConnectorError
        | aiohttp.ConnectionTimeoutError
        | aiohttp.ClientHttpProxyError,
    ):
        return Outcome.CONNECT_FAILED
    if isinstance(error, aiohttp.InvalidURL):
        return Outcome.UNSUPPORTED_URL
    # Broken framing may come once the head is taken; an early end is of a connection that broke.
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError | zlib.error):
        return Outcome.BAD_RESPONSE
    return Outcome.CONNECTION_LOST


def _resolver_status(error: Exception) -> int | None:
    """c-ares' own number for why a name was not found."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | NameNotFound):
        cause = error.os_error.__cause__
        if isinstance(cause, aiodns.error.DNSError):
            return int(cause.args[0])
    return None


def _resolver_fault(error: Exception) -> OSError | None:
    """This machine's error behind one of c-ares, which does not tell of it."""
    status = _resolver_status(error)
    if status == aiodns.error.ARES_ENOMEM:
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if status == aiodns.error.ARES_ECONNREFUSED:
        try:
            socket.socket(type=socket.SOCK_DGRAM).close()
        except OSError as fault:
            return fault
    return None


def _silence_of(error: Exception) -> Silence | None:
    if isinstance(error, aiohttp.ClientConnectorDNSError | NameNotFound):
        return Silence.NAME_SERVER if _resolver_status(error) in _NAME_SERVER_SILENT else None
    if _outcome_of(error) is not Outcome.CONNECT_FAILED:
        return None
    if isinstance(error, aiohttp.ClientHttpProxyError):  # it answered: the network is there
        return None
    # All other errors may be this machine's own; of several addresses' the number is not told.
    refused = isinstance(error, OSError) and error.errno == errno.ECONNREFUSED
    return None if refused else Silence.HOST
