"""JPEG files (ITU-T T.81): what the header says, whether all of the picture is there, its pixels.

libjpeg only warns of damage and fills what it cannot read with grey. Its warnings decide here. A
viewer shows a picture that is complete but for its end marker, or that has bytes to spare: such a
picture is sound.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.dataset.outcome import Outcome
from pipelines.pictures.errors import PictureError
from pipelines.pictures.pixels import Pixels

_EOI = b"\xff\xd9"
_SOS = 0xDA
# Starts of frame: baseline and extended; progressive; with arithmetic coding.
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_FRAMES = _SEQUENTIAL | _PROGRESSIVE | _OTHER_FRAMES
# Application data and comments have no part in the pixels, but for JFIF's and Adobe's.
_JFIF_MARKER, _ADOBE_MARKER = 0xE0, 0xEE
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE}) - {_JFIF_MARKER, _ADOBE_MARKER}
# Its revision, of which libjpeg warns where it is not 1, does not matter.
_JFIF = re.compile(rb"^(..JFIF\0)..", re.S)
_STAND_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
# A scan is a pass over the whole picture. Encoders make about ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 1_000_000_000
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_NO_END = "Premature end of JPEG file"
# Of odd sampling factors, which simplejpeg does not decode, and of markers without a part in the
# pixels, for which it gives up.
_FOR_PILLOW = re.compile("tjDecompressHeader|Unknown Adobe color|Invalid SOS parameters|.* ICC ")
_STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
# Some cameras leave so many behind the last row.
_FEW_BYTES = 4
_TURNS = 3
# Of libjpeg's, and some more.
_READ_AHEAD_BYTES = 16
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclass(frozen=True)
class Jpeg:
    """A file whose header is read, but not its pixels."""

    width: int
    height: int
    channels: int
    """1: grey, 3: RGB or YCbCr, 4: CMYK or YCCK."""
    exif: bytes | None
    """The TIFF structure inside its Exif segment."""
    profile: bytes | None
    """The ICC profile, if all parts of it are there."""
    bare: bytes
    """The file without metadata."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored, which may not be upright."""
        return self.width, self.height


def read_jpeg(data: bytes) -> Jpeg:
    """Reads the header. Raises PictureError where no picture follows, or one without an end."""
    kept, exif = [data[:2]], None
    parts: dict[int, bytes] = {}
    frame = (0, b"")
    position, marker = 2, 0
    while marker != _SOS:
        found = _MARKER.search(data, position)
        if found is None or found[1] == _EOI[1:]:
            raise PictureError(Outcome.CORRUPT, "its header is cut off")
        marker, position = found[1][0], found.end()
        if marker in _STAND_ALONE:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        payload = data[position + 2 : end]
        if marker == 0xE1 and payload.startswith(b"Exif\0") and exif is None:
            exif = payload[6:]
        elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0") and len(payload) > 14:
            parts[payload[12]] = payload[13:]
        elif marker in _FRAMES:
            frame = marker, payload
        if marker not in _METADATA:
            segment = data[position:end]
            if marker == _JFIF_MARKER:
                segment = _JFIF.sub(b"\\1\x01\x02", segment)
            kept += [b"\xff", found[1], segment]
        position = end
    kept.append(data[position:])
    width, height, channels = _read_frame(*frame)
    if frame[0] in _PROGRESSIVE or payload[:1] != bytes([channels]):
        _refuse_endless(data, position, (width, height))
    return Jpeg(width, height, channels, exif, _profile(parts), b"".join(kept))


def _read_frame(marker: int, payload: bytes) -> tuple[int, int, int]:
    """Width, height and channels of a start of frame."""
    if len(payload) < 6:
        raise PictureError(Outcome.CORRUPT, "its header is cut off")
    height, width = (int.from_bytes(payload[at : at + 2], "big") for at in (1, 3))
    bits, channels = payload[0], payload[5]
    if marker in _OTHER_FRAMES or bits != 8 or channels not in _COLOURS:
        kind = f"SOF{marker - 0xC0}, {bits} bits, {channels} channels"
        raise PictureError(
            Outcome.UNSUPPORTED_FORMAT, f"JPEG that viewers do not show ({kind})", (width, height)
        )
    if not (width and height):
        raise PictureError(Outcome.CORRUPT, f"its header says {width}x{height} pixels")
    return width, height, channels


def _profile(parts: dict[int, bytes]) -> bytes | None:
    """The ICC profile of its numbered parts, each of which begins with how many there are."""
    if not parts or sorted(parts) != list(range(1, parts[min(parts)][0] + 1)):
        return None
    return b"".join(parts[number][1:] for number in sorted(parts))


def _refuse_endless(data: bytes, position: int, size: tuple[int, int]) -> None:
    """Raises PictureError for more scans than any encoder makes: a scan may take as long as a
    whole picture."""
    most = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // (size[0] * size[1]))
    scans = 1
    while found := _MARKER_IN_SCAN.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _EOI[1]:
            return
        if marker not in _STAND_ALONE:
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == _SOS
        if scans > most:
            raise PictureError(Outcome.CORRUPT, f"it has more than {most} scans", size)


def decode_jpeg(jpeg: Jpeg) -> Pixels:
    """The pixels as stored, uint8 [H, W, channels]. Raises PictureError where some are missing.

    They are Pillow's, but that Pillow inverts CMYK.
    """
    data = jpeg.bare
    pixels = _decode(data, jpeg)
    if isinstance(pixels, str) and pixels == _NO_END:
        data += _EOI
        pixels = _decode(data, jpeg)
    # Each warning hides those before it, so that it is decoded once more without the cause. libjpeg
    # does not count what it had read ahead: that takes another turn.
    for _ in range(_TURNS):
        if isinstance(pixels, str) and (stray := _STRAY.match(pixels)):
            data = _without_stray_bytes(data, int(stray[1]), jpeg)
            pixels = _decode(data, jpeg)
    if isinstance(pixels, str) and _FOR_PILLOW.match(pixels):
        pixels = _decode_by_pillow(data, jpeg)
    if isinstance(pixels, str):
        raise PictureError(Outcome.CORRUPT, pixels, jpeg.size)
    return pixels


def _decode(data: bytes, jpeg: Jpeg) -> Pixels | str:
    """The pixels, or the last of libjpeg's warnings."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, _COLOURS[jpeg.channels])
    except ValueError as warning:
        return str(warning)
    return pixels


def _decode_by_pillow(data: bytes, jpeg: Jpeg) -> Pixels | str:
    """The same by a decoder that tells no warning, but misses the end of what is cut off."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            pixels: Pixels = np.asarray(image).reshape(*jpeg.size[::-1], jpeg.channels)
    except Exception as error:  # on hostile input Pillow raises what it likes
        return f"{type(error).__name__}: {error}"[:200]
    return np.bitwise_not(pixels) if jpeg.channels == 4 else pixels


def _without_stray_bytes(data: bytes, count: int, jpeg: Jpeg) -> bytes:
    """A file whose end marker follows its last row.

    Raises PictureError where the bytes between look like rows: then it is the decoder that has
    lost its place among them.
    """
    end = data.find(_EOI, data.rfind(b"\xff\xda"))
    stray = data[end - count : end]
    padding = stray[:1] * _READ_AHEAD_BYTES
    is_padded = not stray.strip(stray[:1]) and not data[: end - count].endswith(padding)
    if count > _FEW_BYTES and not is_padded and not _TEXT.issuperset(stray):
        detail = f"{count:,} bytes of the picture are left over behind its last row"
        raise PictureError(Outcome.CORRUPT, detail, jpeg.size)
    return data[: end - count] + _EOI
