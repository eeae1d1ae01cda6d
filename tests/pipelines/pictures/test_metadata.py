import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.pictures.colour import to_rgb
from pipelines.pictures.images import opened
from pipelines.pictures.metadata import bare_png, bare_tiff, orientation

PHOTO = Image.fromarray(skimage.data.chelsea()[:60, :80].copy())


def file_of(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with opened(data) as image:
        return np.asarray(to_rgb(image))


def with_jpeg_segment(marker: int, payload: bytes) -> bytes:
    data = file_of(PHOTO, "JPEG")
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def with_png_chunk(kind: bytes, payload: bytes, crc: int | None = None) -> bytes:
    data = file_of(PHOTO, "PNG")
    crc = zlib.crc32(kind + payload) if crc is None else crc
    return (
        data[:33]
        + struct.pack(">I4s", len(payload), kind)
        + payload
        + struct.pack(">I", crc)
        + data[33:]
    )


def with_riff_chunk(kind: bytes, payload: bytes) -> bytes:
    """A WebP file in its extended form with one more chunk, told by the flags."""
    data = file_of(PHOTO, "WEBP", lossless=True)
    flags = {b"EXIF": 8, b"XMP ": 4, b"ICCP": 32}[kind]
    size = (PHOTO.width - 1).to_bytes(3, "little") + (PHOTO.height - 1).to_bytes(3, "little")
    head = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + size
    chunk = kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    body = head + (chunk + data[12:] if kind == b"ICCP" else data[12:] + chunk)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@st.composite
def tiff_structures(draw: st.DrawFn) -> bytes:
    """Like Exif: true tags with any type, count and value, or no structure at all."""
    order = draw(st.sampled_from("<>"))
    tags = st.one_of(
        st.sampled_from([0x010F, 0x011A, 0x0128, 0x8769, 0x8825]), st.integers(275, 65535)
    )
    entry = st.tuples(
        tags, st.integers(0, 20), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)
    )
    entries = draw(st.lists(entry, max_size=8))
    start = draw(st.sampled_from([8, 8, 8, 0, 2**31, 9]))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    body = struct.pack(f"{order}H", draw(st.sampled_from([len(entries), 65535])))
    body += b"".join(struct.pack(f"{order}HHII", *values) for values in entries)
    return head + body + draw(st.binary(max_size=40))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.one_of(tiff_structures(), st.binary(max_size=60)))
def test_no_exif_changes_a_pixel(exif: bytes) -> None:
    for with_exif, without in (
        (with_jpeg_segment(0xE1, b"Exif\0\0" + exif), file_of(PHOTO, "JPEG")),
        (with_png_chunk(b"eXIf", exif), file_of(PHOTO, "PNG")),
        (with_riff_chunk(b"EXIF", exif), file_of(PHOTO, "WEBP", lossless=True)),
    ):
        if orientation(exif) == 1:
            np.testing.assert_array_equal(pixels(with_exif), pixels(without))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"gAMA", b"cHRM", b"sBIT"]),
    st.binary(max_size=40),
    st.sampled_from([None, 0]),
)
def test_no_ancillary_chunk_costs_a_picture(kind: bytes, payload: bytes, crc: int | None) -> None:
    found = pixels(with_png_chunk(kind, payload, crc))
    if kind != b"gAMA":
        np.testing.assert_array_equal(found, np.asarray(PHOTO))


def test_transparency_with_a_wrong_checksum_is_ignored() -> None:
    np.testing.assert_array_equal(pixels(with_png_chunk(b"tRNS", bytes(6), 0)), np.asarray(PHOTO))


def test_large_text_costs_no_picture() -> None:
    packed = b"Comment\0\0" + zlib.compress(bytes(80_000_000))
    for kind in (b"zTXt", b"iCCP"):
        np.testing.assert_array_equal(pixels(with_png_chunk(kind, packed)), np.asarray(PHOTO))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"XMP ", b"ICCP", b"EXIF"]))
def test_no_chunk_of_webp_costs_a_picture(payload: bytes, kind: bytes) -> None:
    if orientation(payload.removeprefix(b"Exif\0\0")) == 1:
        np.testing.assert_array_equal(pixels(with_riff_chunk(kind, payload)), np.asarray(PHOTO))


def test_a_broken_rational_beside_the_orientation_is_no_harm() -> None:
    entries = [(0x0112, 3, 1, 6), (0x011A, 5, 1, 38)]
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
    tiff += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    tiff += bytes(4) + struct.pack("<iI", -1, 0)
    turned = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(pixels(with_png_chunk(b"eXIf", tiff)), turned)
    assert pixels(with_jpeg_segment(0xE1, b"Exif\0\0" + tiff)).shape == turned.shape


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_formats_are_turned_alike(turn: int) -> None:
    def turned(file_format: str, **options: object) -> np.ndarray:
        exif = Image.Exif()
        exif[0x0112] = turn
        return pixels(file_of(PHOTO, file_format, exif=exif, **options)).astype(int)

    expected = turned("PNG")
    for file_format, options in (
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        np.testing.assert_array_equal(turned(file_format, **options), expected, file_format)
    for file_format in ("JPEG", "AVIF"):
        assert np.abs(turned(file_format) - expected).mean() < 12, file_format


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100))
def test_the_orientation_of_any_bytes_is_one_of_eight(data: bytes) -> None:
    assert orientation(data) in range(1, 9)
    assert orientation(b"II*\0" + data) in range(1, 9)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([270, 282, 283, 296, 305, 306, 315, 700, 33723, 34665, 34853, 37724]),
    st.integers(0, 16),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_no_other_tag_of_tiff_costs_a_picture(tag: int, kind: int, count: int, value: int) -> None:
    data = file_of(PHOTO, "TIFF")
    start = struct.unpack_from("<I", data, 4)[0]
    (entries,) = struct.unpack_from("<H", data, start)
    fields = [data[start + 2 + 12 * n :][:12] for n in range(entries)]
    fields = sorted([*fields, struct.pack("<HHII", tag, kind, count, value)])
    directory = struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)
    moved = data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
    np.testing.assert_array_equal(pixels(moved), np.asarray(PHOTO))


@given(st.sampled_from([b"II*\0", b"MM\0*"]), st.binary(max_size=60))
def test_any_tiff_directory_is_read_without_an_error(magic: bytes, rest: bytes) -> None:
    bare_tiff(magic + rest)


@given(st.binary(max_size=80))
def test_any_png_chunks_are_read_without_an_error(rest: bytes) -> None:
    bare_png(b"\x89PNG\r\n\x1a\n" + rest)
