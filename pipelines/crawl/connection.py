"""A connection to a host, or to a proxy: GET after GET, one at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pipelines.command.machine import MachineError, is_machines
from pipelines.crawl.response import (
    HEAD_END,
    MAX_HEAD_BYTES,
    BadResponse,
    ByLength,
    Framing,
    Head,
    framing_of,
    parse_head,
)

_START = b"HTTP/"
_SWITCHES_PROTOCOL = 101
# Of a body that nobody wants, so that the connection can be used again: as long as most error
# pages.
_UNWANTED_BYTES = 64 << 10


class Disconnected(Exception):
    """The connection ended before the answer did."""


class Sink(ABC):
    """Takes a body as it comes. What it raises is raised for the request."""

    @abstractmethod
    def take(self, data: bytes | memoryview) -> Any:
        """Takes the next part; gives the answer where the rest is not wanted, else None."""

    @abstractmethod
    def end(self) -> Any:
        """The answer, where the body has ended."""

    @abstractmethod
    def close(self) -> None:
        """Forgets what it took, where no answer will be asked for."""


Receive = Callable[[Head], Any]
"""What is made of a head: the answer, or a Sink that gives it."""


class Connection(asyncio.Protocol):
    """An open connection. The event loop hands what comes straight to the receiver.

    ``rest`` is called once a request is answered and the connection may be used again: at once, or
    later where an unwanted body is still to come (``is_free``). ``lost``: it has ended.
    """

    transport: asyncio.Transport
    key: object = None
    """Of what may be asked for over it; none yet."""

    def __init__(
        self, rest: Callable[["Connection"], None], lost: Callable[["Connection"], None]
    ) -> None:
        self._rest, self._lost = rest, lost
        self._answer: asyncio.Future[Any] | None = None
        self._receive: Receive = id
        self._opens_tunnel = False
        self._head, self._head_start = b"", 0
        self._framing: Framing | None = None
        self._sink: Sink | None = None
        self._can_stay = self._is_at_rest = True
        self._unwanted_bytes = 0
        self.has_answered = False
        """Whether the host has begun to answer the latest request."""

    @property
    def is_free(self) -> bool:
        """Whether it can be asked."""
        return self._is_at_rest and self._framing is None and not self.transport.is_closing()

    async def ask(self, request: bytes, receive: Receive, *, opens_tunnel: bool = False) -> Any:
        """Sends a request and gives the answer.

        Raises Disconnected, BadResponse, MachineError, and what the receiver raises. Broken off, it
        closes the connection. Behind the head of what ``opens_tunnel`` there is no body.
        """
        if self.transport.is_closing():  # as soon as it was there
            raise self._loss(None)
        self._receive, self._opens_tunnel = receive, opens_tunnel
        self._is_at_rest = self.has_answered = False
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await self._answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends it at once."""
        self._drop_sink()
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol has it."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol has it."""
        try:
            if self._framing is not None:
                self._take_body(memoryview(data))
            elif self._is_at_rest:
                self.close()  # nobody has asked
            else:
                self._take_head(data)
        except Exception as error:  # of the framing, or of the receiver
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio.Protocol has it."""
        self._lost(self)
        try:
            if self._sink and error is None and self._framing and self._framing.ends_with_it:
                self._finish(self._sink.end())
            else:
                self._fail(MachineError(error) if is_machines(error) else self._loss(error))
        except Exception as failure:  # of the receiver
            self._fail(failure)

    def _loss(self, error: Exception | None) -> Disconnected:
        part = "the body" if self._framing else "the head" if self._head else "any answer"
        loss = Disconnected(f"the connection ended before {part} did")
        loss.__cause__ = error
        return loss

    def _take_head(self, data: bytes) -> None:
        start, seen = self._head_start, max(len(self._head) - 2, 0)
        data = self._head + data
        while True:
            found = HEAD_END.search(data, max(start, seen))
            end = found.end() if found else len(data)
            if not _START.startswith(data[start : start + len(_START)]):
                raise BadResponse(f"it begins with {data[start : start + 40]!r}")
            if end > MAX_HEAD_BYTES:
                raise BadResponse(f"more than {MAX_HEAD_BYTES:,} bytes of headers")
            if not found:
                self._head, self._head_start = data, start
                return
            head = parse_head(data[start:end])
            if head.status >= 200 or head.status == _SWITCHES_PROTOCOL:
                break
            start = end  # the answer itself is to come
        self._head, self._head_start, self.has_answered = b"", 0, True
        self._framing = ByLength(0) if self._opens_tunnel else framing_of(head)
        self._can_stay = self._opens_tunnel or head.is_kept_alive
        self._unwanted_bytes = _UNWANTED_BYTES
        answer = self._receive(head)
        if isinstance(answer, Sink):
            self._sink = answer
        else:
            self._finish(answer)
        self._take_body(memoryview(data)[end:])

    def _take_body(self, data: memoryview) -> None:
        framing = self._framing
        assert framing is not None
        part = framing.take(data)
        if self._sink:
            answer = self._sink.take(part) if part else None
            if answer is None and framing.has_ended:
                answer = self._sink.end()
            if answer is None:
                return
            self._finish(answer)
        else:
            self._unwanted_bytes -= len(data)
        if framing.has_ended:
            self._framing = None
            self._can_stay &= not framing.has_more
        elif framing.ends_with_it or framing.left > self._unwanted_bytes:
            self._can_stay = False
        if not self._can_stay:
            self.close()
        elif not self._is_at_rest:
            self._is_at_rest = True
            self._rest(self)

    def _finish(self, answer: Any) -> None:
        self._sink = None
        # Held on to, it would hold a failure, whose traceback holds the connection.
        asked, self._answer = self._answer, None
        if asked and not asked.done():
            asked.set_result(answer)

    def _fail(self, error: Exception) -> None:
        asked, self._answer = self._answer, None
        if asked and not asked.done():
            asked.set_exception(error)
        self.close()

    def _drop_sink(self) -> None:
        if self._sink:
            self._sink.close()
            self._sink = None
