"""What can become of a line of the list: one word each."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Outcome(StrEnum):
    """One word for each line of the list, and a sentence that explains it."""

    sentence: str

    def __new__(cls, word: str, sentence: str = "") -> Self:
        """A member; looking one up takes the word alone."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.sentence = sentence
        return member

    OK = "ok", "The picture is in the dataset."

    MALFORMED_LINE = "malformed_line", "The line is not an image id, a tab and a URL."
    UNSUPPORTED_URL = (
        "unsupported_url",
        "The URL, or one it redirects to, is not a valid http or https address.",
    )
    DUPLICATE_URL = (
        "duplicate_url",
        "The list gives the same URL to another id or line, which is kept instead.",
    )

    DNS_FAILED = "dns_failed", "The host's name has no address."
    CONNECT_FAILED = "connect_failed", "The host refused the connection or could not be reached."
    TLS_FAILED = "tls_failed", "The host's certificate or TLS handshake was not acceptable."
    TIMED_OUT = "timed_out", "The whole request took longer than the limit."
    CONNECTION_LOST = (
        "connection_lost",
        "The connection broke, or the answer was not HTTP, before the body was complete.",
    )
    TOO_MANY_REDIRECTS = "too_many_redirects", "More redirects than are followed."
    BLOCKED_ADDRESS = (
        "blocked_address",
        "The host, or one it redirects to, has an address that is not public.",
    )
    ROBOTS_DENIED = (
        "robots_denied",
        "The robots.txt of the host, or of one it redirects to, forbids the URL.",
    )
    RATE_LIMITED = (
        "rate_limited",
        "The host went on answering 429 or 503, or asked for a longer pause than is granted.",
    )
    HOST_GIVEN_UP = (
        "host_given_up",
        "The host failed to resolve or connect too often in a row; this URL was not tried.",
    )
    HTTP_CLIENT_ERROR = (
        "http_client_error",
        "The host answered with a status that is neither 200, a redirect nor a server error.",
    )
    HTTP_SERVER_ERROR = "http_server_error", "The host went on answering with a 5xx status."
    TOO_MANY_BYTES = "too_many_bytes", "The body is larger than --max-bytes."
    OPTED_OUT = "opted_out", "The answer's X-Robots-Tag asks not to use the picture."

    PLACEHOLDER = (
        "placeholder",
        "A 'photo no longer available' picture: a known one, or one of ten unrelated hosts.",
    )
    NOT_AN_IMAGE = (
        "not_an_image",
        "The bytes are not those of a picture, whatever their name or type says.",
    )
    UNSUPPORTED_FORMAT = "unsupported_format", "A picture in a format that is not read."
    TOO_MANY_PIXELS = "too_many_pixels", "The header announces more pixels than are decoded."
    CORRUPT = "corrupt", "The picture is cut off or broken."
    TOO_SMALL = "too_small", "No crop of the wanted size fits inside the margins."
    DECODER_DIED = "decoder_died", "The picture killed the process that decoded it, twice."

    DUPLICATE_IMAGE = (
        "duplicate_image",
        "The same picture, in these bytes or others, came under a URL that goes before this one.",
    )


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
    """The image id and URL of the better copy, with a space between."""

    @property
    def sort_key(self) -> tuple[str, str, bytes, str]:
        """The order of the tables."""
        return self.image_id or "", self.url or "", self.line or b"", self.outcome

    def as_duplicate_image(self, of: str) -> "Row":
        """The row of a good picture whose content another line brings."""
        return dataclasses.replace(self, outcome=Outcome.DUPLICATE_IMAGE, duplicate_of=of)


def describe_totals(totals: Mapping[str, int]) -> str:
    """'ok 310, http_client_error 96': the most frequent first."""
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{outcome} {count:,}" for outcome, count in ordered) or "no lines"
