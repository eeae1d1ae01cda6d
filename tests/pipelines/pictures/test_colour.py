import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms

from pipelines.dataset.examples import Example, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.pictures.colour import eight_bits, to_rgb
from pipelines.pictures.errors import PictureError
from pipelines.pictures.images import examples_of, opened

PHOTO = Image.fromarray(skimage.data.chelsea()[:120, :160].copy())


def file_of(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def rgb(data: bytes) -> np.ndarray:
    with opened(data) as image:
        return np.asarray(to_rgb(image)).astype(int)


def profile_of(gamma: float, primaries: list[tuple[float, float, float]]) -> bytes:
    """An ICC profile of three colorants (XYZ, D50) and one gamma, as Adobe RGB's is."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    tags = [(b"wtpt", b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1.0, 0.8249))))]
    for name, colour in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags.append((name, b"XYZ \0\0\0\0" + b"".join(map(fixed, colour))))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    tags.append((b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79)))
    tags.append((b"cprt", b"text\0\0\0\0none\0\0\0\0"))
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags:
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    body = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + body


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ADOBE_RGB = profile_of(
    2.2, [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_profile_is_seen_and_srgbs_changes_nothing(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    plain = rgb(file_of(PHOTO, file_format, **options))
    same = rgb(file_of(PHOTO, file_format, icc_profile=SRGB, **options))
    np.testing.assert_array_equal(same, plain)
    wide = rgb(file_of(PHOTO, file_format, icc_profile=ADOBE_RGB, **options))
    assert np.ptp(wide, axis=2).mean() > 1.1 * np.ptp(plain, axis=2).mean()
    assert np.abs(np.diagonal(wide - plain, axis1=0, axis2=1)).mean() < 40


def test_green_of_adobe_rgb_is_beyond_srgbs() -> None:
    grey_and_green = Image.new("RGB", (2, 1), (128, 128, 128))
    grey_and_green.putpixel((1, 0), (100, 200, 100))
    grey, green = rgb(file_of(grey_and_green, icc_profile=ADOBE_RGB))[0]
    assert np.abs(grey - 128).max() <= 2  # both have a gamma of about 2.2
    assert green[0] < 30 and abs(green[1] - 201) <= 3


@pytest.mark.parametrize("profile", [b"broken", ADOBE_RGB[:200], bytes(5_000_000)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_broken_or_huge_profile_is_ignored(file_format: str, profile: bytes) -> None:
    if file_format == "JPEG" and len(profile) > 4_000_000:
        profile = profile[:4_300_000]
    data = file_of(PHOTO, file_format, icc_profile=profile)
    np.testing.assert_array_equal(rgb(data), rgb(file_of(PHOTO, file_format)))


def test_a_profile_of_another_colour_space_is_ignored() -> None:
    data = file_of(PHOTO.convert("L"), icc_profile=ADOBE_RGB)
    np.testing.assert_array_equal(rgb(data)[..., 0], np.asarray(PHOTO.convert("L")))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_examples_have_the_colours_of_the_profile(file_format: str) -> None:
    """A JPEG's crop is converted apart from the picture, to the same pixels."""
    options = DatasetOptions(crop_size=96, crop_margin=0)

    def hr(**profile: object) -> tuple[np.ndarray, Example]:
        data = file_of(PHOTO, file_format, **profile)
        (example,) = examples_of(Original("n1", "http://a.com", "00" * 32, data), options)[2]
        return rgb(data), example

    whole, example = hr(icc_profile=ADOBE_RGB)
    x, y, width, height = dataclasses.astuple(example.crop)
    with Image.open(io.BytesIO(example.hr)) as image:
        np.testing.assert_array_equal(np.asarray(image), whole[y : y + height, x : x + width])
    assert example.hr != hr()[1].hr


def test_gamma_is_as_browsers_have_it() -> None:
    def with_gamma(*chunks: tuple[bytes, bytes]) -> np.ndarray:
        data = file_of(PHOTO)
        added = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        return rgb(data[:33] + added + data[33:])

    linear = struct.pack(">I", 100_000)
    plain = np.asarray(PHOTO).astype(int)
    assert (with_gamma((b"gAMA", linear)) - plain).mean() > 30
    for chunks in (
        [(b"gAMA", struct.pack(">I", 45_455))],
        [(b"gAMA", struct.pack(">I", 0))],
        [(b"gAMA", linear), (b"sRGB", b"\0")],
    ):
        np.testing.assert_array_equal(with_gamma(*chunks), plain)


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    for file_format in ("PNG", "TIFF"):
        grey = rgb(file_of(Image.fromarray(ramp), file_format))[..., 0]
        np.testing.assert_array_equal(grey, np.round(ramp / 65535 * 255))


@pytest.mark.parametrize(
    ("most", "kind"), [(255, np.int32), (65535, np.int32), (1.0, np.float32), (255.0, np.float32)]
)
def test_wide_samples_are_shown_in_the_range_that_they_fill(most: float, kind: type) -> None:
    ramp = (np.arange(256).reshape(16, 16) / 255 * most).astype(kind)
    grey = rgb(file_of(Image.fromarray(ramp), "TIFF"))[..., 0]
    assert np.abs(grey - np.arange(256).reshape(16, 16)).max() <= 1


@pytest.mark.parametrize(
    "samples",
    [
        np.full((4, 4), -1, np.int32),
        np.full((4, 4), 1 << 20, np.int32),
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), np.inf, np.float32),
        np.full((4, 4), 200, np.uint16),  # all but black as 16 bits
        np.full((4, 4), 4095, np.uint16),  # of 12 bits
        np.eye(4, dtype=np.int32),  # a mask
        np.full((4, 4), 1.3, np.float32),
        np.full((4, 4), -0.5, np.float32),
    ],
)
def test_samples_without_a_known_white_are_unsupported(samples: np.ndarray) -> None:
    data = file_of(Image.fromarray(samples), "TIFF")
    with opened(data) as image, pytest.raises(PictureError) as caught:
        eight_bits(image)
    assert caught.value.outcome is Outcome.UNSUPPORTED_FORMAT


