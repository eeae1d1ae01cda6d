"""Pictures into files: row by row where the format allows it, so that no size takes more memory.

What a format cannot hold is known before a pixel is computed: its largest sides, the memory that
the formats take that Pillow writes as a whole, the disk.
"""

import fcntl
import glob
import itertools
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.TiffTags import LONG

from evaluation.metrics import UInt8Array
from evaluation.photo import OPAQUE, Metadata, Photo
from evaluation.upscalers import Levels
from pipelines.command.cli import UsageError, WorkError
from pipelines.command.files import opened_whole
from pipelines.pictures.resampling import to_uint8
from trainer import files

QUALITY = 95
_INCHES_IN_METRE = 1 / 0.0254
_PAETH = 4
_TIFF_HEADER = struct.pack("<2sHI", b"II", 42, 8)
_MOST_TIFF_BYTES = 4_000_000_000
# So much is compressed at a time.
_CHUNK_BYTES = 1 << 20
_STRIP_ROWS = 16
_RESOLUTION_IN_EXIF = ("WEBP", "AVIF")
_MOST_EXIF_BYTES = 65_000  # of a segment of JPEG
_MEM_AVAILABLE = re.compile(r"MemAvailable: +(\d+) kB")
Bands = Iterable[Levels]


@dataclass(frozen=True)
class Layout:
    """What is written."""

    width: int
    height: int
    channels: int
    """1 grey, 2 with transparency, 3 RGB, 4 with transparency."""
    bits: int
    """8 or 16."""
    metadata: Metadata


@dataclass(frozen=True)
class Format:
    """A way to write a picture."""

    name: str
    write: Callable[[BinaryIO, Bands, Layout, str], None]
    most_px: int
    """Of a side."""
    bytes_a_pixel: int = 0
    """Of memory while it is written; 0: row by row."""
    bits: int = 8
    """The most of a sample."""
    has_alpha: bool = True


