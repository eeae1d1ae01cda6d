"""Adam and SGD as pure functions of weight, gradient and step.

Written out because a run must go on bit for bit from arrays in a file, with the step counted by
the host loop alone; what is left of an optimizer then is these formulas.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import Config

Tensor = Any
Update = Callable[[Tensor, Sequence[Tensor], Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_MOMENTUM = 0.9
SLOTS = {"adam": 2, "adam_dct": 2, "sgd": 1}
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
) -> tuple[Tensor, list[Tensor]]:
    """New weight and slots; ``t`` counts from 1 (Kingma and Ba 2015, arXiv:1412.6980)."""
    mean = slots[0] + (1 - _BETA_1) * (gradient - slots[0])
    square = slots[1] + (1 - _BETA_2) * (gradient * gradient - slots[1])
    corrected = rate * tf.sqrt(1 - _BETA_2**t) / (1 - _BETA_1**t)
    return weight - corrected * mean / (tf.sqrt(square) + _EPSILON), [mean, square]


def adam_dct(
    weight: Tensor, slots: Sequence[Tensor], gradient: Tensor, rate: Tensor, t: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Adam on the frequencies of each kernel instead of its pixels; the same on a bias.

    Pictures are loud in low frequencies and faint in high ones. Adam evens out what differs from
    one number to the next: so they are made numbers of their own.
    """
    if weight.shape.rank != 4:
        return adam(weight, slots, gradient, rate, t)
    change, slots = adam(tf.zeros_like(weight), slots, _dct(gradient), rate, t)
    return weight + _dct(change, inverse=True), slots


def _dct(kernel: Tensor, *, inverse: bool = False) -> Tensor:
    """The orthonormal two-dimensional DCT-II of kernels [height, width, in, out]."""
    rows, columns = (_dct_matrix(size, inverse) for size in kernel.shape[:2])
    return tf.einsum("ai,bj,ijkl->abkl", rows, columns, kernel)


def _dct_matrix(size: int, inverse: bool) -> Tensor:
    frequency, place = np.mgrid[0:size, 0:size]
    matrix = np.cos(np.pi * frequency * (place + 0.5) / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return tf.constant(matrix.T if inverse else matrix, tf.float32)


def sgd(
    weight: Tensor, slots: Sequence[Tensor], gradient: Tensor, rate: Tensor, t: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """New weight and slots, with momentum."""
    momentum = _MOMENTUM * slots[0] + gradient
    return weight - rate * momentum, [momentum]


UPDATES: dict[str, Update] = {"adam": adam, "adam_dct": adam_dct, "sgd": sgd}
"""From weight, slots, gradient, learning rate and t."""


def average_decay(config: Config, step: Tensor) -> Tensor:
    """Of the weights' average in step number ``step``: smaller at first, when all is new."""
    t = tf.cast(step, tf.float32)
    return tf.minimum(config.average, (1.0 + t) / (10.0 + t))
