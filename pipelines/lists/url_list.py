"""A line of the Fall 2011 list, bytes as they are -> an entry, or the reason why it is none."""

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import can_ada
from publicsuffixlist import PublicSuffixList
from yarl import URL

from pipelines.dataset.outcome import Outcome, Row

# A URL's host may have empty and longer labels, and other characters; a name in DNS may not.
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:]+\]")
_CHECKSUM = re.compile("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
_CONTROLS_AND_SPACE = "".join(map(chr, range(0x21)))
_ALSO_FLICKR = frozenset({"staticflickr.com", "flic.kr"})


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
    checksum: str = ""
    """Of the picture, ``sha256:…`` or ``md5:…`` in hexadecimal; empty where the list has none."""
    place: str = ""
    """Of a picture in an archive: which one, and where in it."""


Parser = Callable[[bytes], Entry]
"""A line -> an entry. Raises Rejected."""


class Rejected(ValueError):
    """A line that names no picture that could be fetched; ``row`` says why."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.detail)
        self.row = row


def parse_line(line: bytes) -> Entry:
    """Parses ``image id TAB url``, without its line end. Raises Rejected.

    What follows another TAB is the picture's checksum, as columns.Chosen writes it; else it is
    left out.
    """
    image_id, _, rest = line.decode(errors="percent").partition("\t")
    url, _, further = rest.strip(_CONTROLS_AND_SPACE).partition("\t")
    url = url.rstrip(_CONTROLS_AND_SPACE)
    if not url or image_id.split() != [image_id]:
        raise Rejected(
            Row(Outcome.MALFORMED_LINE, line=line, detail="not an image id, a tab and a URL")
        )
    try:
        requested, host = _parse(url)
    except ValueError as error:
        row = Row(Outcome.UNSUPPORTED_URL, image_id=image_id, url=url, detail=str(error))
        raise Rejected(row) from None
    checksum = further if further and _CHECKSUM.fullmatch(further) else ""
    return Entry(image_id, url, requested, host, "", checksum)


def parse_path_line(line: bytes) -> Entry:
    """Parses ``image id TAB path``, or ``… TAB place``, as pictures.picture_lines gives it."""
    image_id, path, *place = line.decode("ascii").split("\t")
    return Entry(image_id, path, path, "", place="".join(place))


def request_url(text: str, base: str = "") -> URL:
    """The URL that a browser would request for ``text``, found on the page ``base``.

    It has no fragment. ``&amp;`` is ``&``, as the list was scraped from HTML without decoding it.
    Raises ValueError with the reason.
    """
    return URL(_parse(text, base)[0], encoded=True)


def _parse(text: str, base: str = "") -> tuple[str, str]:
    """By the WHATWG URL standard: the URL to request, and its host without brackets."""
    text = text.replace("&amp;", "&")
    try:
        url = can_ada.parse(base) + text if base else can_ada.parse(text)
    except ValueError:
        raise ValueError("not a valid URL, or one without http://") from None
    if url.protocol not in ("http:", "https:"):
        raise ValueError(f"scheme {url.protocol[:-1]!r} is not http or https")
    host: str = url.hostname
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name")
    if url.port == "0":
        raise ValueError("port 0 cannot be reached")
    # Requests are sent without a fragment and without an empty query.
    requested = url.href.partition("#")[0]
    return requested if url.search else requested.removesuffix("?"), host.strip("[]")


class _PublicSuffixes:
    """The packaged public-suffix list."""

    def __init__(self) -> None:
        self._list = PublicSuffixList()
        rules = [rule.split(".") for rule in self._list._publicsuffix if "." in rule]
        self.long = frozenset(".".join(rule[-2:]) for rule in rules)
        """How its rules of several labels end."""
        self.wild = {rule[-1] for rule in rules if rule[-2] == "*"}
        """Of them those of two labels for any name: their last one."""

    def domain(self, host: str) -> str | None:
        """The registrable domain of a host; None where it has none."""
        labels = host.rsplit(".", 2)
        domain = ".".join(labels[-2:])
        is_plain = len(labels) > 1 and "" not in labels and labels[-1] not in self.wild
        if is_plain and domain not in self.long:
            # Only a rule of one label fits. The list itself takes four times as long to say so.
            return domain
        suffix: str | None = self._list.privatesuffix(host)
        return suffix


_public_suffixes = lru_cache(maxsize=1)(_PublicSuffixes)


@lru_cache(maxsize=20_000)
def host_family(host: str) -> str:
    """The party behind a host: its registrable domain by the packaged public-suffix list.

    Flickr's domains are one family. An address, or a name without a public suffix, stands for
    itself.
    """
    if is_address(host):
        return host
    domain = _public_suffixes().domain(host.rstrip(".")) or host
    return "flickr.com" if domain in _ALSO_FLICKR else domain


def is_address(host: str) -> bool:
    """Whether a host is an IP address, not a name."""
    return host.rpartition(".")[2].isdigit() or ":" in host


def plain_lines(text: bytes) -> tuple[list[str], list[str]]:
    """The URL to request and the host family of each line; two empty strings where it is not plain.

    They are those of parse_line and host_family, for many lines at once in a quarter of the time.
    Most lines are plain. Each ends by a newline.
    """
    pattern, others = _plain()
    found = pattern.findall(text.decode("latin-1"))
    families = [
        host_family(url.split("/", 3)[2]) if domain in others else domain for url, domain in found
    ]
    return [url for url, _ in found], families


@lru_cache(maxsize=1)
def _plain() -> tuple[re.Pattern[str], frozenset[str]]:
    """A line with its URL and the last two labels of the host, or any line, with neither; and those
    labels that are no host family by themselves.

    The URL standard leaves such a URL as it is: no label is Punycode or stands for a number, no
    segment of the path begins with a dot, plain or encoded. The host is short enough for DNS.
    """
    suffixes = _public_suffixes()
    label = "(?!xn--)[-0-9_a-z]{1,40}+"
    last = f"(?!(?:{'|'.join(map(re.escape, sorted(suffixes.wild)))})/)[a-z]{{2,20}}+"
    pattern = re.compile(
        rf"[!-~]++\t(https?://(?:{label}\.){{0,4}}({label}\.{last})"
        r"/(?:[-!$()*+,/0-9:;=?@A-Z_a-z~]++|(?<!/)[.%]|&(?!amp;))*+(?<!\?))"
        rf"(?:\t(?:{_CHECKSUM.pattern}))?+\n|.*+\n"
    )
    return pattern, suffixes.long | _ALSO_FLICKR


def _percent(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(f"%{byte:02X}" for byte in wrong), error.end


codecs.register_error("percent", _percent)
