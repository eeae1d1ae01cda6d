import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks.damaged_jpegs import DAMAGES, HARMLESS, is_sound, looks_damaged, seen
from pipelines.dataset.outcome import Outcome
from pipelines.pictures.errors import PictureError
from pipelines.pictures.jpeg import decode_jpeg, read_jpeg

PHOTO = Image.fromarray(skimage.data.chelsea())
KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "as RGB": {"keep_rgb": True},
    "optimized": {"optimize": True},
}


def jpeg_of(image: Image.Image = PHOTO, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def scan_of(data: bytes) -> int:
    return data.index(b"\xff\xda") + 14


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(451, 300), (448, 304), (233, 451)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_are_pillows(kind: str, size: tuple[int, int], mode: str) -> None:
    if mode != "RGB" and kind == "as RGB":
        return
    data = jpeg_of(PHOTO.resize(size).convert(mode), **KINDS[kind])
    pixels = decode_jpeg(read_jpeg(data))
    expected = by_pillow(data).reshape(pixels.shape)
    np.testing.assert_array_equal(255 - pixels if mode == "CMYK" else pixels, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_that_is_seen_is_found(kind: str) -> None:
    rng = random.Random(0)
    data = jpeg_of(**KINDS[kind])
    sound, visible, missed = seen(data), 0, []
    for name, damage in DAMAGES.items():
        for _ in range(5):
            damaged = damage(data, scan_of(data), rng)
            pixels = seen(damaged)
            if pixels is not None and looks_damaged(pixels, sound):
                visible += 1
                missed += [name] * is_sound(damaged)
    assert visible > 25
    # Parts of the scan in each other's place may read like a picture: see docs/dataset.md.
    assert not set(missed) - {"parts swapped", "a hole of zeros"}
    assert missed.count("a hole of zeros") <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_no_row_is_no_damage(kind: str) -> None:
    data = jpeg_of(**KINDS[kind])
    expected = decode_jpeg(read_jpeg(data))
    for name, change in HARMLESS.items():
        changed = change(data, scan_of(data), random.Random(1))
        np.testing.assert_array_equal(decode_jpeg(read_jpeg(changed)), expected, name)


@pytest.mark.slow
def test_no_real_photo_is_lost_and_all_have_pillows_pixels(shared_data: Path) -> None:
    paths = sorted((shared_data / "imagenet" / "photos").glob("*.jpg"))
    assert len(paths) == 500
    for path in paths:
        pixels = decode_jpeg(read_jpeg(path.read_bytes()))
        with Image.open(path) as image:
            assert np.array_equal(pixels, np.asarray(image).reshape(pixels.shape)), path.name


def test_damaged_photos_are_found_and_have_pillows_pixels_where_not(shared_data: Path) -> None:
    rng = random.Random(2)
    for path in sorted((shared_data / "imagenet" / "photos").glob("*.jpg"))[::25]:
        data = path.read_bytes()
        for damage in DAMAGES.values():
            damaged = damage(data, scan_of(data), rng)
            if is_sound(damaged):
                pixels = decode_jpeg(read_jpeg(damaged))
                np.testing.assert_array_equal(pixels, by_pillow(damaged).reshape(pixels.shape))


def test_an_unknown_revision_of_jfif_is_no_harm_and_hides_none() -> None:
    data = jpeg_of()
    at = data.index(b"JFIF\0") + 5
    odd = data[:at] + b"\0\1" + data[at + 2 :]
    np.testing.assert_array_equal(decode_jpeg(read_jpeg(odd)), decode_jpeg(read_jpeg(data)))
    assert not is_sound(odd[: len(odd) // 2])


@pytest.mark.parametrize("marker", [b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\7"])
def test_a_marker_that_says_nothing_known_is_no_harm(marker: bytes) -> None:
    data = jpeg_of()
    assert decode_jpeg(read_jpeg(data[:2] + marker + data[2:])).shape == (300, 451, 3)


def reason_of(data: bytes) -> tuple[Outcome, str | None]:
    with pytest.raises(PictureError) as caught:
        decode_jpeg(read_jpeg(data))
    return caught.value.outcome, caught.value.detail


@pytest.mark.parametrize("length", [3, 4, 20, 100, 600])
def test_a_header_that_is_cut_off_is_corrupt(length: int) -> None:
    assert reason_of(jpeg_of()[:length]) == (Outcome.CORRUPT, "its header is cut off")


@pytest.mark.parametrize(("at", "value"), [(-1, 0xC3), (2, 12), (7, 2)])
def test_kinds_that_viewers_do_not_show_are_unsupported(at: int, value: int) -> None:
    data = bytearray(jpeg_of())
    frame = data.index(b"\xff\xc0") + 2
    data[frame + at] = value
    assert reason_of(bytes(data))[0] is Outcome.UNSUPPORTED_FORMAT


def endless(scans: int) -> bytes:
    """A progressive file whose last scan comes again and again."""
    data = jpeg_of(PHOTO.resize((64, 64)), progressive=True)
    start = data.rindex(b"\xff\xc4") if data.rindex(b"\xff\xc4") > 400 else data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + data[-2:]


def test_a_picture_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    assert reason_of(endless(6000)) == (Outcome.CORRUPT, "it has more than 100 scans")


def test_an_end_marker_in_a_comment_hides_no_scan() -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 4) + b"\xff\xd9"
    data = endless(6000)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    table = (
        data.rindex(b"\xff\xc4", 0, second) if b"\xff\xc4" in data[second - 60 : second] else second
    )
    assert "scans" in str(reason_of(data[:table] + comment + data[table:])[1])


def test_metadata_is_taken_out_and_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = bytes(range(256)) * 400  # more than one segment holds
    data = jpeg_of(exif=exif, icc_profile=profile, comment=b"a comment")
    jpeg = read_jpeg(data)
    assert jpeg.profile == profile
    assert jpeg.exif is not None and jpeg.exif.startswith((b"II", b"MM"))
    assert b"Exif" not in jpeg.bare and b"a comment" not in jpeg.bare
    assert jpeg.size == PHOTO.size
    second = data.index(b"ICC_PROFILE", data.index(b"ICC_PROFILE") + 1)
    assert read_jpeg(data[:second] + b"X" + data[second + 1 :]).profile is None
