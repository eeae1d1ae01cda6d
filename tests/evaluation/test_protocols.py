import numpy as np
import pytest
from PIL import Image, ImageFilter

from evaluation.metrics import psnr_db, shave, ssim
from evaluation.pictures import Picture, folder_pictures
from evaluation.protocols import PROTOCOLS
from pipelines.pictures.resampling import matlab_bicubic_matrix, resize

SCALES = (2, 3, 4)


@pytest.fixture
def picture(photos):
    return Picture("coffee", np.asarray(photos["coffee"]))


def with_lr(picture, scale, lr):
    return Picture(picture.name, picture.hr, {scale: lr})


def test_article_takes_lr_as_stored_and_pillows_bicubic(picture):
    lr = np.asarray(Image.fromarray(picture.hr).resize((32, 32)).rotate(90))
    sample = PROTOCOLS["article"].sample(with_lr(picture, 3, lr), 3)
    expected = Image.fromarray(lr).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.array_equal(sample.bicubic(), np.asarray(expected))
    assert np.array_equal(sample.reference, picture.hr)


def test_article_makes_lr_of_a_folders_picture(picture):
    small = Image.fromarray(picture.hr).resize((32, 32), Image.Resampling.BICUBIC)
    expected = np.asarray(small.filter(ImageFilter.BLUR))
    assert np.array_equal(PROTOCOLS["article"].sample(picture, 3).lr, expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", ["rgb", "y"])
def test_article_gives_networks_the_baseline_but_for_rounding(picture, scale, channels):
    sample = PROTOCOLS["article"].sample(picture, scale)
    given = sample.network_input(channels)
    assert given.dtype == np.float32
    assert given.shape == (96, 96, 3 if channels == "rgb" else 1)
    assert given.min() >= 0 and given.max() <= 1
    result = sample.result(given, channels)
    assert psnr_db(result, sample.bicubic()) > 50


def test_article_takes_the_colour_of_a_y_network_from_bicubic(picture):
    sample = PROTOCOLS["article"].sample(picture, 2)
    brighter = sample.result(sample.network_input("y") + np.float32(219 / 255 * 10 / 255), "y")
    change = brighter.astype(int) - sample.result(sample.network_input("y"), "y")
    inside = (brighter < 255).all(axis=-1)
    assert set(np.unique(change[inside])) <= {9, 10, 11}
    assert change[inside].mean() == pytest.approx(10, abs=0.05)


def test_results_are_clipped_not_wrapped_around(picture):
    for name, black, white in (("article", 0, 255), ("paper", 0, 255), ("paper-rgb", 16, 235)):
        sample = PROTOCOLS[name].sample(picture, 2)
        channels = "y" if name == "paper" else "rgb"
        bright = np.full((96, 96, len(channels)), 1.5, np.float32)
        np.testing.assert_allclose(sample.result(bright, channels), white)
        np.testing.assert_allclose(sample.result(-bright, channels), black)


def test_paper_rgb_makes_lr_as_matlab_of_a_picture_in_8_bits(picture):
    """Rounded after each direction, rows first; Y networks get it unrounded."""
    sample = PROTOCOLS["paper-rgb"].sample(picture, 2)
    matrix = matlab_bicubic_matrix(96, 48)
    rows = np.clip(np.floor(np.tensordot(matrix, sample.rgb / 1.0, 1) + 0.5), 0, 255)
    lr = np.clip(np.floor(np.einsum("xw,ywc->yxc", matrix, rows) + 0.5), 0, 255)
    np.testing.assert_array_equal(sample.lr, lr)
    np.testing.assert_allclose(sample.network_input("rgb", "lr") * 255, lr, atol=1e-4)
    exact = np.einsum("yh,xw,hwc->yxc", matrix, matrix, sample.rgb / 1.0)
    y = exact @ [65.481 / 255, 128.553 / 255, 24.966 / 255] + 16
    np.testing.assert_allclose(sample.network_input("y", "lr")[..., 0] * 255, y, atol=1e-3)


def test_paper_crops_to_a_multiple_of_the_scale(photos):
    picture = Picture("odd", np.asarray(photos["coffee"])[:95, :94])
    for scale, size in ((2, (94, 94)), (3, (93, 93)), (4, (92, 92))):
        sample = PROTOCOLS["paper"].sample(picture, scale)
        assert sample.reference.shape == sample.bicubic().shape == size
        assert sample.network_input("y").shape == (*size, 1)
        assert sample.in_colour(sample.bicubic()).shape == (*size, 3)


def test_paper_rounds_y_first_and_lr_never(picture):
    sample = PROTOCOLS["paper"].sample(picture, 2)
    y = np.floor(16.5 + picture.hr @ np.array([65.481, 128.553, 24.966]) / 255)
    assert np.array_equal(sample.reference, y)
    lr = resize(y, 48, 48, matlab_bicubic_matrix)
    upscaled = resize(lr, 96, 96, matlab_bicubic_matrix)
    assert np.allclose(sample.network_input("y")[..., 0], upscaled / 255, atol=1e-6)


def test_a_grey_picture_is_its_own_y():
    grey = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    assert np.array_equal(PROTOCOLS["paper"].sample(Picture("g", grey), 2).reference, grey)
    assert PROTOCOLS["article"].sample(Picture("g", grey), 2).reference.shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("set5", (33.66, 30.39, 28.42)),
        pytest.param("set14", (30.23, 27.54, 26.00), marks=pytest.mark.slow),
        pytest.param("bsd100", (29.56, 27.21, 25.96), marks=pytest.mark.slow),
    ],
)
def test_bicubic_has_the_published_psnr(shared_data, name, published):
    pictures = list(folder_pictures(str(shared_data / "benchmarks" / name)))
    for scale, expected in zip(SCALES, published, strict=True):
        samples = [PROTOCOLS["paper"].sample(picture, scale) for picture in pictures]
        values = [
            psnr_db(shave(sample.reference, scale), shave(sample.bicubic(), scale))
            for sample in samples
        ]
        assert np.mean(values) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_bicubic_has_the_published_ssim(shared_data):
    pictures = list(folder_pictures(str(shared_data / "benchmarks" / "set5")))
    for scale, expected in zip(SCALES, (0.9299, 0.8682, 0.8104), strict=True):
        samples = [PROTOCOLS["paper"].sample(picture, scale) for picture in pictures]
        values = [
            ssim(shave(sample.reference, scale), shave(sample.bicubic(), scale))
            for sample in samples
        ]
        assert np.mean(values) == pytest.approx(expected, abs=0.0002)
