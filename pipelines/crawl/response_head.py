"""The head of an HTTP response, as a browser takes it where aiohttp's parser is stricter."""

import re
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError

from pipelines.command.machine import MachineError, is_machines

MAX_HEAD_BYTES = 256 << 10
"""Of the status line and all headers together, as in Chrome."""
_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(
    rb"\nContent-Length:[ \t]*(\d+)(?:[ \t]*,[ \t]*\1)*[ \t]*\r?(?=\n)", re.IGNORECASE
)


def single_length(head: bytes) -> bytes:
    """The head with one Content-Length where it says the same one several times.

    RFC 9110, 8.6, allows this. Where the lengths differ, the head is given as it is.
    """
    if len(set(_LENGTH.findall(head))) != 1:
        return head
    status, _, headers = head.partition(b"\n")
    length = b"\nContent-Length: " + _LENGTH.findall(head)[0] + b"\r"
    return status + length + _LENGTH.sub(b"", b"\n" + headers)


class _Handler(ResponseHandler):
    """Gives the parser a head as a whole, with a single length."""

    _head: bytearray | None = None
    _requests = 0

    def set_response_params(self, **params: Any) -> None:
        self._head, self._payload = bytearray(), None
        self._requests += 1
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            super().data_received(data)
            return
        seen = max(len(self._head) - 2, 0)
        self._head += data
        end = _END.search(self._head, seen)
        # What begins otherwise is no response: the parser says so at once.
        if end or not b"HTTP/".startswith(self._head[:5]):
            self._pass_on(end.end() if end else 0)
        elif len(self._head) > MAX_HEAD_BYTES:
            self._head = None
            if self.transport is not None:
                self.transport.close()
            self.set_exception(BadHttpMessage(f"more than {MAX_HEAD_BYTES:,} bytes of headers"))

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head:
            self._pass_on(len(self._head))
        body = self._payload
        if is_machines(exc) and body is not None and not body.is_eof():
            # aiohttp would tell the body's reader of a broken connection alone.
            body.set_exception(MachineError(exc))
            self._payload = None
        super().connection_lost(exc)

    def set_exception(self, exc: Any, *cause: Any) -> None:
        is_unanswered = self._payload is None
        if isinstance(exc, HttpProcessingError) and is_unanswered and self._requests > 1:
            # The bytes may be left of an earlier answer. aiohttp asks again after this error.
            exc = aiohttp.ServerDisconnectedError()
        super().set_exception(exc, *cause)
        # aiohttp leaves a body's reader waiting where the parser refuses a later part of it.
        body = self._payload
        if body is None or body.is_eof() or body.exception() is not None:
            return
        if isinstance(exc, HttpProcessingError):
            body.set_exception(exc)

    def _pass_on(self, end: int) -> None:
        received, self._head = bytes(self._head or b""), None
        super().data_received(single_length(received[:end]) + received[end:])


class Connector(aiohttp.TCPConnector):
    """aiohttp's own, whose connections take such heads.

    No more than ``most`` connections are open, those kept alive included; requests do not wait.
    """

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = self._left = most
        # aiohttp has no public place for it.
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]

    async def _create_connection(self, *arguments: Any) -> ResponseHandler:
        self._left -= 1
        if self._left < 0:  # at most so many are open, but nobody has counted those that ended
            self._make_room()
        return await super()._create_connection(*arguments)

    def _make_room(self) -> None:
        """Closes what is kept alive longest, until a quarter is free."""
        in_use = len(self._acquired) + sum(map(len, self._conns.values()))
        for key in list(self._conns):
            if in_use <= self._most * 3 // 4:
                break
            for protocol, _ in self._conns.pop(key):
                protocol.abort()
                in_use -= 1
        self._left = self._most - in_use
