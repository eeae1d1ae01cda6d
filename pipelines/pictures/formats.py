"""What a file is, by the bytes it begins with: names and media types lie."""

import hashlib
import re
import struct

from pipelines.dataset.outcome import Outcome
from pipelines.pictures.errors import PictureError

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""How files of pictures are named, in lower case: enough to take one of a folder for a picture."""

_READ: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
)
# Pictures all the same, that the dataset does without.
_NOT_READ: tuple[tuple[int, bytes, str], ...] = (
    (8, b"CR\x02\0", "a camera's raw picture"),  # a TIFF file otherwise
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\0\0\2\0", "a cursor"),
    (0, b"icns", "an icon"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"II\x2b\0", "BigTIFF"),
    (0, b"MM\0\x2b", "BigTIFF"),
    (0, b"\x0a\x05\x01", "PCX"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\x8bJNG", "JNG"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"FORM", "IFF"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (40, b" EMF", "a Windows metafile"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\x01\xda\0", "SGI"),
    (0, b"\x01\xda\1", "SGI"),
    (0, b"/* XPM */", "XPM"),
)
# Of the major and compatible brands of an ISO media file (ISO/IEC 14496-12), in this order.
_BRANDS = (
    (frozenset({b"avif", b"avis"}), "AVIF"),
    (frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}), "HEIC"),
    (frozenset({b"mif1", b"mif2", b"msf1", b"miaf"}), "HEIF"),
    (frozenset({b"crx "}), "a camera's raw picture"),
)
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# Nothing is tried twice (possessive, atomic), so that no bytes make them slow.
_NETPBM = re.compile(rb"P([1-6]\s++(?>#[^\n]*+\n\s*+)*+\d|7\s+WIDTH|[Ff]\s+\d)")
_SVG = re.compile(
    rb"(\xef\xbb\xbf)?+(?>\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\ssvg.*?>)*+<(svg:)?svg[\s/>]", re.S
)
_TGA = struct.Struct("<xBBHHBHHHHBB")
_PLACEHOLDER_MD5 = frozenset(
    {
        "880a7a58e05d3e83797f27573bb6d35c",  # flickr, PNG of 2,051 bytes
        "e60b98765d26e34bfbb797c1a5f378f2",  # flickr, GIF
        "596246739a83bb45e30e13437e0810d9",
        "969e595182a947c7fdaaef4a34401760",
        "af5db09e39ca35d8930b4e59962e09e5",
        "d835884373f4d6c8f24742ceabe74946",  # imgur
    }
)
_PLACEHOLDERS_ARE_UNDER_BYTES = 20_000
_START_BYTES = 1024


def format_of(data: bytes) -> str:
    """The format of a picture's file, one of those that are read, as Pillow names it.

    Raises PictureError for another format, what is no picture, and a known placeholder.
    """
    name, is_read = _recognized(data)
    if name is None:
        detail = f"begins with {data[:12]!r}" if data else "the body is empty"
        raise PictureError(Outcome.NOT_AN_IMAGE, detail)
    if not is_read:
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, name)
    if (
        len(data) < _PLACEHOLDERS_ARE_UNDER_BYTES
        and hashlib.md5(data, usedforsecurity=False).hexdigest() in _PLACEHOLDER_MD5
    ):
        raise PictureError(Outcome.PLACEHOLDER)
    return name


def may_be_picture(start: bytes) -> bool:
    """Whether bytes that begin so, a kilobyte if there are as many, may be a picture."""
    return _recognized(start)[0] is not None


def _recognized(data: bytes) -> tuple[str | None, bool]:
    """The name of a format, and whether it is read."""
    for table, is_read in ((_NOT_READ, False), (_READ, True)):
        for offset, magic, name in table:
            if data.startswith(magic, offset):
                return name, is_read
    if data.startswith(b"RIFF") and data.startswith(b"WEBP", 8):
        return "WEBP", True
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP", True
    if data.startswith(b"ftyp", 4):
        return _brand(data)
    start = data[:_START_BYTES]
    if _SVG.match(start):
        return "SVG", False
    if _NETPBM.match(start):
        return "PNM", False
    return ("TGA" if _is_tga(start) else None), False


def _brand(data: bytes) -> tuple[str | None, bool]:
    """Of an ISO media file; a film is none of them."""
    length = min(int.from_bytes(data[:4], "big"), _START_BYTES)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
    for known, name in _BRANDS:
        if brands & known:
            return name, name == "AVIF"
    return None, False


def _is_tga(start: bytes) -> bool:
    """Whether the 18 bytes of its header make sense: it has no magic number."""
    if len(start) < 1 + _TGA.size:
        return False
    palette, kind, _, colours, entry, _, _, width, height, depth, descriptor = _TGA.unpack_from(
        start
    )
    return (
        (palette, kind) in {(1, 1), (1, 9), (0, 2), (0, 3), (0, 10), (0, 11)}
        and (palette == 1) == (colours > 0)
        and entry in ((15, 16, 24, 32) if palette else (0,))
        and depth in (8, 15, 16, 24, 32)
        and width > 0 < height
        and not descriptor & 0xC0
    )
