"""A line of the Fall 2011 list, bytes as they are -> an entry, or the reason why it is none."""

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address
from typing import NamedTuple
from urllib.parse import quote

from publicsuffixlist import PublicSuffixList
from yarl import URL

from pipelines.dataset.outcome import Outcome, Row

# The common line needs no clean-up: it is recognized by one match and requested as it stands.
_PLAIN = re.compile(
    # A last label that begins with a digit may be a number, and the host an address.
    rb"([!-~]+)\t(https?://((?:[a-z0-9-]{1,40}\.){0,5}[a-z-][a-z0-9-]{0,39})"
    rb"(?!.*/\.)/[A-Za-z0-9_.~!$()*+,;=:@%\[\]|/&'-]*(?:\?[A-Za-z0-9_.~!$()*+,;=:@%\[\]|/&?-]+)?)"
)
_IMAGE_ID = re.compile(r"\S+")
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROLS_AND_SPACE = "".join(map(chr, range(0x21)))
_DROPPED = str.maketrans("", "", "\t\r\n")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PATH_SAFE = _PRINTABLE.translate(str.maketrans("", "", '"#<>?^`{}'))
_QUERY_SAFE = _PRINTABLE.translate(str.maketrans("", "", "\"#<>'"))
_FLICKR = frozenset({"flickr.com", "staticflickr.com", "flic.kr"})


class Entry(NamedTuple):
    """A line that names a picture."""

    image_id: str
    url: str
    """As the list has it; bytes that are not UTF-8 are percent-encoded."""
    request_url: str
    """As a browser would request it: ASCII. Two entries with the same one are the same."""
    host: str
    """Lower case, ASCII."""
    original: str = ""
    """Where an earlier build's original lies, or how it failed; empty: it is on the web."""


Parser = Callable[[bytes], Entry]
"""A line -> an entry. Raises Rejected."""


class Rejected(ValueError):
    """A line that names no picture that could be fetched; ``row`` says why."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.detail)
        self.row = row


def parse_line(line: bytes) -> Entry:
    """Parses ``image id TAB url``, without its line end. Raises Rejected."""
    match = _PLAIN.fullmatch(line)
    if match and b"&amp;" not in line:
        image_id, url, host = match.groups()
        text = url.decode("ascii")
        return Entry(image_id.decode(errors="percent"), text, text, host.decode("ascii"))
    image_id_bytes, tab, url_bytes = line.partition(b"\t")
    image_id_text = image_id_bytes.decode(errors="percent")
    url_text = url_bytes.decode(errors="percent").strip(_CONTROLS_AND_SPACE)
    if not tab or not url_text or not _IMAGE_ID.fullmatch(image_id_text):
        raise Rejected(
            Row(Outcome.MALFORMED_LINE, line=line, detail="not an image id, a tab and a URL")
        )
    try:
        request = request_url(url_text)
    except ValueError as error:
        row = Row(Outcome.UNSUPPORTED_URL, image_id=image_id_text, url=url_text, detail=str(error))
        raise Rejected(row) from None
    return Entry(image_id_text, url_text, str(request), request.raw_host or "")


def parse_path_line(line: bytes) -> Entry:
    """Parses ``image id TAB path``, as list_file.picture_lines gives for a folder of pictures."""
    image_id, _, path = line.decode("ascii").partition("\t")
    return Entry(image_id, path, path, "")


def request_url(text: str) -> URL:
    """The URL that a browser would request for ``text``, without its fragment.

    Follows the WHATWG URL standard where list and browser meet: tabs and line ends inside are
    dropped, backslashes are slashes, any number of slashes may follow the scheme, what is not
    allowed in a path or query is percent-encoded and what is encoded stays so, dot segments are
    resolved, host names go through IDNA, 127.1 and 0x7f000001 are addresses. The list was
    scraped from HTML without decoding it, so ``&amp;`` is ``&``. Raises ValueError with the
    reason.
    """
    text = text.replace("&amp;", "&").translate(_DROPPED).strip(_CONTROLS_AND_SPACE)
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError("the URL has no scheme")
    name = scheme.group().rstrip(":").lower()
    if name not in ("http", "https"):
        raise ValueError(f"scheme {name!r} is not http or https")
    rest, mark, query = text[scheme.end() :].partition("#")[0].partition("?")
    authority, slash, path = rest.replace("\\", "/").lstrip("/").partition("/")
    origin = _origin(name, authority)
    path = quote(_without_dot_segments(slash + path) or "/", safe=_PATH_SAFE)
    return URL(f"{origin}{path}{mark}{quote(query, safe=_QUERY_SAFE)}", encoded=True)


def _origin(scheme: str, authority: str) -> str:
    try:
        url = URL(f"{scheme}://{authority}")
        host, port = url.raw_host, url.port
    except (ValueError, UnicodeError) as error:
        raise ValueError(f"not a valid URL: {error}") from None
    if not host:
        raise ValueError("the URL has no host")
    if len(host) > 253 or not (_HOST.fullmatch(host) or ":" in host):
        raise ValueError(f"{host!r} is not a host name")
    if not port:
        raise ValueError("port 0 cannot be reached")
    if (address := _ipv4(host)) not in (None, host):
        url = url.with_host(address)
    return str(url).rstrip("/")


def _ipv4(host: str) -> str | None:
    """The address that a host is by the WHATWG URL standard, None where it is a name.

    It is one if its last part is a number: decimal, octal (0177) or hexadecimal (0x7f). The last
    of less than four parts stands for all that are missing. Raises ValueError for a wrong one.
    """
    parts = host.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    try:
        numbers = [_number(part) for part in parts]
        *first, last = numbers
        if max(first, default=0) > 255 or last >= 256 ** (5 - len(numbers)):
            raise ValueError
        value = last + sum(number << 8 * (3 - place) for place, number in enumerate(first))
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv4 address") from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def _without_dot_segments(path: str) -> str:
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


@lru_cache(maxsize=1)
def _public_suffixes() -> Callable[[str], str | None]:
    suffixes: Callable[[str], str | None] = PublicSuffixList().privatesuffix
    return suffixes


@lru_cache(maxsize=20_000)
def host_family(host: str) -> str:
    """The party behind a host: its registrable domain by the packaged public-suffix list.

    Flickr's domains are one family. An address, or a name without a public suffix, stands for
    itself.
    """
    if is_address(host):
        return host
    domain = _public_suffixes()(host.rstrip(".")) or host
    return "flickr.com" if domain in _FLICKR else domain


def is_address(host: str) -> bool:
    """Whether a host is an IP address, not a name."""
    return host.rpartition(".")[2].isdigit() or ":" in host


def _percent(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(f"%{byte:02X}" for byte in wrong), error.end


codecs.register_error("percent", _percent)
