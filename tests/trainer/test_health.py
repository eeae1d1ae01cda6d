import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import Config
from trainer.health import Health, initial_health, judge


def start(config):
    return Health(*map(tf.constant, initial_health(config)))


def after(losses, config=None, norms=None):
    """The verdicts on these steps, one after another."""
    config = config or Config()
    health = start(config)
    verdicts = []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        verdicts.append(judge(health, tf.constant(loss), tf.constant(norm), config))
        health = verdicts[-1].health
    return verdicts


def good(verdicts):
    return [bool(verdict.good) for verdict in verdicts]


def test_usual_losses_are_good():
    assert all(good(after([1.0, 0.5, 3.0] * 20)))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_bad_from_the_first_step_on(loss):
    verdicts = after([loss, 1.0])
    assert good(verdicts) == [False, True]
    assert bool(verdicts[0].bad)


def test_gradients_that_are_no_numbers_are_bad():
    assert good(after([1.0, 1.0], norms=[math.inf, 1.0])) == [False, True]


def test_a_spike_is_bad_once_the_mean_is_known_and_does_not_move_it():
    assert all(good(after([1.0] * 5 + [100.0])))
    verdicts = after([1.0] * 30 + [9.0, 15.0, 15.0, 1.0])
    assert good(verdicts)[-4:] == [True, False, False, True]
    assert all(good(after([1.0] * 30 + [1e9], Config(skip_above=0.0))))


def test_the_mean_forgets():
    verdicts = after([100.0] * 50 + [1.0] * 1000 + [50.0])
    assert not verdicts[-1].good


def test_float16_halves_its_scale_on_overflow_and_doubles_it_after_a_thousand_good_steps():
    config = Config(precision="float16")
    overflow = after([1.0], config, norms=[math.inf])[0]
    assert not overflow.good and not overflow.bad
    assert float(overflow.health.scale) == initial_health(config)[2] / 2
    health = overflow.health._replace(streak=999.0)
    grown = judge(health, tf.constant(1.0), tf.constant(1.0), config).health
    assert (float(grown.scale), float(grown.streak)) == (initial_health(config)[2], 0.0)


def test_overflow_without_a_scale_to_halve_is_bad():
    config = Config(precision="float16")
    health = start(config)._replace(scale=1.0)
    assert judge(health, tf.constant(1.0), tf.constant(math.nan), config).bad


def test_a_loss_that_is_no_number_is_bad_in_float16_too():
    (verdict,) = after([math.nan], Config(precision="float16"), norms=[math.nan])
    assert bool(verdict.bad)
    assert np.array_equal(verdict.health.scale, initial_health(Config(precision="float16"))[2])
