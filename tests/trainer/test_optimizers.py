import numpy as np
import pytest
import tensorflow as tf

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
