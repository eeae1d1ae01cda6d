"""Which columns of a table hold URL, id and checksum; and a row as a line of the list.

Such a line is ``image id TAB url``, and ``TAB checksum`` where the row has one. A row that
names no picture becomes a line without a TAB, which every parser takes for malformed.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pipelines.command.cli import UsageError

# By the header, the first that is there. Of Open Images, then img2dataset's, LAION's, DataComp's.
_URL_NAMES = ("originalurl", "url", "image_url", "imageurl")
_ID_NAMES = ("imageid", "image_id", "key", "uid", "sample_id", "id")
_CHECKSUM_NAMES = ("originalmd5", "sha256", "md5")
_KIND_BY_BYTES = {16: "md5", 32: "sha256"}
_HEX = re.compile(rb"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64}")
_BREAKS = b"\t\r\n"
_SPACES = bytes.maketrans(_BREAKS, b"   ")


@dataclass(frozen=True)
class Columns:
    """What --url-column, --id-column and --checksum-column say: a name, or a number from 1."""

    url: str | None = None
    image_id: str | None = None
    checksum: str | None = None

    @property
    def are_given(self) -> bool:
        """Whether any is."""
        return any((self.url, self.image_id, self.checksum))


@dataclass(frozen=True)
class Chosen:
    """Places of a row's fields, from 0; None where it has no such field."""

    url: int
    image_id: int | None = None
    checksum: int | None = None

    def line(self, fields: Sequence[bytes], number: int) -> bytes:
        """Row ``number`` of the list, from 1, as a line.

        Without a column of ids the number is the id. Of two rows with one picture the lesser id is
        kept, so that rows that are added at the end of a list change nothing of those before. A
        hash of the URL would.
        """
        url = fields[self.url].translate(None, _BREAKS)
        image_id = b"%010d" % number if self.image_id is None else fields[self.image_id]
        if self.image_id is not None:
            image_id = _without_spaces(image_id)
        line = image_id + b"\t" + url
        if self.checksum is not None and (text := fields[self.checksum].strip()):
            checksum = _canonical(text)
            if checksum is None:
                return malformed(b" ".join(fields))
            line += b"\t" + checksum
        return line if url and image_id else malformed(b" ".join(fields))


def narrowed(names: Sequence[str], places: Chosen) -> tuple[list[str], Chosen]:
    """The names of the chosen columns alone, and their places among these."""
    wanted = [places.url, places.image_id, places.checksum]
    read = list(dict.fromkeys(place for place in wanted if place is not None))
    return [names[place] for place in read], Chosen(
        read.index(places.url),
        None if places.image_id is None else read.index(places.image_id),
        None if places.checksum is None else read.index(places.checksum),
    )


def malformed(row: bytes) -> bytes:
    """A row that names no picture, as a line."""
    return row.translate(_SPACES)


def chosen(names: Sequence[str], given: Columns, where: str) -> Chosen:
    """The columns of a table with these names: numbers where it has no header.

    Raises UsageError, with the columns that the table has.
    """
    url = _find(names, given.url, _URL_NAMES, "--url-column", where)
    if url is None:
        raise unknown(names, where)
    return Chosen(
        url,
        _find(names, given.image_id, _ID_NAMES, "--id-column", where),
        _find(names, given.checksum, _CHECKSUM_NAMES, "--checksum-column", where),
    )


def unknown(names: Sequence[str], where: str) -> UsageError:
    """The refusal of a table of which no column is known to hold URLs."""
    return UsageError(
        f"{where} has the columns {_listed(names)}: --url-column NAME, or its number, says which "
        "one holds URLs"
    )


def _find(
    names: Sequence[str], given: str | None, known: Sequence[str], option: str, where: str
) -> int | None:
    """The place of a column: the given one, or the first with a known name."""
    if given is None:
        lower = [name.strip().lower() for name in names]
        return next((lower.index(name) for name in known if name in lower), None)
    if given in names:
        return list(names).index(given)
    if given.isdecimal() and 1 <= int(given) <= len(names):
        return int(given) - 1
    raise UsageError(f"{where} has no column {given!r} for {option}, but {_listed(names)}")


def has_known_url(names: Sequence[str], given: Columns) -> bool:
    """Whether a row of fields is a header."""
    lower = {name.strip().lower() for name in names}
    return given.url in names if given.url else not lower.isdisjoint(_URL_NAMES)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] or "''" for name in names[:20])
    return f"{shown}, …" if len(names) > 20 else shown


def _without_spaces(image_id: bytes) -> bytes:
    """A line's id holds no space: it is percent-encoded, as in the paths of pictures."""
    text = image_id.decode(errors="percent").strip()
    if text.split() != [text]:
        text = "".join(quote(char) if char.isspace() else char for char in text)
    return text.encode()


def _canonical(text: bytes) -> bytes | None:
    """``sha256:…`` or ``md5:…`` of a checksum in hex or base64; None where it is none."""
    try:
        is_hex = _HEX.fullmatch(text)
        digest = bytes.fromhex(text.decode()) if is_hex else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    kind = _KIND_BY_BYTES.get(len(digest))
    return f"{kind}:{digest.hex()}".encode() if kind else None
