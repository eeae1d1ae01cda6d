"""What comes of asking for a picture: its bytes, a failure, or another place to ask."""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO

from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry

# A reason or an address of a host's may be as long as a head, and the rows of a shard are kept.
_DETAIL_LENGTH = 1_000


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


class Silence(StrEnum):
    """Who did not answer at all where a host, or the crawler's own network, is gone."""

    NAME_SERVER = "name server"
    HOST = "host"


@dataclass(frozen=True)
class Failure:
    """Why a GET gave no body."""

    outcome: Outcome
    detail: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    """What the host asked for with 429 or 503."""
    redirected: bool = False
    """Met at another URL, to which the host of the first one had redirected."""
    silence: Silence | None = None
    """Nothing came back, as if there were no network."""
    doubt: Awaitable[bool] | None = field(default=None, compare=False)
    """Tells some seconds later whether an outage takes the failure back."""

    def __post_init__(self) -> None:
        # A host's bytes that are no text would be none in the tables either.
        if self.detail is not None:
            text = self.detail.encode(errors="backslashreplace").decode()
            object.__setattr__(self, "detail", text[:_DETAIL_LENGTH])


@dataclass(frozen=True)
class Redirect:
    """To another origin, after so many redirects with this one."""

    url: str
    count: int


def of_the_list(body: Body, entry: Entry) -> Body | Failure:
    """The body, if the list's checksum is its own or there is none; else it is closed."""
    kind, _, wanted = entry.checksum.partition(":")
    found = body.sha256
    if kind == "md5":
        found = hashlib.md5(body.read(), usedforsecurity=False).hexdigest()
    if not kind or found == wanted:
        return body
    body.close()
    detail = f"{kind} {found}, not {wanted}"
    return Failure(Outcome.CHANGED_CONTENT, detail, 200)


Answer = Body | Failure | Redirect

Fetch = Callable[[Entry], AbstractAsyncContextManager[Body | Failure]]
"""What a source does: ``async with fetch(entry) as answer``. The entry is in flight inside."""
