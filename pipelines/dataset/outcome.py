"""What can become of a line of the list: one word each."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from functools import partial
from typing import Any, NamedTuple, Self

_FLAT = re.compile(r"(\d+) of \d+ crops are flat")


class Of(Enum):
    """What an outcome tells of."""

    LINE = auto()
    NETWORK = auto()
    PICTURE = auto()
    CONTENT = auto()


class _Meaning(NamedTuple):
    word: str
    sentence: str
    of: Of
    tries: int = 1
    host_absent: bool = False
    asked: bool = True


_line, _network, _picture, _content = (partial(_Meaning, of=of) for of in Of)


class Outcome(StrEnum):
    """One word for each line of the list, a sentence that explains it, and what follows from it."""

    of: Of
    sentence: str
    tries: int
    """Requests until it is believed."""
    host_absent: bool
    """Nobody answered. A host that gives nothing else is given up."""
    asked: bool
    """False: the URL alone decided it, before a request."""

    def __new__(cls, word: str, *meaning: Any) -> Self:
        """A member; looking one up takes the word alone."""
        member = str.__new__(cls, word)
        member._value_ = word
        vars(member).update(_Meaning(word, *meaning)._asdict())
        return member

    OK = _picture("ok", "The picture is in the dataset.")

    MALFORMED_LINE = _line(
        "malformed_line", "The line, or the table's row, is not an image id and a URL."
    )
    UNSUPPORTED_URL = _line(
        "unsupported_url",
        "The URL, or one it redirects to, is not a valid http or https address.",
        asked=False,
    )
    DUPLICATE_URL = _line(
        "duplicate_url", "The list gives the same URL to another id or line, which is kept instead."
    )

    DNS_FAILED = _network("dns_failed", "The host's name has no address.", host_absent=True)
    CONNECT_FAILED = _network(
        "connect_failed",
        "The host refused the connection or could not be reached.",
        host_absent=True,
    )
    TLS_FAILED = _network("tls_failed", "The host's certificate or TLS handshake was refused.")
    TIMED_OUT = _network(
        "timed_out", "The whole request took longer than the limit.", host_absent=True
    )
    CONNECTION_LOST = _network(
        "connection_lost",
        "The connection broke before the body was complete.",
        tries=3,
    )
    BAD_RESPONSE = _network(
        "bad_response", "The answer was not HTTP, or not unpacked as its headers say."
    )
    TOO_MANY_REDIRECTS = _network("too_many_redirects", "More redirects than are followed.")
    BLOCKED_ADDRESS = _network(
        "blocked_address",
        "The host, or one it redirects to, has an address that is not public, or the port of "
        "another protocol.",
        asked=False,
    )
    ROBOTS_DENIED = _network(
        "robots_denied", "The robots.txt of the host, or of one it redirects to, forbids the URL."
    )
    RATE_LIMITED = _network(
        "rate_limited",
        "The host went on answering 429 or 503, or asked for a longer pause than is granted.",
        tries=5,
    )
    HOST_GIVEN_UP = _network(
        "host_given_up",
        "The host failed to resolve or connect too often in a row; this URL was not tried.",
    )
    HTTP_CLIENT_ERROR = _network(
        "http_client_error",
        "The host answered with a status that is neither 200, a redirect nor a server error.",
    )
    HTTP_SERVER_ERROR = _network(
        "http_server_error", "The host went on answering with a 5xx status.", tries=3
    )
    TOO_MANY_BYTES = _network("too_many_bytes", "The body is larger than --max-bytes.")
    OPTED_OUT = _network("opted_out", "The answer's X-Robots-Tag asks not to use the picture.")
    CHANGED_CONTENT = _network(
        "changed_content", "What came is not what the list has a checksum of."
    )

    PLACEHOLDER = _picture(
        "placeholder",
        "A 'photo no longer available' picture: a known one, or one of ten unrelated hosts.",
    )
    NOT_AN_IMAGE = _picture(
        "not_an_image", "The bytes are not those of a picture, whatever their name or type says."
    )
    UNSUPPORTED_FORMAT = _picture("unsupported_format", "A picture in a format that is not read.")
    TOO_MANY_PIXELS = _picture(
        "too_many_pixels", "The header announces more pixels than are decoded."
    )
    CORRUPT = _picture("corrupt", "The picture is cut off or broken.")
    TOO_SMALL = _picture("too_small", "No crop of the wanted size fits inside the margins.")
    TOO_FLAT = _picture("too_flat", "No crop has the detail of --min-detail.")
    DECODER_DIED = _picture(
        "decoder_died", "The picture killed the process that decoded it, twice."
    )

    DUPLICATE_IMAGE = _content(
        "duplicate_image",
        "The same picture, in these bytes or others, came under a URL that goes before this one.",
    )


RETRYABLE = tuple(outcome for outcome in Outcome if outcome.of is Of.NETWORK)
"""What another day, or another limit, may change: no picture came."""


def sentence_of(word: str) -> str:
    """What an outcome means. Another version's dataset may have words that this one has not."""
    try:
        return Outcome(word).sentence
    except ValueError:
        return "Not known to this version."


def error_detail(error: Exception) -> str:
    """An error as the detail of an outcome: 'ValueError: …', of at most 200 characters."""
    return f"{type(error).__name__}: {error}"[:200]


def flat_crops(left_out: int, every: int) -> str:
    """The detail of a picture of which --min-detail left crops out."""
    return f"{left_out} of {every} crops are flat"


def count_flat_crops(detail: str) -> int:
    """How many crops of a picture were left out, by its detail."""
    match = _FLAT.fullmatch(detail)
    return int(match[1]) if match else 0


@dataclass(frozen=True)
class Row:
    """What became of one selected line."""

    outcome: Outcome
    image_id: str | None = None
    url: str | None = None
    line: bytes | None = None
    """The raw line where it is malformed."""
    http_status: int | None = None
    detail: str | None = None
    sha256: str | None = None
    num_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    duplicate_of: str | None = None
    """The name of the better copy."""

    @property
    def name(self) -> str:
        """How another row's duplicate_of names this one."""
        return picture_name(self.image_id, self.url)

    @property
    def sort_key(self) -> tuple[str, str, bytes, str]:
        """The order of the tables."""
        return self.image_id or "", self.url or "", self.line or b"", self.outcome

    def as_duplicate_image(self, of: str) -> "Row":
        """The row of a good picture whose content another line brings."""
        return dataclasses.replace(self, outcome=Outcome.DUPLICATE_IMAGE, duplicate_of=of)


def picture_name(image_id: str | None, url: str | None) -> str:
    """Image id and URL with a space between."""
    return f"{image_id} {url}"


def most_frequent(totals: Mapping[str, int]) -> list[tuple[str, int]]:
    """Outcomes with their counts: the most frequent first, equally frequent ones by name."""
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def describe_totals(totals: Mapping[str, int]) -> str:
    """'ok 310, http_client_error 96': the most frequent first."""
    words = (f"{outcome} {count:,}" for outcome, count in most_frequent(totals))
    return ", ".join(words) or "no lines"
