"""An HTTP response, as a browser takes it: its head, and where its body ends (RFC 9112)."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

MAX_HEAD_BYTES = 256 << 10
"""Of the status line and all headers together, as in Chrome, and of those of interim answers; of
trailers as well."""
HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(r"HTTP/(\d\.\d)[ \t]+([1-9]\d\d)(?:[ \t]+(.*))?", re.ASCII)
_FOLD = re.compile(r"\r?\n[ \t]+")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
_MAX_LINE_BYTES = 16 << 10
_BODILESS = frozenset({204, 304})


class BadResponse(Exception):
    """What came is no HTTP."""


@dataclass(frozen=True)
class Head:
    """The status line and the headers."""

    version: str
    """1.0 or 1.1, mostly."""
    status: int
    reason: str
    headers: dict[str, list[str]]
    """By names in lower case; bytes that are no UTF-8 are surrogates."""

    def first(self, name: str) -> str:
        """The header of that name that comes first, or nothing."""
        return self.headers.get(name, [""])[0]

    def tokens(self, name: str) -> list[str]:
        """The parts of a header that is a list, in lower case."""
        if name not in self.headers:  # as most are not
            return []
        parts = ",".join(self.headers[name]).lower().split(",")
        return [part.strip() for part in parts if part.strip()]

    @property
    def is_kept_alive(self) -> bool:
        """Whether the connection may be used again, once the body has ended."""
        if "transfer-encoding" in self.headers and "content-length" in self.headers:
            return False  # where its body ends is told twice: a proxy may have believed the other
        says = self.tokens("connection")
        return "close" not in says and (self.version >= "1.1" or "keep-alive" in says)

    @property
    def length(self) -> int | None:
        """Of the body, as it is announced. Raises BadResponse where that is no number, or two."""
        found = set(self.tokens("content-length"))
        if not found:
            return None
        text = found.pop()
        if found or not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise BadResponse(f"Content-Length: {', '.join(self.headers['content-length'])[:100]}")
        return int(text)


def parse_head(data: bytes) -> Head:
    """A head with its last, empty line. Raises BadResponse."""
    first, _, rest = data.decode("utf-8", "surrogateescape").partition("\n")
    found = _STATUS.fullmatch(first.rstrip("\r"))
    if not found:
        raise BadResponse(f"it begins with {data[:40]!r}")
    headers: dict[str, list[str]] = {}
    for line in _FOLD.sub(" ", rest).split("\n")[:-2]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadResponse(f"a header without a colon: {line[:40]!r}")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return Head(found[1], int(found[2]), (found[3] or "").strip(), headers)


class Framing(ABC):
    """Finds the body in what a connection brings."""

    has_ended = False
    has_more = False
    """Something came behind the end."""
    ends_with_it = False
    """With the connection."""
    left = 0
    """Bytes to come, as far as is known."""

    @abstractmethod
    def take(self, data: memoryview) -> bytes | memoryview:
        """The part of the body in the next bytes of the connection. Raises BadResponse."""


def framing_of(head: Head) -> Framing:
    """How the body of a GET's answer ends. Raises BadResponse."""
    if head.status in _BODILESS:
        return ByLength(0)
    if "chunked" in head.tokens("transfer-encoding")[-1:]:
        return Chunked()
    length = head.length
    return ToTheEnd() if length is None else ByLength(length)


class ByLength(Framing):
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self.left, self.has_ended = length, not length

    def take(self, data: memoryview) -> memoryview:
        """As Framing has it."""
        self.has_more = len(data) > self.left
        part = data[: self.left]
        self.left -= len(part)
        self.has_ended = not self.left
        return part


class ToTheEnd(Framing):
    """A body that ends with the connection."""

    ends_with_it = True

    def take(self, data: memoryview) -> memoryview:
        """As Framing has it."""
        return data


class Chunked(Framing):
    """A body in chunks, each behind a line with its size; the last one is empty."""

    def __init__(self) -> None:
        self._line = b""
        self._is_behind_chunk = self._is_behind_last = False
        self._trailer_bytes = 0

    def take(self, data: memoryview) -> bytes:
        """As Framing has it."""
        parts: list[memoryview] = []
        position, raw = 0, data.tobytes()
        while position < len(raw) and not self.has_ended:
            if self.left:
                part = data[position : position + self.left]
                parts.append(part)
                self.left -= len(part)
                position += len(part)
                self._is_behind_chunk = not self.left
                continue
            end = raw.find(b"\n", position)
            if end < 0:
                self._line += raw[position:]
                end = len(raw)
            else:
                line, self._line = self._line + raw[position:end], b""
                self._take_line(line.removesuffix(b"\r"))
            if len(self._line) > _MAX_LINE_BYTES:
                raise BadResponse(f"a chunk begins with {self._line[:40]!r}")
            position = end + 1
        self.has_more = position < len(raw)
        return b"".join(parts)

    def _take_line(self, line: bytes) -> None:
        if self._is_behind_last:  # trailers, then an empty line
            self.has_ended = not line
            self._trailer_bytes += len(line) + 1
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise BadResponse(f"more than {MAX_HEAD_BYTES:,} bytes of trailers")
        elif self._is_behind_chunk:
            if line:
                raise BadResponse(f"a chunk ends with {line[:40]!r}")
            self._is_behind_chunk = False
        else:
            found = _SIZE.fullmatch(line)
            if not found:
                raise BadResponse(f"a chunk begins with {line[:40]!r}")
            self.left = int(found[1], 16)
            self._is_behind_last = not self.left
