from functools import partial

import numpy as np
import pytest
from PIL import Image

from evaluation.tiles import bands, in_tiles
from evaluation.upscalers import Bicubic, Network, load_network, load_upscalers
from pipelines.command.cli import UsageError
from trainer.models.network import weights_by_name
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr
from trainer.trained import load_model

NETWORKS = {"srcnn": Srcnn(channels=1, kernels="9-5-5"), "vdsr": Vdsr(channels=1)}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.npz"
    weights = NETWORKS[request.param].initial_weights(np.random.default_rng(0))
    np.savez(path, **weights_by_name(weights))
    return load_model(str(path))


@pytest.fixture
def images():
    return np.random.default_rng(1).random((2, 101, 64, 1), np.float32)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("white", [255, 65535])
def test_tiles_of_lr_change_no_pixel(model, scale, white):
    network = Network(model)
    lr = np.random.default_rng(1).integers(0, white + 1, (41, 53, 3))
    lr = lr.astype(np.uint8 if white == 255 else np.uint16)
    enlarge = partial(network.enlarge, white=white, scale=scale)
    tiles = bands(enlarge, lr, network.lr_reach_px(scale), scale, tile_px=19)
    # What is left is the order of float32 additions.
    error = np.abs(np.concatenate([*tiles]).astype(int) - enlarge(lr))
    assert error.max() <= 1
    assert np.count_nonzero(error) <= error.size * white * 1e-6


def test_tiles_change_no_pixel(model, images):
    whole = model(images)
    tiles = in_tiles(model, images, model.reach_px, tile_px=32)
    # What is left is the order of float32 additions.
    assert np.abs(tiles - whole).max() <= 1e-5 * np.abs(whole).max()


def test_less_surroundings_would_change_pixels(model, images):
    tiles = in_tiles(model, images, model.reach_px - 2, tile_px=32)
    assert np.abs(tiles - model(images)).max() > 1e-4


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


def test_bicubic_comes_first_once():
    assert [upscaler.name for upscaler in load_upscalers(["bicubic", "bicubic"])] == ["bicubic"]
    assert [upscaler.name for upscaler in load_upscalers([])] == ["bicubic"]


def test_weights_of_another_network_are_refused_with_their_shapes(tmp_path):
    np.savez(tmp_path / "odd.npz", w1=np.zeros((3, 3, 1, 8), np.float32))
    with pytest.raises(UsageError, match=r"odd\.npz.*3, 3, 1, 8"):
        load_upscalers([str(tmp_path / "odd.npz")])
