"""Adam and SGD as pure functions of weights, gradients and the step.

Written out because a run must go on bit for bit from arrays in a file, with the step counted by
the host loop alone; what is left of an optimizer then is these formulas.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trainer.config import Config

Tensor = Any
Update = Callable[[Tensor, Sequence[Tensor], Tensor, Tensor, Tensor], None]

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_MOMENTUM = 0.9
SLOTS = {"adam": 2, "sgd": 1}
"""Arrays of a weight's shape that an optimizer keeps for each weight, 0 at the start."""


def learning_rate(config: Config, step: Tensor) -> Tensor:
    """Of step number ``step`` (from 0), a float32 scalar."""
    progress = tf.cast(step, tf.float32)
    match config.schedule:
        case "constant":
            factor = tf.ones([])
        case "step":
            factor = config.decay_factor ** tf.floor(progress / config.decay_every)
        case "cosine":
            factor = 0.5 + 0.5 * tf.cos(progress * (math.pi / config.steps))
    return config.learning_rate * factor


def adam(
    weight: Tensor, slots: Sequence[Tensor], gradient: Tensor, rate: Tensor, t: Tensor
) -> None:
    """Updates in place; ``t`` counts from 1 (Kingma and Ba 2015, arXiv:1412.6980)."""
    mean, square = slots
    mean.assign_add((1 - _BETA_1) * (gradient - mean))
    square.assign_add((1 - _BETA_2) * (gradient * gradient - square))
    corrected = rate * tf.sqrt(1 - _BETA_2**t) / (1 - _BETA_1**t)
    weight.assign_sub(corrected * mean / (tf.sqrt(square) + _EPSILON))


def sgd(weight: Tensor, slots: Sequence[Tensor], gradient: Tensor, rate: Tensor, t: Tensor) -> None:
    """Updates in place, with momentum."""
    (momentum,) = slots
    momentum.assign(_MOMENTUM * momentum + gradient)
    weight.assign_sub(rate * momentum)


UPDATES: dict[str, Update] = {"adam": adam, "sgd": sgd}
