"""The training step: a batch -> changed weights, the same for any number of replicas."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.pictures.resampling import matlab_bicubic_matrix
from trainer.checkpoints import Checkpoint
from trainer.config import Config
from trainer.distribution import Strategy
from trainer.health import Health, initial_health, judge
from trainer.models.network import INITIAL
from trainer.optimizers import SLOTS, UPDATES, average_decay, learning_rate
from trainer.trained import starting_weights

Tensor = Any
Variable = Any

_CHARBONNIER = 1e-3
"""Of Charbonnier's error, as LapSRN's paper has it (arXiv:1704.03915)."""
_ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": tf.math.squared_difference,
    "l1": lambda output, target: tf.abs(output - target),
    "charbonnier": lambda output, target: tf.sqrt(
        tf.math.squared_difference(output, target) + _CHARBONNIER**2
    ),
}
_DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16}


class Variables(NamedTuple):
    """What a step changes, mirrored on every replica."""

    weights: dict[str, Variable]
    slots: list[dict[str, Variable]]
    """The optimizer's, for each of its slots one a weight."""
    average: dict[str, Variable]
    """Of the weights, or none."""
    health: Variable


def initial_checkpoint(config: Config) -> Checkpoint:
    """Step 0, a pure function of the recipe (and of the weights that it begins with)."""
    if config.from_:
        weights = starting_weights(config)
    else:
        rng = np.random.default_rng(config.seed)
        weights = config.network().initial_weights(rng, INITIAL[config.init])
    slots = [
        {name: np.zeros_like(weight) for name, weight in weights.items()}
        for _ in range(SLOTS[config.optimizer])
    ]
    average = {name: weight.copy() for name, weight in weights.items() if config.average}
    return Checkpoint(0, weights, slots, average, initial_health(config))


class TrainingStep:
    """Trains from a checkpoint on, some steps a call.

    A step is four functions. ``_replica_step`` runs on each replica: ``_loss_and_gradients`` of
    its part of the batch, summed over all replicas. ``_change`` then makes the same change to each
    replica's variables.
    """

    def __init__(self, strategy: Strategy, config: Config, begin: Checkpoint) -> None:
        self._strategy, self._config, self._network = strategy, config, config.network()
        self._dtype = _DTYPES[config.precision]
        with strategy.scope():
            self._variables = Variables(
                *tf.nest.map_structure(
                    tf.Variable, (begin.weights, begin.slots, begin.average, begin.health)
                )
            )
        self._compiled_loss_and_gradients = _compiled(self._loss_and_gradients)
        self._compiled_change = _compiled(self._change)
        self._run = tf.function(self._steps, autograph=False)

    def __call__(self, batches: Any, first: int, count: int) -> npt.NDArray[np.float32]:
        """Trains the steps ``first``, first + 1, ... on the next ``count`` of the iterator.

        Gives float32 [count, 3]: of each step its loss, 1 if it changed the weights, and 1 if it
        was skipped because something is wrong.
        """
        first, count = tf.constant(first, tf.int64), tf.constant(count, tf.int64)
        return np.asarray(self._run(batches, first, count).numpy())

    def update(self, state: Checkpoint) -> Checkpoint:
        """``state`` with the variables' values of now."""
        values = tf.nest.map_structure(lambda variable: variable.numpy(), self._variables)
        return dataclasses.replace(state, **values._asdict())

    def _steps(self, batches: Any, first: Tensor, count: Tensor) -> Tensor:
        def one(index: Tensor, outcomes: Any) -> tuple[Tensor, Any]:
            outcome = self._step(batches.get_next(), first + index)
            return index + 1, outcomes.write(tf.cast(index, tf.int32), outcome)

        outcomes = tf.TensorArray(tf.float32, tf.cast(count, tf.int32), element_shape=[3])
        begin = (tf.constant(0, tf.int64), outcomes)
        return tf.while_loop(lambda index, _: index < count, one, begin)[1].stack()

    def _step(self, batch: tuple[Tensor, ...], step: Tensor) -> Tensor:
        reduced = self._strategy.run(self._replica_step, batch)
        arguments = (self._variables, reduced, step)
        return self._strategy.extended.update(
            self._variables.health, lambda _, *own: self._compiled_change(*own), arguments,
            group=False,
        )[0]  # fmt: skip

    def _replica_step(self, inputs: Tensor, targets: Tensor, parts: Tensor) -> list[Tensor]:
        scale = Health(*tf.unstack(tf.convert_to_tensor(self._variables.health))).scale
        local = self._compiled_loss_and_gradients(inputs, targets, parts, scale)
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, local)

    def _loss_and_gradients(
        self, inputs: Tensor, targets: Tensor, parts: Tensor, loss_scale: Tensor
    ) -> list[Tensor]:
        with tf.GradientTape() as tape:
            loss = loss_scale * self._loss(inputs, targets, parts)
        return [loss, *tape.gradient(loss, [*self._variables.weights.values()])]

    def _loss(self, inputs: Tensor, targets: Tensor, parts: Tensor) -> Tensor:
        """The sum of (weighted) errors divided by the global batch's number of values.

        So it and its gradients are the same for any number of replicas, but for the order of
        summation. Of a network with several outputs (LapSRN) those of all are added up, and divided
        by the values of the largest, as its authors do.
        """
        weights = {
            name: tf.cast(weight, self._dtype) for name, weight in self._variables.weights.items()
        }
        scale = self._config.scales[-1]
        border = self._network.border_px * self._config.ratio
        inner = targets[:, border : targets.shape[1] - border, border : targets.shape[2] - border]
        values = self._config.batch_size * math.prod(inner.shape[1:])
        losses = []
        for factor, output in self._network.training_outputs(weights, inputs, scale).items():
            output = tf.cast(output, tf.float32)
            errors = _ERRORS[self._config.loss](output, _made_small(inner, factor))
            losses.append(tf.reduce_sum(parts * tf.reduce_sum(errors, axis=(1, 2, 3))) / values)
        return losses[0] if len(losses) == 1 else tf.add_n(losses)

    def _change(self, variables: Variables, reduced: Sequence[Tensor], step: Tensor) -> Tensor:
        """Of one replica's variables, by what all replicas found; gives the outcome."""
        config = self._config
        before = Health(*tf.unstack(tf.convert_to_tensor(variables.health)))
        loss, *gradients = [part / before.scale for part in reduced]
        norm = tf.linalg.global_norm(gradients)
        if config.clip_norm:
            factor = tf.minimum(config.clip_norm / norm, 1.0)
            gradients = [gradient * factor for gradient in gradients]
        good, bad, after = judge(before, loss, norm, config)
        variables.health.assign(tf.stack(after))
        _update(config, variables, gradients, good, step)
        return tf.stack([loss, tf.cast(good, tf.float32), tf.cast(bad, tf.float32)])


