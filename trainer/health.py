"""Which steps count: a loss that is no number, or far above the mean of late, is no step.

What is remembered of the steps before is one small vector, part of the checkpoint.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.config import Config

Tensor = Any

MOST_SKIPPED = 10
"""Skipped in a row, with no way back: the run stops."""

_DECAY = 0.99
_LEAST = 15.0  # of the weight, reached after 17 steps: before, the mean says little
_FIRST_SCALE = 2.0**15
_GROW_AFTER = 1000.0


class Health(NamedTuple):
    """After some steps; float32 scalars, in the checkpoint one vector of this order."""

    loss: Any
    """Decaying sum of the losses of good steps."""
    weight: Any
    """The same sum of ones: their quotient is the mean of late."""
    scale: Any
    """Of the loss in float16, so that small gradients are not lost; 1 in other precisions."""
    streak: Any
    """Good steps since the scale changed."""


def initial_health(config: Config) -> npt.NDArray[np.float32]:
    """Before the first step."""
    scale = _FIRST_SCALE if config.precision == "float16" else 1.0
    return np.array(Health(0.0, 0.0, scale, 0.0), np.float32)


class Verdict(NamedTuple):
    """Of one step."""

    good: Tensor
    """Whether the weights may change."""
    bad: Tensor
    """Whether something is wrong; neither, where only float16's scale was too large."""
    health: Health


def judge(health: Health, loss: Tensor, norm: Tensor, config: Config) -> Verdict:
    """Of a step's loss and the norm of its gradients, both after the reduction."""
    sound = tf.math.is_finite(loss)
    if config.skip_above:
        mean = health.loss / tf.maximum(health.weight, 1.0)
        spike = tf.logical_and(health.weight > _LEAST, loss > config.skip_above * mean)
        sound = tf.logical_and(sound, tf.logical_not(spike))
    finite = tf.math.is_finite(norm)
    good = tf.logical_and(sound, finite)
    too_large = tf.logical_and(sound, tf.logical_and(tf.logical_not(finite), health.scale > 1.0))
    bad = tf.logical_not(tf.logical_or(good, too_large))
    updated = health._replace(
        loss=tf.where(good, _DECAY * health.loss + loss, health.loss),
        weight=tf.where(good, _DECAY * health.weight + 1.0, health.weight),
    )
    if config.precision == "float16":
        updated = updated._replace(**_rescaled(health, good, too_large))
    return Verdict(good, bad, updated)


def _rescaled(health: Health, good: Tensor, too_large: Tensor) -> dict[str, Tensor]:
    """Halved when gradients overflow, doubled after many that did not."""
    streak = tf.where(good, health.streak + 1.0, 0.0)
    grow = streak >= _GROW_AFTER
    scale = tf.where(too_large, health.scale / 2.0, health.scale)
    return {"scale": tf.where(grow, scale * 2.0, scale), "streak": tf.where(grow, 0.0, streak)}
