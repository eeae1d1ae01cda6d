import numpy as np
import pytest
from PIL import Image

from evaluation import Model, evaluate, load_model, psnr, ssim
from evaluation.upscale import main as upscale_main
from pipelines.command.cli import UsageError


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("srcnn-915")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def test_upscales_as_the_command_does(model, image, tmp_path):
    source, result = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(image).save(source)
    upscale_main([str(source), str(result), "--model", "srcnn-915", "--scale", "3"])
    enlarged = model.upscale(image, scale=3)
    assert enlarged.shape == (63, 102, 3)
    assert np.array_equal(enlarged, np.asarray(Image.open(result)))


def test_grey_stays_grey_and_16_bits_16(model, image):
    assert model.upscale(image[..., 0]).shape == (42, 68)
    deep = model.upscale(image.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - model.upscale(image)).max() <= 0.51


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros(8)])
def test_an_array_that_is_no_picture_is_refused(model, wrong):
    with pytest.raises(ValueError, match="a picture is uint8 or uint16"):
        model.upscale(wrong)


def test_a_scale_not_trained_for_is_refused(model, image):
    with pytest.raises(UsageError, match="srcnn-915 was trained for x2, x3, x4, not x8"):
        model.upscale(image, scale=8)
    with pytest.raises(UsageError, match="not x8"):
        evaluate(model, [image], scale=8)


def test_a_network_of_rgb_is_not_scored_by_paper(image):
    network = load_model("srcnn-article")
    with pytest.raises(UsageError, match=r"srcnn-article makes RGB, but protocol paper"):
        evaluate(network, [image])
    assert evaluate(network, [image[:20, :20]], protocol="paper-rgb").psnr_db > 0


def test_self_ensemble_is_the_mean_over_flips_and_turns(model, image):
    mean = load_model("srcnn-915", self_ensemble=True)
    assert mean.name == "srcnn-915+"
    turned = mean.upscale(np.ascontiguousarray(image[:, ::-1]))
    assert np.abs(turned[:, ::-1].astype(int) - mean.upscale(image)).max() <= 1
    assert np.abs(model.upscale(image).astype(int) - mean.upscale(image)).max() > 1


def test_evaluate_gives_the_published_figures(shared_data):
    paths = sorted((shared_data / "benchmarks" / "set5").iterdir())
    scores = evaluate(
        load_model("bicubic"), [np.array(Image.open(path)) for path in paths], scale=2
    )
    assert scores.psnr_db == pytest.approx(33.66, abs=0.005)
    assert scores.ssim == pytest.approx(0.9299, abs=0.0002)


def test_psnr_and_ssim(image):
    assert psnr(image, image) == float("inf")
    assert psnr(image, image ^ 1) == pytest.approx(48.13, abs=0.01)
    assert ssim(image, image) == 1
