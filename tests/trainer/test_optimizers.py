import numpy as np
import pytest
import tensorflow as tf
from scipy.fft import dctn, idctn

from trainer.config import Config
from trainer.optimizers import SLOTS, UPDATES, learning_rate


def rates(config, *steps):
    return [float(learning_rate(config, tf.constant(step, tf.int64))) for step in steps]


def test_schedules():
    constant = Config(learning_rate=0.5)
    assert rates(constant, 0, 99) == [0.5, 0.5]
    steps = Config(learning_rate=0.5, schedule="step", decay_every=10, decay_factor=0.1)
    assert rates(steps, 0, 9, 10, 20) == pytest.approx([0.5, 0.5, 0.05, 0.005])
    cosine = Config(learning_rate=0.5, schedule="cosine", steps=100)
    assert rates(cosine, 0, 50, 100) == pytest.approx([0.5, 0.25, 0.0], abs=1e-6)


def trajectory(name, gradients, rate):
    weight = tf.constant([1.0])
    slots = [tf.constant([0.0]) for _ in range(SLOTS[name])]
    values = []
    for step, gradient in enumerate(gradients, start=1):
        weight, slots = UPDATES[name](
            weight, slots, tf.constant([gradient]), tf.constant(rate), float(step)
        )
        values.append(float(weight[0]))
    return values


def test_adam_follows_its_paper():
    """Algorithm 1, in double precision."""
    gradients = [0.3, -2.0, 0.7]
    m = v = 0.0
    x, expected = 1.0, []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        expected.append(x)
    assert trajectory("adam", gradients, 0.01) == pytest.approx(expected, rel=1e-5)


def test_sgd_has_momentum():
    assert trajectory("sgd", [1.0, 1.0], 0.1) == pytest.approx([0.9, 0.9 - 0.19])


def test_adam_dct_is_adam_on_the_frequencies_of_a_kernel():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 3, 2, 4)).astype(np.float32)
    gradients = rng.normal(size=(3, 5, 3, 2, 4)).astype(np.float32)

    def run(update, weight, gradients):
        slots = [tf.zeros(kernel.shape)] * 2
        for step, gradient in enumerate(gradients, start=1):
            weight, slots = update(weight, slots, tf.constant(gradient), tf.constant(0.1), step)
        return weight.numpy()

    def frequencies(array, transform=dctn):
        return transform(array, axes=(-4, -3), norm="ortho").astype(np.float32)

    expected = run(UPDATES["adam"], tf.constant(frequencies(kernel)), frequencies(gradients))
    found = run(UPDATES["adam_dct"], tf.constant(kernel), gradients)
    np.testing.assert_allclose(found, frequencies(expected, idctn), atol=1e-5)


def test_adam_dct_is_adam_for_a_bias():
    gradients = [0.3, -2.0, 0.7]
    assert trajectory("adam_dct", gradients, 0.01) == trajectory("adam", gradients, 0.01)
