import numpy as np
import pytest

from evaluation.upscalers import in_tiles, load_upscalers
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


def test_no_tile_is_larger_than_it_may_be(images):
    seen = []

    def network(tile):
        seen.append(tile.shape[1:3])
        return tile * 2

    assert np.array_equal(in_tiles(network, images, 5, tile_px=40), images * 2)
    assert len(seen) == 3 * 2
    assert max(max(size) for size in seen) == 50


def test_bicubic_comes_first_once():
    assert [upscaler.name for upscaler in load_upscalers(["bicubic", "bicubic"])] == ["bicubic"]
    assert [upscaler.name for upscaler in load_upscalers([])] == ["bicubic"]


def test_weights_of_another_network_are_refused_with_their_shapes(tmp_path):
    np.savez(tmp_path / "odd.npz", w1=np.zeros((3, 3, 1, 8), np.float32))
    with pytest.raises(UsageError, match=r"odd\.npz.*3, 3, 1, 8"):
        load_upscalers([str(tmp_path / "odd.npz")])
