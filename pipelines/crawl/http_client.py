"""One GET, with its limits: a response, or the outcome that stands for the failure."""

import asyncio
import contextlib
import dataclasses
import hashlib
import ipaddress
import re
import ssl
import tempfile
import time
import zlib
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from yarl import URL

from pipelines.command.machine import MachineError, is_machines
from pipelines.crawl.answer import Answer, Body, Failure, Redirect, Silence
from pipelines.crawl.connection import Disconnected, Sink
from pipelines.crawl.connections import BlockedAddress, ConnectFailed, Connections
from pipelines.crawl.names import CaresResolver, NameNotFound, Names, Resolver
from pipelines.crawl.ports import BLOCKED_PORTS
from pipelines.crawl.proxy import Proxy, basic
from pipelines.crawl.response import BadResponse, Head
from pipelines.crawl.robots import MAX_ROBOTS_BYTES, opt_out, product_token
from pipelines.dataset.outcome import Outcome, error_detail
from pipelines.lists.url_list import request_url
from pipelines.pictures.formats import may_be_picture

MAX_REDIRECTS = 5
# Larger bodies go to disk, so that memory does not follow the number of requests in flight.
_BODY_IN_MEMORY_BYTES = 256 << 10
# A packed body is unpacked in such parts: each may become a thousand times as long.
_PACKED_BYTES = 64 << 10
# Read so much before judging: most HTML pages end within that, so the connection can be used
# again.
_PAGE_BYTES = 64 << 10
_START_BYTES = 1024
# Of the time for the whole request: a connection that takes longer will not come any more.
_CONNECT_PART = 1 / 3
# Of the time for connecting: with three attempts, each twice as long as the one before, a silent
# name server is told from a silent host.
_DNS_PART = 1 / 5
_PROBE_S = 5.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PLACEHOLDER_PATH = re.compile(r"/photo_unavailable[^/]*$")