def _made_small(images: Tensor, factor: int) -> Tensor:
    """[N, H, W, C] by MATLAB's bicubic, unrounded."""
    if factor == 1:
        return images
    rows, columns = (
        tf.constant(matlab_bicubic_matrix(side, side // factor), tf.float32)
        for side in images.shape[1:3]
    )
    return tf.einsum("yh,nhwc,xw->nyxc", rows, images, columns)


def _compiled(function: Any) -> Any:
    """By XLA, where hundreds of small operations are one; on a CPU it makes convolutions slower."""
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return tf.function(function, jit_compile=True, autograph=False) if on_gpu else function


def _update(
    config: Config,
    variables: Variables,
    gradients: Sequence[Tensor],
    good: Tensor,
    step: Tensor,
) -> None:
    """Changes weights, slots and average by reduced gradients, where the step is good."""
    rate = learning_rate(config, step)
    count = tf.cast(step, tf.float32) + 1.0
    decay = average_decay(config, step)
    last_layer = _last_layer(variables.weights)
    for (name, weight), gradient in zip(variables.weights.items(), gradients, strict=True):
        if config.clip_theta:
            limit = config.clip_theta / rate
            gradient = tf.clip_by_value(gradient, -limit, limit)
        if config.weight_decay:
            gradient += config.weight_decay * weight
        factor = config.last_layer_factor if name in last_layer else 1.0
        slots = [slot[name] for slot in variables.slots]
        new, new_slots = UPDATES[config.optimizer](weight, slots, gradient, factor * rate, count)
        for variable, value in zip([weight, *slots], [new, *new_slots], strict=True):
            variable.assign(tf.where(good, value, variable))
        if name in variables.average:
            variable = variables.average[name]
            mean = variable + (1.0 - decay) * (new - variable)
            variable.assign(tf.where(good, mean, variable))


def _last_layer(weights: Mapping[str, Variable]) -> list[str]:
    """The last kernel's name and those behind it."""
    names = list(weights)
    kernels = [number for number, name in enumerate(names) if weights[name].shape.rank == 4]
    return names[kernels[-1] :]
