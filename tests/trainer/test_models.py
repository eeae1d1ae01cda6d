import numpy as np
import pytest
import tensorflow as tf

from pipelines.pictures.resampling import matlab_bicubic_matrix
from trainer.models import NETWORKS, Options, recognise
from trainer.models.network import orthogonal_initial, replicate_border
from trainer.models.srcnn import KERNELS, Srcnn
from trainer.models.vdsr import Vdsr

PICTURES = np.random.default_rng(0).random((2, 24, 30, 3), np.float32)
EVERY_NETWORK = [variant for network in NETWORKS.values() for variant in network.variants()]


def weights_of(network, seed=0):
    return network.initial_weights(np.random.default_rng(seed))


@pytest.mark.parametrize("network", EVERY_NETWORK, ids=str)
def test_sizes(network):
    weights = weights_of(network)
    images = PICTURES[..., : network.channels]
    assert {name: weight.shape for name, weight in weights.items()} == network.shapes
    for scale in network.scales or (2, 3, 4, 8):
        ratio, border = network.ratio(scale), network.border_px
        rows, columns = 24 * ratio, 30 * ratio
        assert network(weights, images, scale).shape == (2, rows, columns, network.channels)
        inner = (2, rows - 2 * border * ratio, columns - 2 * border * ratio, network.channels)
        outputs = network.training_outputs(weights, images, scale)
        assert outputs.pop(1).shape == inner
        for factor, output in outputs.items():
            smaller = (2, rows // factor, columns // factor, network.channels)
            assert (output.shape, network.name) == (smaller, "lapsrn")


@pytest.mark.parametrize("network", EVERY_NETWORK, ids=str)
def test_a_network_is_recognised_from_its_shapes(network):
    assert recognise(network.shapes) == network


def test_other_shapes_are_not_recognised():
    assert recognise({}) is None
    shapes = Srcnn().shapes
    assert recognise({name: shape for name, shape in shapes.items() if name != "b3"}) is None
    assert recognise(shapes, "vdsr") is None


def test_the_articles_sizes():
    assert Srcnn().border_px == 6  # 188x188 of 200x200
    assert sum(int(np.prod(shape)) for shape in Vdsr().shapes.values()) == 668_227


def test_srcnn_at_full_size_equals_its_valid_output_inside():
    network = Srcnn()
    weights = weights_of(network)
    inside = network(weights, PICTURES, 2)[:, 6:-6, 6:-6]
    np.testing.assert_allclose(inside, network.training_outputs(weights, PICTURES, 2)[1], atol=1e-5)


def test_srcnn_replicates_the_border_of_each_layers_input():
    """As its authors' code does (imfilter's 'replicate')."""
    network = Srcnn(kernels="9-3-5")
    weights = weights_of(network)
    images = PICTURES
    for number in (1, 2, 3):
        kernel, bias = weights[f"w{number}"], weights[f"b{number}"]
        images = np.maximum(images, 0) if number > 1 else images
        px = kernel.shape[0] // 2
        images = np.pad(images, ((0, 0), (px, px), (px, px), (0, 0)), mode="edge")
        images = tf.nn.conv2d(images, kernel, 1, "VALID").numpy() + bias
    np.testing.assert_allclose(network(weights, PICTURES, 2), images, atol=1e-5)


def test_borders_are_replicated():
    padded = replicate_border(tf.constant(PICTURES), 6)
    expected = np.pad(PICTURES, ((0, 0), (6, 6), (6, 6), (0, 0)), mode="edge")
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize("kernels", KERNELS)
def test_identity_start_passes_the_input_on(kernels):
    network = Srcnn(3, kernels, identity_start=True)
    output = network(weights_of(network), PICTURES, 2)
    assert np.abs(output - PICTURES).mean() < 0.15
    plain = Srcnn(3, kernels)
    assert np.abs(plain(weights_of(plain), PICTURES, 2) - PICTURES).mean() > 0.3
    assert recognise(network.shapes) == plain


def test_identity_start_of_vdsr_gives_its_input_back():
    network = Vdsr(3, identity_start=True)
    np.testing.assert_array_equal(network(weights_of(network), PICTURES, 2), PICTURES)


def test_vdsr_adds_its_input_and_its_residual_can_be_negative():
    network = Vdsr(3)
    zeros = {name: np.zeros_like(weight) for name, weight in weights_of(network).items()}
    np.testing.assert_array_equal(network(zeros, PICTURES, 2), PICTURES)
    zeros["b20"] -= 0.25
    np.testing.assert_allclose(network(zeros, PICTURES, 2), PICTURES - 0.25, atol=1e-6)


def test_every_layer_of_vdsr_counts():
    """The article's loop fed each layer the network's input, so that only the last one did."""
    network = Vdsr(1)
    weights = weights_of(network)
    before = network(weights, PICTURES[..., :1], 2).numpy()
    weights["w2"] = weights["w2"] * 2
    assert np.abs(network(weights, PICTURES[..., :1], 2) - before).max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_orthogonal_filters_have_the_norm_of_hes(name):
    network = NETWORKS[name]()
    each_once = {shape: name for name, shape in network.shapes.items()}
    shapes = {name: shape for shape, name in each_once.items()}
    weights = orthogonal_initial(shapes, np.random.default_rng(0))
    kernels = [weight for weight in weights.values() if weight.ndim == 4]
    assert all(not weight.any() for weight in weights.values() if weight.ndim < 4)
    for kernel in kernels:
        filters = kernel.reshape(-1, kernel.shape[-1])
        gram = filters.T @ filters if len(filters) >= len(filters.T) else filters @ filters.T
        np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_begins_with_the_filters_that_it_is_given(name):
    def zeros(shapes, rng):
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    network = NETWORKS[name]()
    started = network.initial_weights(np.random.default_rng(0), zeros)
    assert not started[next(iter(network.shapes))].any()


def test_lapsrns_levels_are_those_of_its_smaller_scales():
    network = NETWORKS["lapsrn"].from_options(Options(1, scale=4))
    weights = weights_of(network)
    outputs = network.training_outputs(weights, PICTURES[..., :1], 4)
    assert list(outputs) == [2, 1]
    for factor, scale in ((2, 2), (1, 4)):
        expected = network(weights, PICTURES[..., :1], scale)
        np.testing.assert_allclose(outputs[factor], expected, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights_depend_on_the_seed_alone(name):
    network = NETWORKS[name]()
    one, same, other = (weights_of(network, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    first = next(iter(one))
    assert not np.array_equal(one[first], other[first])


def test_the_residual_alone_is_in_low_precision():
    """A zero residual gives the picture back, which bfloat16 would round."""
    network = Vdsr(1)
    weights = {name: tf.zeros(shape, tf.bfloat16) for name, shape in network.shapes.items()}
    pictures = PICTURES[..., :1]
    outputs = network.training_outputs(weights, pictures, 2)
    np.testing.assert_array_equal(outputs[1], pictures)
    low = {name: tf.cast(weight, tf.bfloat16) for name, weight in weights_of(Srcnn(1)).items()}
    assert Srcnn(1).training_outputs(low, pictures, 2)[1].dtype == tf.bfloat16


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["fsrcnn", "fsrcnn-s", "espcn"])
def test_identity_start_of_networks_that_take_lr_is_nearly_bicubic(name, scale):
    y, x = np.mgrid[0:24, 0:30] / 30
    slope = np.stack([0.3 + 0.4 * x * y])[..., None].astype(np.float32)
    network = NETWORKS[name].from_options(Options(1, identity_start=True, scale=scale))
    output = network(weights_of(network), slope, scale)[0, ..., 0]
    matrix = [matlab_bicubic_matrix(size, scale * size) for size in (24, 30)]
    enlarged = matrix[0] @ slope[0, ..., 0] @ matrix[1].T
    assert np.abs(output - enlarged).mean() < 0.04
    plain = NETWORKS[name].from_options(Options(1, scale=scale))
    assert np.abs(plain(weights_of(plain), slope, scale)[0, ..., 0] - enlarged).mean() > 0.2


@pytest.mark.parametrize(
    ("name", "channels", "scale"),
    [("pan", 1, 2), ("pan", 3, 8), ("edsr-baseline", 1, 2), ("lapsrn", 3, 2), ("lapsrn", 1, 3)],
)
def test_what_a_network_is_not_made_for_is_refused(name, channels, scale):
    with pytest.raises(ValueError, match=r"has scales 2, .* and channels"):
        NETWORKS[name].from_options(Options(channels, scale=scale))
