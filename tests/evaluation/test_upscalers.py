from functools import partial

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import folder_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.rows import evaluate
from evaluation.tiles import bands, in_tiles
from evaluation.upscalers import Bicubic, Network, load_network, load_upscalers
from pipelines.command.cli import UsageError
from trainer.models import NETWORKS
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr
from trainer.trained import load_model
from trainer.weights_file import write_weights


@pytest.fixture(scope="module", params=NETWORKS)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "some.npz"
    network = NETWORKS[request.param]()
    weights = network.initial_weights(np.random.default_rng(0))
    path.write_bytes(write_weights(network, weights, network.scales))
    return load_model(str(path))


def images_for(model):
    shape = (2, 61, 40, model.network.channels)
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("white", [255, 65535])
def test_tiles_of_lr_change_no_pixel(model, scale, white):
    if scale not in (model.scales or [scale]):
        return
    network = Network(model)
    lr = np.random.default_rng(1).integers(0, white + 1, (41, 53, 3))
    lr = lr.astype(np.uint8 if white == 255 else np.uint16)
    enlarge = partial(network.enlarge, white=white, scale=scale)
    tiles = bands(enlarge, lr, network.lr_reach_px(scale), scale, tile_px=19)
    # What is left is the order of float32 additions.
    error = np.abs(np.concatenate([*tiles]).astype(int) - enlarge(lr))
    assert error.max() <= 1
    assert np.count_nonzero(error) <= error.size * white * 1e-6


def tiled(model, images, reach_px):
    scale = (model.scales or (3,))[-1]
    network = partial(model, scale=scale)
    whole, ratio = network(images), model.network.ratio(scale)
    return in_tiles(network, images, reach_px, ratio, tile_px=24), whole


@pytest.mark.slow
def test_tiles_change_no_pixel(model):
    tiles, whole = tiled(model, images_for(model), model.reach_px)
    # What is left is the order of float32 additions.
    assert np.abs(tiles - whole).max() <= 1e-5 * np.abs(whole).max()


def test_less_surroundings_would_change_pixels(model):
    if model.network.name in ("pan", "edsr-baseline"):
        return  # whose blocks start too faint to show it
    tiles, whole = tiled(model, images_for(model), model.reach_px // 2)
    assert np.abs(tiles - whole).max() > 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("network", "reach_px"), [(Srcnn(), 6), (Srcnn(kernels="9-5-5"), 8), (Vdsr(), 20)]
)
def test_the_reach_follows_from_the_kernels(network, reach_px):
    assert network.reach_px == reach_px


@pytest.mark.parametrize("scale", [2, 3, 7])
def test_bicubic_in_tiles_is_pillows(scale):
    lr = np.random.default_rng(1).integers(0, 256, (31, 47, 3), np.uint8)
    whole = Image.fromarray(lr).resize((47 * scale, 31 * scale), Image.Resampling.BICUBIC)
    enlarge = partial(Bicubic().enlarge, white=255, scale=scale)
    tiles = bands(enlarge, lr, Bicubic().lr_reach_px(scale), scale, tile_px=10)
    assert np.array_equal(np.concatenate([*tiles]), whole)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_grey_stays_grey_in_any_depth(identity_network, shape):
    for channels in ("rgb", "y"):
        network = Network(load_network(str(identity_network(channels))))
        lr = np.full((*shape, 1), 40_000, np.uint16)
        enlarged = network.enlarge(lr, 65535, 3)
        assert enlarged.shape == (shape[0] * 3, shape[1] * 3, 1)
        assert np.abs(enlarged.astype(int) - 40_000).max() <= 1


def test_self_ensemble_treats_all_flips_and_turns_alike(model):
    scale = (model.scales or (2,))[-1]
    image = np.random.default_rng(1).random((1, 9, 12, model.network.channels), np.float32)
    network = Network(model, self_ensemble=True)
    whole = network._apply(image, scale)
    for turn in (
        lambda image: image[:, ::-1],
        lambda image: image[:, :, ::-1],
        lambda image: image.swapaxes(1, 2),
        lambda image: np.rot90(image, axes=(1, 2)),
    ):
        error = np.abs(network._apply(turn(image), scale) - turn(whole))
        assert error.max() <= 1e-5 * np.abs(whole).max()
        plain = model(turn(image), scale) - turn(model(image, scale))
        assert np.abs(plain).max() > 1e-4 * np.abs(whole).max()


def test_self_ensemble_has_a_name_of_its_own(identity_network):
    path = str(identity_network("y"))
    _, plain = load_upscalers([path])
    bicubic, mean = load_upscalers([path], self_ensemble=True)
    assert (bicubic.name, plain.name, mean.name) == ("bicubic", "identity_y", "identity_y+")
    lr = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    # Of what is the same for every flip and turn the mean is that.
    assert np.array_equal(mean.enlarge(lr, 255, 2), plain.enlarge(lr, 255, 2))


@pytest.mark.slow
def test_self_ensemble_gains_on_published_weights(shared_data):
    path = str(shared_data / "weights/lr/fsrcnn_x2.npz")
    pictures = folder_pictures(str(shared_data / "benchmarks/set5"))
    psnrs_db = [
        evaluate(pictures, PROTOCOLS["paper"], load_upscalers([path], self_ensemble=mean), [2])
        .rows[-1].psnr_db
        for mean in (False, True)
    ]  # fmt: skip
    assert 0.03 < psnrs_db[1] - psnrs_db[0] < 0.3


def test_bicubic_comes_first_once():
    assert [upscaler.name for upscaler in load_upscalers(["bicubic", "bicubic"])] == ["bicubic"]
    assert [upscaler.name for upscaler in load_upscalers([])] == ["bicubic"]


def test_weights_of_another_network_are_refused_with_their_shapes(tmp_path):
    np.savez(tmp_path / "odd.npz", w1=np.zeros((3, 3, 1, 8), np.float32))
    with pytest.raises(UsageError, match=r"odd\.npz.*3, 3, 1, 8"):
        load_upscalers([str(tmp_path / "odd.npz")])
