import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.dataset.outcome import Outcome
from pipelines.pictures.errors import PictureError
from pipelines.pictures.formats import format_of, may_be_picture


def file_of(file_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, file_format)
    return file.getvalue()


def brands(major: bytes, *compatible: bytes) -> bytes:
    rest = b"ftyp" + major + b"\0\0\0\0" + b"".join(compatible)
    return (len(rest) + 4).to_bytes(4, "big") + rest


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_a_format_is_known_by_its_bytes(name: str) -> None:
    assert format_of(file_of(name)) == name
    assert may_be_picture(file_of(name)[:1024])


@pytest.mark.parametrize(
    "data",
    [
        *(file_of(name) for name in ("ICO", "JPEG2000", "EPS", "PPM", "TGA", "SGI", "DDS")),
        b"8BPS\0\1",
        b"P3\n# a comment\n# another\n2 2\n255\n",
        b"P7\nWIDTH 2\n",
        b"Pf\n3 2\n",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\xff\x0a\xfa\x1f",
        b"II*\0\x10\0\0\0CR\x02\0",
        *(brands(brand) for brand in (b"heic", b"heix", b"hevc", b"msf1", b"crx ")),
        brands(b"mif1", b"heic", b"miaf"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<!DOCTYPE svg PUBLIC ''>\n<svg:svg>",
    ],
)
def test_other_pictures_are_unsupported(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        format_of(data)
    assert caught.value.outcome is Outcome.UNSUPPORTED_FORMAT
    assert may_be_picture(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body><svg width='10'></svg>",
        b"<!DOCTYPE html><svg>",
        b"BMW and other cars: a page of text that goes on",
        b"BM",
        b"P5 is a postcode",
        b"RIFF\0\0\0\0AVI LIST",
        brands(b"isom", b"iso2", b"mp41"),
        brands(b"qt  "),
        b"\0" * 40,
        b"{'json': 1}",
    ],
)
def test_what_is_no_picture_is_told_so(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        format_of(data)
    assert caught.value.outcome is Outcome.NOT_AN_IMAGE
    assert not may_be_picture(data)


@pytest.mark.parametrize("data", [brands(b"avif"), brands(b"mif1", b"avif"), brands(b"avis")])
def test_avif_is_known_by_any_of_its_brands(data: bytes) -> None:
    assert format_of(data) == "AVIF"


@given(st.sampled_from([b"<?a?>", b"<!---->", b"#\n", b" ", b"P1 ", b"#a "]), st.integers(1, 400))
def test_no_bytes_take_long(part: bytes, times: int) -> None:
    """A pattern that tries all ways to split them would not end."""
    may_be_picture(part * times)
    may_be_picture(b"P1 " + part * times)