def test_a_little_more_than_white_is_white() -> None:
    samples = np.array([[-0.02, 0.5, 1.0, 1.03]], np.float32)
    assert rgb(file_of(Image.fromarray(samples), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 255]


def test_the_range_is_the_whole_pictures_not_the_crops() -> None:
    ramp = np.zeros((120, 160), np.int32)
    ramp[:60] = 250
    ramp[0, 0] = 65535
    data = file_of(Image.fromarray(ramp), "TIFF")
    options = DatasetOptions(crop_size=60, crop_margin=0.2)
    (example,) = examples_of(Original("n1", "http://a.com", "00" * 32, data), options)[2]
    with Image.open(io.BytesIO(example.hr)) as image:
        assert np.asarray(image).max() <= 1


def test_transparent_parts_are_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (255, 0, 0, 51))
    assert rgb(file_of(half)).tolist() == [[[255, 0, 0], [255, 204, 204]]]
    assert rgb(file_of(half, icc_profile=ADOBE_RGB))[0, 1].tolist() == [255, 204, 204]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for file_format in ("PNG", "GIF"):
        data = file_of(palette, file_format, transparency=1)
        assert rgb(data).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    grey = file_of(Image.new("L", (1, 1), 7), transparency=7)
    assert rgb(grey).tolist() == [[[255, 255, 255]]]


def test_cmyk_becomes_the_colour_that_it_means() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(rgb(file_of(cmyk, "JPEG"))[8, 8] - [255, 0, 0]).max() < 8


def test_cmyk_is_seen_through_its_profile(shared_data: Path) -> None:
    data = (shared_data / "bad-images" / "cmyk_adobe_500x333.jpg").read_bytes()
    with opened(data) as image:
        profile = image.info.pop("icc_profile")
        plain = to_rgb(image)
        image.info["icc_profile"] = profile[:1000]
        broken = to_rgb(image)
        image.info["icc_profile"] = profile
        seen = to_rgb(image)
    assert broken.tobytes() == plain.tobytes()
    # SWOP inks are darker and less pure than those of the plain formula.
    saturated = [
        np.ptp(np.asarray(picture).astype(int), axis=2).mean() for picture in (seen, plain)
    ]
    assert saturated[0] < 0.8 * saturated[1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    file_format = "TIFF" if mode in ("CMYK", "LAB") else "PNG"
    with opened(file_of(Image.new(mode, (9, 9)), file_format)) as image:
        assert to_rgb(image).mode == "RGB"
