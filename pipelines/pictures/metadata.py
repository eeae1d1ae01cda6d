"""Of a file's metadata only what decides how it looks: which way is up, and its colours.

Each is read by itself, and all else is taken out before a decoder sees the file: no broken date or
comment costs a picture.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
# Types of an orientation: 1, 2 and 4 bytes. Baseline files have the second.
_TYPES = {1: "B", 3: "H", 4: "I"}
_MOST_ENTRIES = 1_000
# What a TIFF file's first directory says of its pixels, orientation and colour profile among them.
PIXEL_TAGS = frozenset(
    {*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 292, 293, 317, 320}
    | {*range(322, 326), 332, 338, 339, 347, *range(512, 522), *range(529, 533), 34675}
)
MAX_PROFILE_BYTES = 4 << 20


@dataclass(frozen=True)
class BarePng:
    """A PNG file without metadata, and what was in it."""

    data: bytes
    exif: bytes | None = None
    """A TIFF structure."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """As Pillow names it: icc_profile, a profile's bytes; gamma, the exponent from light to
    samples."""


def orientation(tiff: bytes | None) -> int:
    """The orientation, 1 to 8, that the first directory of a TIFF structure tells; else 1."""
    data = (tiff or b"").removeprefix(_EXIF)  # some formats keep it
    order = _BYTE_ORDERS.get(data[:2])
    if order is None or len(data) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack(f"{order}H", data[start : start + 2].ljust(2, b"\0"))
    for entry in range(start + 2, start + 2 + 12 * min(count, _MOST_ENTRIES), 12):
        field = data[entry : entry + 12]
        if len(field) < 12:
            break
        tag, kind, length = struct.unpack_from(f"{order}HHI", field)
        if tag == _ORIENTATION and kind in _TYPES and length == 1:
            (value,) = struct.unpack_from(f"{order}{_TYPES[kind]}", field, 8)
            return value if 1 <= value <= 8 else 1
    return 1


def bare_tiff(data: bytes) -> bytes:
    """A TIFF file whose first directory, the only one left, has but the tags that pixels need."""
    order = _BYTE_ORDERS[data[:2]]
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    (count,) = struct.unpack(f"{order}H", data[start : start + 2].ljust(2, b"\0"))
    end = start + 2 + 12 * count
    fields = (data[at : at + 12].ljust(12, b"\0") for at in range(start + 2, end, 12))
    kept = [field for field in fields if struct.unpack_from(f"{order}H", field)[0] in PIXEL_TAGS]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept)
    return data[:start] + directory.ljust(end + 4 - start, b"\0") + data[end + 4 :]


def bare_png(data: bytes) -> BarePng:
    """A PNG file's critical chunks and its transparency, without the rest.

    A broken chunk of those that are left out is no harm.
    """
    kept = [_PNG_SIGNATURE]
    found: dict[bytes, bytes] = {}
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind[:1].isupper() or (kind == b"tRNS" and _is_whole(data[position + 4 : end])):
            kept.append(data[position:end])
        else:
            found.setdefault(kind, data[position + 8 : end - 4])
        position = end
    profile = _png_profile(found)
    info = {"icc_profile": profile, "gamma": None if profile else _png_gamma(found)}
    return BarePng(b"".join(kept), found.get(b"eXIf"), info)


def _is_whole(chunk: bytes) -> bool:
    """Whether a chunk, without its length, has the checksum that it says."""
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")


def _png_profile(chunks: dict[bytes, bytes]) -> bytes | None:
    """Of iCCP: a name, a zero, the method and the packed profile."""
    _, _, packed = chunks.get(b"iCCP", b"").partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES) or None
    except zlib.error:
        return None


def _png_gamma(chunks: dict[bytes, bytes]) -> float | None:
    """Of gAMA, the exponent times 100,000; sRGB overrules it."""
    value = int.from_bytes(chunks.get(b"gAMA", b""), "big")
    if b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4 or not value:
        return None
    return value / 100_000
