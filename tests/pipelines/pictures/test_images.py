import csv
import hashlib
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.dataset.examples import Crop, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.pictures import images
from pipelines.pictures.images import (
    MAX_PIXELS,
    PictureError,
    crop_boxes,
    detail,
    examples_of,
    opened,
    png,
    size_of,
    small_grey,
    to_rgb,
)
from pipelines.pictures.perceptual_hash import SIDE, perceptual_hash

SHA256 = "00" * 32


PHOTO = Image.fromarray(skimage.data.chelsea())
BAD_IMAGES = {
    **dict.fromkeys(
        ["flickr_unavailable_2051.png", "flickr_unavailable_9218.gif"], Outcome.PLACEHOLDER
    ),
    "flickr_unavailable_saved_as.jpg": Outcome.PLACEHOLDER,
    **dict.fromkeys(
        ["html_saved_as_2_51bytes.jpg", *(f"html_saved_as_{n}.jpg" for n in (1, 3, 4, 5, 6))],
        Outcome.NOT_AN_IMAGE,
    ),
    "random_bytes.bin": Outcome.NOT_AN_IMAGE,
    **dict.fromkeys(
        [
            "truncated_2725x2225.jpg",
            "truncated_1024x1024.jpg",
            "truncated_1024x1024.png",
            "truncated_640x480.png",
            "corrupt_header.jpg",
            "bad_exif.jpg",  # of stripes, by wrong restart markers
            "broken_data_stream.png",
            "broken.png",
        ],
        Outcome.CORRUPT,
    ),
    **dict.fromkeys(
        ["giant_20000x14000.jpg", "bomb_65536x65536.png", "bomb.gif"], Outcome.TOO_MANY_PIXELS
    ),
}
GOOD_IMAGES = {
    "truncated_100x100.jpg": (100, 100),  # all but its end marker is there
    "junk_before_soi.jpg": (1024, 768),
    "cmyk_adobe_500x333.jpg": (500, 333),
    "cmyk_noprofile_500x333.jpg": (500, 333),
    "cmyk_100x100.jpg": (100, 100),
    "gray.jpg": (128, 128),
    "png16_rgb_900x600.png": (900, 600),
    "png16_gray_alpha.png": (109, 96),
    "palette_alpha_900x600.png": (900, 600),
    "palette_trns.png": (64, 64),
    "gray_alpha_400x300.png": (400, 300),
    "rgba_full_transparent.png": (300, 300),
    "animated_31f_320x240.gif": (320, 240),
    "animated_10f_370x285.gif": (370, 285),
    "apng.png": (128, 64),
    "animated.webp": (370, 285),
    "mpo.mpo": (640, 480),
    **{f"exif_orientation_{n}_landscape.jpg": (1800, 1200) for n in (1, 3, 6, 8)},
}


def original(data: bytes) -> Original:
    return Original("n01440764_1", "http://a.com/1.jpg", SHA256, data)


