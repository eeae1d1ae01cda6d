import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from PIL import Image

from pipelines.pictures import pixels
from pipelines.pictures.pixels import bicubic, blur, grey_square, grey_square_of
from pipelines.pictures.resampling import pillow_bicubic_taps

PHOTO = Image.fromarray(skimage.data.chelsea())
SIDES = st.integers(1, 90)
PIXELS = st.sampled_from([0, 1, 7, 8, 127, 128, 254, 255])


@given(hnp.arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3)), elements=PIXELS), SIDES)
def test_grey_is_pillows_to_the_bit(array: np.ndarray, side: int) -> None:
    pillows = grey_square_of(Image.fromarray(array), side)
    np.testing.assert_array_equal(grey_square(array, side), pillows)


@pytest.mark.parametrize(
    "size", [(451, 300), (64, 1000), (1999, 2000), (64, 128), (1, 90), (1, 127), (700, 1)]
)
def test_of_a_photo_too(size: tuple[int, int]) -> None:
    photo = PHOTO.resize(size)
    np.testing.assert_array_equal(grey_square(np.asarray(photo), 64), grey_square_of(photo, 64))


@pytest.mark.parametrize("size", [(8, 1000), (1000, 8), (10, 1000), (200, 200)])
def test_bicubic_is_pillows_to_the_bit(size: tuple[int, int]) -> None:
    photo = PHOTO.resize(size)
    sizes = [(size[0] // scale, size[1] // scale) for scale in (2, 3, 4)]
    for ours, small in zip(bicubic(np.asarray(photo), sizes), sizes, strict=True):
        pillows = photo.resize(small, Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(ours, np.asarray(pillows))


@given(hnp.arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3)), elements=PIXELS), SIDES, SIDES)
def test_to_every_size(array: np.ndarray, width: int, height: int) -> None:
    (ours,) = bicubic(array, [(width, height)])
    pillows = Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(ours, np.asarray(pillows))


def test_without_the_c_module_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pixels._pixels, "the C module was not built: is there a C compiler?"
    photo = np.asarray(PHOTO)[:, 5:-5]  # which does not lie in one piece

    def results() -> list[np.ndarray]:
        small, smaller = bicubic(photo, [(97, 41), (31, 63)])
        return [small, smaller, blur(small), grey_square(photo, 64)]

    fast = results()
    monkeypatch.setattr(pixels, "_pixels", None)
    for ours, pillows in zip(fast, results(), strict=True):
        np.testing.assert_array_equal(ours, pillows)


def test_the_c_module_refuses_a_picture_of_another_size() -> None:
    taps = pillow_bicubic_taps(8, 4, 8)
    with pytest.raises(ValueError, match="the picture is not"):
        pixels._pixels.resize(bytes(8 * 8 * 4), 8, 8, ((taps, taps),))
    with pytest.raises(TypeError):
        pixels._pixels.resize(bytes(8 * 8 * 3), 8, 8, ((taps, taps), (taps, None)))
    with pytest.raises(ValueError, match="the picture is not"):
        pixels._pixels.blur(bytes(8 * 8 * 4), 8, 8)
    with pytest.raises(ValueError, match="the picture is not"):
        pixels._pixels.grey(bytes(8 * 8 * 4), 8, 8, 2, 2)
