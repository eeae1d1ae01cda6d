import numpy as np
import pytest
import tensorflow as tf

from trainer.models import NETWORKS, recognise
from trainer.models.network import replicate_border
from trainer.models.srcnn import KERNELS, Srcnn
from trainer.models.vdsr import Vdsr

PICTURES = np.random.default_rng(0).random((2, 24, 30, 3), np.float32)
EVERY_NETWORK = [
    *(Srcnn(channels, kernels) for channels in (1, 3) for kernels in KERNELS),
    *(Vdsr(channels) for channels in (1, 3)),
]


def weights_of(network, seed=0):
    return network.initial_weights(np.random.default_rng(seed))


@pytest.mark.parametrize("network", EVERY_NETWORK, ids=str)
def test_sizes(network):
    weights = weights_of(network)
    images = PICTURES[..., : network.channels]
    assert [weight.shape for weight in weights] == network.shapes
    assert network(weights, images).shape == images.shape
    border = network.border_px
    inner = images[:, border : 24 - border, border : 30 - border]
    assert network.training_output(weights, images).shape == inner.shape


@pytest.mark.parametrize("network", EVERY_NETWORK, ids=str)
def test_a_network_is_recognised_from_its_shapes(network):
    assert recognise(network.shapes) == network


def test_other_shapes_are_not_recognised():
    assert recognise([]) is None
    assert recognise(Srcnn().shapes[:-1]) is None


def test_the_articles_sizes():
    assert Srcnn().border_px == 6  # 188x188 of 200x200
    assert sum(int(np.prod(shape)) for shape in Vdsr().shapes) == 668_227


def test_srcnn_at_full_size_equals_its_valid_output_inside():
    network = Srcnn()
    weights = weights_of(network)
    inside = network(weights, PICTURES)[:, 6:-6, 6:-6]
    np.testing.assert_allclose(inside, network.training_output(weights, PICTURES), atol=1e-5)


def test_srcnn_replicates_the_border_of_each_layers_input():
    """As its authors' code does (imfilter's 'replicate')."""
    network = Srcnn(kernels="9-3-5")
    weights = weights_of(network)
    images = PICTURES
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        images = np.maximum(images, 0) if kernel is not weights[0] else images
        px = kernel.shape[0] // 2
        images = np.pad(images, ((0, 0), (px, px), (px, px), (0, 0)), mode="edge")
        images = tf.nn.conv2d(images, kernel, 1, "VALID").numpy() + bias
    np.testing.assert_allclose(network(weights, PICTURES), images, atol=1e-5)


def test_borders_are_replicated():
    padded = replicate_border(tf.constant(PICTURES), 6)
    expected = np.pad(PICTURES, ((0, 0), (6, 6), (6, 6), (0, 0)), mode="edge")
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize("kernels", KERNELS)
def test_identity_start_passes_the_input_on(kernels):
    network = Srcnn(3, kernels, identity_start=True)
    output = network(weights_of(network), PICTURES)
    assert np.abs(output - PICTURES).mean() < 0.15
    plain = Srcnn(3, kernels)
    assert np.abs(plain(weights_of(plain), PICTURES) - PICTURES).mean() > 0.3
    assert recognise(network.shapes) == plain


def test_identity_start_of_vdsr_gives_its_input_back():
    network = Vdsr(3, identity_start=True)
    np.testing.assert_array_equal(network(weights_of(network), PICTURES), PICTURES)


def test_vdsr_adds_its_input_and_its_residual_can_be_negative():
    network = Vdsr(3)
    zeros = [np.zeros_like(weight) for weight in weights_of(network)]
    np.testing.assert_array_equal(network(zeros, PICTURES), PICTURES)
    zeros[-1] -= 0.25
    np.testing.assert_allclose(network(zeros, PICTURES), PICTURES - 0.25, atol=1e-6)


def test_every_layer_of_vdsr_counts():
    """The article's loop fed each layer the network's input, so that only the last one did."""
    network = Vdsr(1)
    weights = weights_of(network)
    before = network(weights, PICTURES[..., :1]).numpy()
    weights[2] = weights[2] * 2
    assert np.abs(network(weights, PICTURES[..., :1]) - before).max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights_depend_on_the_seed_alone(name):
    network = NETWORKS[name]()
    one, same, other = (weights_of(network, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_the_residual_alone_is_in_low_precision():
    """A zero residual gives the picture back, which bfloat16 would round."""
    network = Vdsr(1)
    weights = [tf.zeros(shape, tf.bfloat16) for shape in network.shapes]
    pictures = PICTURES[..., :1]
    np.testing.assert_array_equal(network.training_output(weights, pictures), pictures)
    assert (
        Srcnn(1)
        .training_output(
            [tf.cast(weight, tf.bfloat16) for weight in weights_of(Srcnn(1))], pictures
        )
        .dtype
        == tf.bfloat16
    )