def file_of(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def rgb(data: bytes) -> Image.Image:
    with opened(data) as image:
        return to_rgb(image)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def outcome_of(data: bytes) -> Outcome:
    with pytest.raises(PictureError) as caught, opened(data) as image:
        to_rgb(image)
    return caught.value.outcome


def test_every_bad_image_has_its_outcome_or_its_picture(shared_data: Path) -> None:
    folder = shared_data / "bad-images"
    with (folder / "MANIFEST.csv").open() as file:
        names = {row["file"] for row in csv.DictReader(file)}
    assert names == BAD_IMAGES.keys() | GOOD_IMAGES.keys()
    for name, outcome in BAD_IMAGES.items():
        assert outcome_of((folder / name).read_bytes()) is outcome, name
    for name, size in GOOD_IMAGES.items():
        image = rgb((folder / name).read_bytes())
        assert (image.mode, image.size) == ("RGB", size), name


def test_bombs_are_refused_before_they_are_decoded(shared_data: Path) -> None:
    import tracemalloc

    data = (shared_data / "bad-images" / "bomb_65536x65536.png").read_bytes()
    tracemalloc.start()
    assert outcome_of(data) is Outcome.TOO_MANY_PIXELS
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_rotated_files_give_the_same_upright_picture(shared_data: Path) -> None:
    folder = shared_data / "bad-images"
    first, *others = (
        pixels(rgb((folder / f"exif_orientation_{n}_landscape.jpg").read_bytes()).resize((90, 60)))
        for n in (1, 3, 6, 8)
    )
    for other in others:
        assert np.abs(first - other).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_exactly(orientation: int) -> None:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = PHOTO if turn is None else PHOTO.transpose(turn)
    assert rgb(file_of(stored, exif=exif)).tobytes() == PHOTO.tobytes()


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = file_of(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert pixels(rgb(data))[4, 4, 0] > 250


def test_the_pixel_limit_is_an_option() -> None:
    image = original(file_of(Image.new("RGB", (50, 40))))
    options = DatasetOptions(crop_size=24, crop_margin=0, max_pixels=2_000)
    examples_of(image, options)
    with pytest.raises(PictureError, match="2,000 of at most 1,999") as caught:
        examples_of(image, replace(options, max_pixels=1_999))
    assert caught.value.outcome is Outcome.TOO_MANY_PIXELS


def test_the_pixel_limit_is_inclusive() -> None:
    side = int(MAX_PIXELS**0.5)
    data = file_of(Image.new("1", (side + 1, side + 1)))
    assert outcome_of(data) is Outcome.TOO_MANY_PIXELS


SMALL_FILES = [
    file_of(Image.new(mode, (8, 8)), file_format)
    for mode, file_format in [
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("P", "GIF"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
    ]
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SMALL_FILES),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_broken_bytes_raise_only_picture_error(
    data: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    broken = bytearray(data)
    for position, value in changes:
        broken[position % len(broken)] = value
    options = DatasetOptions(crop_size=4, crop_margin=0)
    try:
        examples_of(original(bytes(broken[:length] if length < 100 else broken)), options)
    except PictureError as error:
        assert error.outcome in Outcome


@given(
    st.tuples(st.integers(200, 3000), st.integers(200, 3000)),
    st.binary(max_size=8),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.1, 0.3]),
)
def test_crops_lie_inside_the_margins(
    size: tuple[int, int], content: bytes, count: int, margin: float
) -> None:
    options = DatasetOptions(crops_per_image=count, crop_margin=margin)
    sha256 = hashlib.sha256(content).hexdigest()
    left, top = (int(side * margin) for side in size)
    if min(size[0] - 2 * left, size[1] - 2 * top) < 200:
        with pytest.raises(PictureError, match="holds no 200x200"):
            crop_boxes(size, sha256, options)
        return
    crops = crop_boxes(size, sha256, options)
    assert 1 <= len(crops) <= count
    assert crops == sorted(set(crops)) == crop_boxes(size, sha256, options)
    for crop in crops:
        assert (crop.width, crop.height) == (200, 200)
        assert left <= crop.x <= size[0] - left - 200
        assert top <= crop.y <= size[1] - top - 200


def test_crops_depend_on_content_and_seed_and_cover_the_picture() -> None:
    size = (1000, 800)

    def first(sha256: str, seed: int = 0) -> Crop:
        return crop_boxes(size, sha256, DatasetOptions(seed=seed))[0]

    crops = [first(hashlib.sha256(bytes([n])).hexdigest()) for n in range(200)]
    assert first(SHA256) != first(SHA256, seed=1)
    assert min(crop.x for crop in crops) < 130
    assert max(crop.x for crop in crops) > 670
    assert min(crop.y for crop in crops) < 110
    assert max(crop.y for crop in crops) > 490


def most_shared(crops: list[Crop]) -> float:
    """The largest part of a crop that another one has as well."""
    parts = [0.0]
    for one, other in itertools.combinations(crops, 2):
        width, height = max(0, 200 - abs(one.x - other.x)), max(0, 200 - abs(one.y - other.y))
        parts.append(width * height / 200**2)
    return max(parts)


@pytest.mark.parametrize("count", [5, 20, 40])
def test_crops_of_a_large_picture_share_no_more_than_half(count: int) -> None:
    size = (2040, 1356)
    for number in range(5):
        sha256 = hashlib.sha256(bytes([number])).hexdigest()
        crops = crop_boxes(size, sha256, DatasetOptions(crops_per_image=count))
        assert len(crops) == count
        assert most_shared(crops) <= 0.5
        (alone,) = crop_boxes(size, sha256, DatasetOptions())
        assert alone in crops


def test_where_there_is_no_room_crops_share_more() -> None:
    assert len(crop_boxes((300, 300), SHA256, DatasetOptions(crops_per_image=9))) > 4


@pytest.mark.parametrize("size", [(2040, 1356), (250, 250), (1000, 251)])
def test_all_is_a_grid_side_by_side_in_the_middle(size: tuple[int, int]) -> None:
    crops = crop_boxes(size, SHA256, DatasetOptions(crops_per_image="all"))
    across, down = ((side - 2 * int(side * 0.1)) // 200 for side in size)
    assert len(crops) == across * down
    assert most_shared(crops) == 0
    for place, side in ((0, size[0]), (1, size[1])):
        starts = [(crop.x, crop.y)[place] for crop in crops]
        assert abs(min(starts) - (side - max(starts) - 200)) <= 1


def test_flat_crops_are_left_out() -> None:
    half = np.asarray(PHOTO.resize((600, 400))).copy()
    half[:, :300] = 90
    data = file_of(Image.fromarray(half))
    options = DatasetOptions(crop_size=100, crops_per_image="all", crop_margin=0, min_detail=1)
    found = [example.crop for example in examples_of(original(data), options)[2]]
    assert {crop.x for crop in found} == {300, 400, 500}
    assert all(detail(half[c.y : c.y + 100, c.x : c.x + 100]) >= 1 for c in found)
    with pytest.raises(PictureError, match="none of 4 crops has 1") as caught:
        examples_of(original(file_of(Image.new("RGB", (200, 200), "red"))), options)
    assert caught.value.outcome is Outcome.TOO_FLAT


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "AVIF"])
def test_the_size_is_read_without_the_pixels(name: str) -> None:
    data = file_of(PHOTO, name)
    assert size_of(data) == PHOTO.size
    if name in ("PNG", "GIF", "BMP"):  # of the others the end counts too
        assert size_of(data[: len(data) // 2]) == PHOTO.size
    for begin in (b"", data[:10], b"<html>"):
        with pytest.raises(PictureError):
            size_of(begin)


def test_a_size_that_is_too_large_is_refused_by_the_header(shared_data: Path) -> None:
    for name in ("giant_20000x14000.jpg", "bomb_65536x65536.png"):
        with pytest.raises(PictureError) as caught:
            size_of((shared_data / "bad-images" / name).read_bytes())
        assert caught.value.outcome == Outcome.TOO_MANY_PIXELS


def test_too_small_names_size_and_measures() -> None:
    with pytest.raises(PictureError, match="240x300 without margins") as caught:
        crop_boxes((240, 300), SHA256, DatasetOptions())
    assert (caught.value.outcome, caught.value.size) == (Outcome.TOO_SMALL, (240, 300))
    assert crop_boxes((250, 250), SHA256, DatasetOptions()) == [Crop(25, 25, 200, 200)]


def test_examples_are_cut_from_the_picture() -> None:
    options = DatasetOptions(crop_size=96, crops_per_image=2)
    size, _, examples = examples_of(original(file_of(PHOTO)), options)
    assert size == PHOTO.size
    assert len(examples) == 2
    for example in examples:
        crop = example.crop
        box = (crop.x, crop.y, crop.x + 96, crop.y + 96)
        assert rgb(example.hr).tobytes() == PHOTO.crop(box).tobytes()
        assert {scale: rgb(data).size for scale, data in example.lr.items()} == {
            2: (48, 48),
            3: (32, 32),
            4: (24, 24),
        }
        assert (example.image_id, example.url, example.sha256) == (
            "n01440764_1",
            "http://a.com/1.jpg",
            SHA256,
        )


def modes_of(photo: Image.Image) -> dict[str, Image.Image]:
    """A photo as every mode that files have can hold it."""
    grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    plain = ("1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr")
    return {"I;16": grey16, "I": grey16.convert("I")} | {m: photo.convert(m) for m in plain}


@pytest.mark.parametrize("mode", sorted(modes_of(PHOTO)))
def test_the_small_grey_picture_is_the_same_in_every_mode(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def difference() -> float:
        small = small_grey(modes_of(PHOTO)[mode], 64).astype(np.float64)
        return float(np.abs(small - small_grey(PHOTO, 64)).mean())

    black_or_white = mode == "1"
    assert difference() < (5 if black_or_white else 1.5)
    monkeypatch.setattr(images, "_CONVERTED_PIXELS", 10_000)  # a fifteenth of the photo's
    assert difference() < (50 if black_or_white else 8)


def test_what_is_transparent_is_white_in_the_small_grey_picture() -> None:
    clear = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    keyed = Image.new("L", (300, 200), 7)
    keyed.info["transparency"] = 7
    for image in (clear, keyed):
        assert small_grey(image, 32).min() == 255


def test_examples_come_with_the_hash_of_the_upright_picture() -> None:
    options = DatasetOptions(crop_size=96)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    PHOTO.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=95, exif=exif)
    _, turned, _ = examples_of(original(file.getvalue()), options)
    _, upright, _ = examples_of(original(file_of(PHOTO)), options)
    assert turned is not None and upright is not None
    assert upright == perceptual_hash(small_grey(PHOTO, SIDE))
    bits = int.from_bytes(turned, "big") ^ int.from_bytes(upright, "big")
    assert bits.bit_count() <= 4
    _, flat, _ = examples_of(original(file_of(Image.new("RGB", (200, 200), "red"))), options)
    assert flat is None


def test_png_files_are_lossless_and_tensorflow_reads_them() -> None:
    import tensorflow as tf

    data = png(np.asarray(PHOTO))
    assert rgb(data).tobytes() == PHOTO.tobytes()
    assert np.array_equal(tf.io.decode_png(data).numpy(), np.asarray(PHOTO))