_Read = Callable[[URL, Head], "_BodySink | Failure"]
# What a request may fail with that is not this machine's; the first say it in words.
_IN_WORDS = (BadResponse, BlockedAddress, ConnectFailed, Disconnected, NameNotFound)
_FAILURES = (*_IN_WORDS, OSError, ValueError, zlib.error)


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
        resolver: Callable[[], Resolver] | None = None,
    ) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._robot = product_token(user_agent)
        self._allow_hosts = allow_hosts
        self._spool, self._most_connections = str(spool) if spool else None, connections
        self._connect_s = connect_s = timeout_s * _CONNECT_PART
        # With options of its own, each has its own cache of names.
        self._resolver = resolver or partial(CaresResolver, timeout=connect_s * _DNS_PART, tries=3)
        self._proxy = Proxy(proxy) if proxy else None
        self._headers = (
            f"User-Agent: {user_agent}\r\nAccept: image/*,*/*;q=0.5\r\n"
            # A body that is packed all the same is unpacked here, within limits and to its end.
            "Accept-Encoding: identity\r\n"
        )

    async def __aenter__(self) -> Self:
        self._names = Names(self._resolver, self._connect_s)
        self._connections = Connections(
            self._names,
            self._may_reach,
            timeout_s=self._connect_s,
            most=self._most_connections,
            proxy=self._proxy,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()
        await self._names.close()

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
        hops: list[URL] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._follow(URL(url, encoded=True), hops, read, redirects, leave)
        except TimeoutError:
            detail = f"after {self._timeout_s:g} s"
            result = Failure(Outcome.TIMED_OUT, detail, silence=Silence.HOST)
        if len(hops) > 1 and isinstance(result, Failure):
            return dataclasses.replace(result, redirected=True)
        return result

    async def reaches(self, url: str) -> bool:
        """Whether the host of a URL takes a connection, or refuses it, found by its name anew."""
        origin = URL(url)
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._connections.reach(origin.raw_host or "", origin.port or 0)
        except ConnectionRefusedError:
            return self._proxy is None
        except OSError as error:
            if is_machines(error):
                raise MachineError(error) from error
            return False
        return True

    async def _follow(
        self, url: URL, hops: list[URL], read: _Read, redirects: int, leave: bool
    ) -> Answer:
        """``hops`` gets the URLs that are requested."""
        for count in range(redirects + 1, MAX_REDIRECTS + 2):
            hops.append(url)
            result = await self._hop(url, read)
            if not isinstance(result, URL):
                return result
            if not leave and count <= MAX_REDIRECTS and result.origin() != url.origin():
                return Redirect(str(result), count)
            url = result
        return Failure(Outcome.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}, last to {url}")

    async def _hop(self, url: URL, read: _Read) -> Body | Failure | URL:
        if url.port in BLOCKED_PORTS:
            return Failure(Outcome.BLOCKED_ADDRESS, f"port {url.port} is not one of the web's")
        headers = self._headers
        if url.user is not None:
            headers += f"Authorization: {basic(url.user, url.password or '')}\r\n"
        try:
            answer: Body | Failure | URL = await self._connections.ask(
                url, headers, partial(self._receive, url, read)
            )
        except _FAILURES as error:
            # The deadline's own error is no failure of the hop.
            if isinstance(error, TimeoutError) and error.errno is None:
                raise
            if fault := _fault(error):
                raise MachineError(fault) from error
            detail = str(error)[:200] if isinstance(error, _IN_WORDS) else error_detail(error)
            return Failure(_outcome_of(error), detail, silence=_silence_of(error))
        return answer

    def _receive(self, url: URL, read: _Read, head: Head) -> "_BodySink | Failure | URL":
        if self._proxy:
            self._proxy.check_status(head.status)
        if head.status in _REDIRECTS and "location" in head.headers:
            return _redirect(url, head)
        if head.status != 200:
            return _status_failure(head)
        return read(url, head)

    def _read_picture(self, url: URL, head: Head) -> "_BodySink | Failure":
        opted_out = opt_out(head.headers.get("x-robots-tag", []), self._robot)
        if opted_out:
            return Failure(Outcome.OPTED_OUT, f"X-Robots-Tag: {opted_out}", 200)
        if _PLACEHOLDER_PATH.search(url.raw_path):
            return Failure(Outcome.PLACEHOLDER, f"redirected to {url}", 200)
        if (head.length or 0) > self._max_bytes:
            return _too_many_bytes(f"{head.length:,}, more", self._max_bytes)
        return _BodySink(head, self._spool, self._max_bytes, wants_picture=True)

    def _read_robots(self, _: URL, head: Head) -> "_BodySink":
        return _BodySink(head, self._spool, MAX_ROBOTS_BYTES)

    def _may_reach(self, host: str, address: str) -> bool:
        return is_public(address) or host in self._allow_hosts


class _BodySink(Sink):
    """The unpacked body, or of one that is longer its first ``num_bytes``.

    With ``wants_picture`` a longer body is a failure, and one that is long and no picture is not
    read to its end.
    """

    def __init__(
        self, head: Head, spool: str | None, num_bytes: int, *, wants_picture: bool = False
    ) -> None:
        self._num_bytes, self._wants_picture = num_bytes, wants_picture
        self._is_judged = not wants_picture
        self._coding = head.first("content-encoding").lower()
        self._packed: zlib._Decompress | None = None
        self._digest, self._count, self._start = hashlib.sha256(), 0, b""
        self._file = tempfile.SpooledTemporaryFile(_BODY_IN_MEMORY_BYTES, dir=spool)  # noqa: SIM115  closed by Body

    def take(self, data: bytes | memoryview) -> Body | Failure | None:
        """As Sink has it."""
        if not self._coding:
            return self._add(data)
        for start in range(0, len(data), _PACKED_BYTES):
            part = data[start : start + _PACKED_BYTES]
            if not self._count and self._packed is None:
                self._packed = _unpacker(self._coding, part)
            if self._packed:
                # One more than are wanted, to know of them.
                part = self._packed.decompress(part, self._num_bytes + 1 - self._count)
            if answer := self._add(part):
                return answer
            if self._packed and self._packed.unused_data:  # of what follows the end nothing counts
                return self.end()
        return None

    def _add(self, data: bytes | memoryview) -> Body | Failure | None:
        left = self._num_bytes - self._count
        if len(data) > left:
            if self._wants_picture:
                self.close()
                return _too_many_bytes("more", self._num_bytes)
            data = data[:left]
        self._count += len(data)
        self._digest.update(data)
        if len(self._start) < _START_BYTES:
            self._start += bytes(data[: _START_BYTES - len(self._start)])
        try:
            self._file.write(data)
        except OSError as error:  # whatever goes wrong with a file is this machine's
            raise MachineError(error) from error
        if not self._is_judged and self._count > _PAGE_BYTES:
            self._is_judged = True
            if not may_be_picture(self._start):
                self.close()
                detail = f"more than {_PAGE_BYTES:,} bytes, begins with {self._start[:12]!r}"
                return Failure(Outcome.NOT_AN_IMAGE, detail, 200)
        return self._body() if self._count == self._num_bytes and not self._wants_picture else None

    def end(self) -> Body | Failure:
        """As Sink has it."""
        if self._packed and not self._packed.eof:
            self.close()
            return Failure(
                Outcome.CONNECTION_LOST, f"the body's {self._coding} data ends too early"
            )
        return self._body()

    def _body(self) -> Body:
        return Body(self._file, self._count, self._digest.hexdigest())  # type: ignore[arg-type]

    def close(self) -> None:
        """As Sink has it."""
        self._file.close()


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


def _unpacker(coding: str, start: bytes | memoryview) -> "zlib._Decompress | None":
    """What unpacks a body that begins so; an unknown coding's bytes are taken as they are."""
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if coding == "deflate":  # with a zlib header or, as some servers understand it, without
        return zlib.decompressobj(zlib.MAX_WBITS if start[0] & 15 == 8 else -zlib.MAX_WBITS)
    return None


def _redirect(url: URL, head: Head) -> URL | Failure:
    raw = head.first("location").encode(errors="surrogateescape")
    location = raw.decode(errors="percent")
    try:
        return request_url(location, str(url))
    except ValueError as error:
        detail = f"redirected to {location[:200]!r}: {error}"
        return Failure(Outcome.UNSUPPORTED_URL, detail, head.status)


def _too_many_bytes(found: str, max_bytes: int) -> Failure:
    return Failure(Outcome.TOO_MANY_BYTES, f"{found} than {max_bytes:,}", 200)


def _status_failure(head: Head) -> Failure:
    status = head.status
    if status in (429, 503):
        retry_after_s = parse_retry_after(head.first("retry-after"))
        return Failure(Outcome.RATE_LIMITED, head.reason, status, retry_after_s)
    outcome = Outcome.HTTP_SERVER_ERROR if status >= 500 else Outcome.HTTP_CLIENT_ERROR
    return Failure(outcome, head.reason, status)


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


def _fault(error: Exception) -> OSError | None:
    """This machine's error, if that is what a request failed with."""
    fault = error.fault if isinstance(error, NameNotFound) else error
    return fault if is_machines(fault) else None


def _outcome_of(error: Exception) -> Outcome:
    match error:
        case NameNotFound():
            return Outcome.DNS_FAILED
        case BlockedAddress():
            return Outcome.BLOCKED_ADDRESS
        case ssl.SSLError():
            return Outcome.TLS_FAILED
        case ConnectFailed():
            return Outcome.CONNECT_FAILED
        # Broken framing may come once the head is taken; an early end is of a connection that
        # broke.
        case BadResponse() | zlib.error():
            return Outcome.BAD_RESPONSE
        case ValueError():  # a host that is neither an address nor a name
            return Outcome.UNSUPPORTED_URL
    return Outcome.CONNECTION_LOST


def _silence_of(error: Exception) -> Silence | None:
    if isinstance(error, NameNotFound) and error.is_silent:
        return Silence.NAME_SERVER
    if isinstance(error, ConnectFailed) and not error.is_refused:
        return Silence.HOST
    return None
