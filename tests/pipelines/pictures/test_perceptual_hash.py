import hashlib
import io

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.pictures.images import small_grey
from pipelines.pictures.perceptual_hash import MAX_DISTANCE, SIDE, bands, perceptual_hash

PHOTO = Image.fromarray(skimage.data.chelsea())
HASHES = st.binary(min_size=32, max_size=32)


def hash_of(image: Image.Image) -> bytes:
    found = perceptual_hash(small_grey(image, SIDE))
    assert found is not None
    return found


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def test_bits_and_their_order_are_those_of_the_definition() -> None:
    grey = small_grey(PHOTO, SIDE)
    position = np.pi * (np.arange(SIDE) + 0.5) / SIDE
    coefficients = {
        (v, h): float(np.cos(v * position) @ grey @ np.cos(h * position))
        for v in range(16)
        for h in range(16)
    }
    median = sorted(coefficients.values())[127]
    lowest = [(v, h) for v in range(8) for h in range(8)]
    others = sorted(coefficients.keys() - set(lowest))
    expected = "".join(str(int(coefficients[key] > median)) for key in lowest + others)
    assert f"{int.from_bytes(hash_of(PHOTO), 'big'):0256b}" == expected


def test_the_hash_of_a_given_picture_is_the_same_everywhere() -> None:
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    hashes = b"".join(
        perceptual_hash(((x * x * k + 3 * y * x + y * y * y // 8) % 256).astype(np.uint8)) or b""
        for k in range(100)
    )
    assert hashlib.sha256(hashes).hexdigest() == (
        "bddf9de929abacdb3ebf5d6635b584ae35cb6a4b0dc251ad804f932648bdf071"
    )


@pytest.mark.parametrize("scale", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("quality", [60, 95])
def test_a_copy_has_nearly_the_hash_of_its_picture(scale: float, quality: int) -> None:
    copy = PHOTO.resize((int(PHOTO.width * scale), int(PHOTO.height * scale)))
    file = io.BytesIO()
    copy.save(file, "JPEG", quality=quality)
    assert distance(hash_of(Image.open(file)), hash_of(PHOTO)) <= MAX_DISTANCE // 2
    assert set(bands(hash_of(copy))) & set(bands(hash_of(PHOTO)))


def test_others_are_far() -> None:
    others = [skimage.data.coffee(), skimage.data.astronaut(), np.asarray(PHOTO)[:, ::-1]]
    for other in others:
        assert distance(hash_of(Image.fromarray(other)), hash_of(PHOTO)) > 4 * MAX_DISTANCE


@pytest.mark.parametrize("contrast", [0.0, 0.01])
def test_a_flat_picture_has_none(contrast: float) -> None:
    grey = (np.asarray(PHOTO.convert("L")) * contrast + 200).astype(np.uint8)
    assert perceptual_hash(small_grey(Image.fromarray(grey), SIDE)) is None


def test_a_gradient_is_flat_and_a_pale_photo_is_not() -> None:
    gradient = Image.linear_gradient("L")
    assert perceptual_hash(small_grey(gradient, SIDE)) is None
    pale = Image.fromarray((np.asarray(PHOTO) * 0.1 + 220).astype(np.uint8))
    assert distance(hash_of(pale), hash_of(PHOTO)) <= MAX_DISTANCE


@given(HASHES, st.sets(st.integers(0, 63), max_size=2), st.sets(st.integers(64, 255)))
def test_two_flips_leave_a_band_whole(phash: bytes, low: set[int], high: set[int]) -> None:
    bits = int.from_bytes(phash, "big")
    for flip in low | high:
        bits ^= 1 << (255 - flip)
    assert set(bands(phash)) & set(bands(bits.to_bytes(32, "big")))


def test_every_one_of_64_bits_is_in_one_band() -> None:
    phash = bytes(range(32))
    assert len(set(bands(phash))) == 3
    for flip in range(256):
        other = (int.from_bytes(phash, "big") ^ 1 << (255 - flip)).to_bytes(32, "big")
        assert len(set(bands(phash)) & set(bands(other))) == (2 if flip < 64 else 3)