def format_of(path: str) -> Format:
    """By the suffix. Raises UsageError for another than those of FORMATS."""
    suffix = PurePath(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"{path}: {suffix or 'no suffix'} is not written, use {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]


def check_room(path: str, width: int, height: int, bytes_a_pixel: int) -> None:
    """Raises UsageError where a picture of so many pixels cannot be written there."""
    file_format = format_of(path)
    size = f"{path}: {width}x{height} pixels"
    if max(width, height) > file_format.most_px:
        raise UsageError(f"{size}: {file_format.name} ends at {file_format.most_px}, use .png")
    needed = file_format.bytes_a_pixel * width * height
    if needed > (free := _free_memory()):
        raise UsageError(
            f"{size} as {file_format.name} take {_gb(needed)} of memory, and {_gb(free)} are free: "
            "use .png or .tif, which are written row by row"
        )
    most = bytes_a_pixel * width * height
    if file_format.name == "TIFF" and most > _MOST_TIFF_BYTES:
        raise UsageError(f"{size} are {_gb(most)}, and TIFF ends at 4 GB: use .png")
    folder = Path(path).parent if files.is_local(path) else Path(tempfile.gettempdir())
    while not folder.is_dir():
        folder = folder.parent
    if not needed and most > (free := shutil.disk_usage(folder).free):
        raise UsageError(f"{size} take up to {_gb(most)}, and {_gb(free)} of the disk are free")


def save(path: str, bands: Bands, photo: Photo, scale: int) -> None:
    """Writes ``photo``, enlarged, as its bands of rows come, whole or not at all.

    What the format cannot hold becomes what it can: 16 bits become 8, transparent parts white.
    Raises WorkError where that is not possible.
    """
    file_format = format_of(path)
    height, width, channels = photo.samples.shape
    layout = Layout(width * scale, height * scale, channels, photo.bits, photo.metadata)
    if layout.bits > file_format.bits:
        bands = (eight_bits(band, photo.white) for band in bands)
        layout = replace(layout, bits=8)
    if layout.channels in (2, 4) and not file_format.has_alpha:
        bands = (_on_white(band) for band in bands)
        layout = replace(layout, channels=layout.channels - 1)
    try:
        if files.is_local(path):
            _remove_left(Path(path))
            with opened_whole(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file_format.write(file, bands, layout, file_format.name)
            return
        with tempfile.TemporaryFile() as file:
            file_format.write(file, bands, layout, file_format.name)
            file.seek(0)
            files.write(path, file.read())
    except OSError as error:
        raise WorkError(f"{path} cannot be written: {error.strerror or error}") from None


def _remove_left(path: Path) -> None:
    """What a process left that was ended in the middle of a tile: nobody has it locked."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def eight_bits(band: Levels, white: int) -> UInt8Array:
    """Samples [H, W, C] of up to ``white``, opaque at the most of their type, in 8 bits."""
    most = np.full(band.shape[2], white, np.float32)
    if band.shape[2] in (2, 4):
        most[-1] = OPAQUE[band.dtype]
    return to_uint8(band * (255 / most))


def _on_white(band: Levels) -> UInt8Array:
    opaque = band[..., -1:].astype(np.float32) / 255
    return to_uint8(band[..., :-1] * opaque + 255 * (1 - opaque))


def _write_png(file: BinaryIO, bands: Bands, layout: Layout, name: str) -> None:
    """PNG (ISO/IEC 15948), each row filtered by Paeth's predictor, which suits photographs."""
    metadata = layout.metadata
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[layout.channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", layout.width, layout.height, layout.bits, kind, 0, 0, 0)
    _write_chunk(file, b"IHDR", header)
    if metadata.profile:
        _write_chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.profile))
    if metadata.dpi:
        per_metre = (round(value * _INCHES_IN_METRE) for value in metadata.dpi)
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif := _exif(layout, name):
        _write_chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    pack = zlib.compressobj(memLevel=zlib.DEF_MEM_LEVEL + 1, strategy=zlib.Z_FILTERED)
    step = layout.channels * layout.bits // 8
    above = np.zeros((1, layout.width * step), np.uint8)
    for rows in _chunks(bands, max(_CHUNK_BYTES // above.size, 1)):
        plain = rows.astype(f">u{layout.bits // 8}").reshape(len(rows), -1).view(np.uint8)
        filtered = np.full((len(rows), 1 + plain.shape[1]), _PAETH, np.uint8)
        filtered[:, 1:] = plain - _predicted(np.concatenate([above, plain]), step)
        if packed := pack.compress(filtered.tobytes()):
            _write_chunk(file, b"IDAT", packed)
        above = plain[-1:]
    _write_chunk(file, b"IDAT", pack.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))


def _predicted(rows: UInt8Array, step: int) -> UInt8Array:
    """Of left, above and left above the one nearest to left + above - left above.

    For the bytes of all rows but the first, which is above the second.
    """
    above = rows[:-1].astype(np.int16)
    left, corner = np.zeros_like(above), np.zeros_like(above)
    left[:, step:], corner[:, step:] = rows[1:, :-step], rows[:-1, :-step]
    by_left, by_above = np.abs(above - corner), np.abs(left - corner)
    by_corner = np.abs(left + above - 2 * corner)
    second = np.where(by_above <= by_corner, above, corner)
    is_left = (by_left <= by_above) & (by_left <= by_corner)
    return np.where(is_left, left, second).astype(np.uint8)


def _write_tiff(file: BinaryIO, bands: Bands, layout: Layout, name: str) -> None:
    """TIFF 6.0 in strips, each packed by Deflate as differences of neighbours."""
    strips = -(-layout.height // _STRIP_ROWS)
    directory = _tiff_directory(layout, [0] * strips, [0] * strips)
    start = len(_TIFF_HEADER) + len(directory)
    file.seek(start)
    sizes = []
    for rows in _chunks(bands, _STRIP_ROWS):
        rows = rows.astype(f"<u{layout.bits // 8}")
        rows[:, 1:] -= rows[:, :-1].copy()
        sizes.append(file.write(zlib.compress(rows.tobytes())))
    # Relative to the directory's end, as Pillow wants them.
    offsets = [0, *itertools.accumulate(sizes[:-1])]
    file.seek(0)
    file.write(_TIFF_HEADER + _tiff_directory(layout, offsets, sizes))


def _tiff_directory(layout: Layout, offsets: list[int], sizes: list[int]) -> bytes:
    """Of one length, whatever the numbers."""
    has_alpha, is_rgb = layout.channels in (2, 4), layout.channels > 2
    directory = ImageFileDirectory_v2()
    if exif := _exif(layout, "TIFF"):
        kept = Image.Exif()
        kept.load(exif)
        for tag, value in kept.items():
            directory[tag] = kept.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else value
    directory[Base.ImageWidth], directory[Base.ImageLength] = layout.width, layout.height
    directory[Base.BitsPerSample] = (layout.bits,) * layout.channels
    directory[Base.Compression], directory[Base.Predictor] = 8, 2
    directory[Base.PhotometricInterpretation] = 2 if is_rgb else 1
    directory[Base.SamplesPerPixel] = layout.channels
    directory[Base.RowsPerStrip] = _STRIP_ROWS
    for tag, numbers in ((Base.StripOffsets, offsets), (Base.StripByteCounts, sizes)):
        directory.tagtype[tag] = LONG
        directory[tag] = tuple(numbers)
    if has_alpha:
        directory[Base.ExtraSamples] = 2
    if layout.metadata.dpi:
        directory[Base.XResolution], directory[Base.YResolution] = layout.metadata.dpi
        directory[Base.ResolutionUnit] = 2
    if layout.metadata.profile:
        directory[Base.InterColorProfile] = layout.metadata.profile
    return directory.tobytes(len(_TIFF_HEADER))


def _write_whole(file: BinaryIO, bands: Bands, layout: Layout, name: str) -> None:
    """By Pillow, from memory."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[layout.channels]
    image = Image.new(mode, (layout.width, layout.height))
    y = 0
    for band in bands:
        image.paste(Image.fromarray(band.squeeze(2) if band.shape[2] == 1 else band), (0, y))
        y += len(band)
    metadata = layout.metadata
    options = {"exif": _exif(layout, name), "icc_profile": metadata.profile, "dpi": metadata.dpi}
    given = {option: value for option, value in options.items() if value}
    image.save(file, name, quality=QUALITY, **given)


def _exif(layout: Layout, name: str) -> bytes:
    """With the size and the resolution that it has now; empty without any."""
    exif, dpi = layout.metadata.exif, layout.metadata.dpi
    details = exif.get_ifd(IFD.Exif)
    for tag, side in (
        (Base.ExifImageWidth, layout.width),
        (Base.ExifImageHeight, layout.height),
    ):
        if tag in details:
            details[tag] = side
    if dpi and (exif or name in _RESOLUTION_IN_EXIF):
        exif[Base.XResolution], exif[Base.YResolution] = dpi
        exif[Base.ResolutionUnit] = 2
    data = exif.tobytes() if exif else b""
    return data if len(data) < _MOST_EXIF_BYTES else b""


def _chunks(bands: Bands, count: int) -> Iterator[Levels]:
    """The same rows, ``count`` at a time but for the last."""
    rest = None
    for band in bands:
        rows = band if rest is None else np.concatenate([rest, band])
        whole = len(rows) // count * count
        for y in range(0, whole, count):
            yield rows[y : y + count]
        rest = rows[whole:]
    if rest is not None and len(rest):
        yield rest


def _free_memory() -> int:
    """In bytes: of the machine, or of the container where that has less."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        found = _MEM_AVAILABLE.search(Path("/proc/meminfo").read_text())
        pages = int(found[1]) * 1024 if found else pages
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        pages = min(pages, int((group / "memory.max").read_text()) - used)
    return pages


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


_JPEG = Format("JPEG", _write_whole, 65_500, bytes_a_pixel=5, has_alpha=False)
_TIFF = Format("TIFF", _write_tiff, 2**31 - 1, bits=16)
FORMATS: Mapping[str, Format] = {
    ".png": Format("PNG", _write_png, 2**31 - 1, bits=16),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", _write_whole, 16_383, bytes_a_pixel=44),
    ".avif": Format("AVIF", _write_whole, 65_536, bytes_a_pixel=40),
    ".bmp": Format("BMP", _write_whole, 2**31 - 1, bytes_a_pixel=5, has_alpha=False),
}
"""By the suffix, in lower case."""
