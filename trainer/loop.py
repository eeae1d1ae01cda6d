"""The training step, and the loop around it."""

import dataclasses
import logging
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.command.cli import Interrupted, WorkError
from pipelines.command.progress import Progress
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import Config
from trainer.distribution import Strategy, Workers
from trainer.files import first_line
from trainer.health import MOST_SKIPPED, Health, initial_health, judge
from trainer.input import Split, training_batches
from trainer.models import Network
from trainer.monitors import MetricsLog, Pace, Scores, Validation
from trainer.optimizers import SLOTS, UPDATES, average_decay, learning_rate
from trainer.trained import starting_weights

Tensor = Any
Variable = Any

_DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variables:
    """What a step changes, mirrored on every replica."""

    weights: list[Variable]
    slots: list[list[Variable]]
    """The optimizer's, for each of its slots one a weight."""
    average: list[Variable]
    """Of the weights, or none."""
    health: Variable

    @classmethod
    def create(cls, strategy: Strategy, checkpoint: Checkpoint) -> "Variables":
        """With the checkpoint's values."""
        with strategy.scope():
            return cls(
                [tf.Variable(weight) for weight in checkpoint.weights],
                [[tf.Variable(array) for array in slot] for slot in checkpoint.slots],
                [tf.Variable(array) for array in checkpoint.average],
                tf.Variable(checkpoint.health),
            )

    def update(self, state: Checkpoint) -> Checkpoint:
        """``state`` with the values of now."""
        return dataclasses.replace(
            state,
            weights=[variable.numpy() for variable in self.weights],
            slots=[[variable.numpy() for variable in slot] for slot in self.slots],
            average=[variable.numpy() for variable in self.average],
            health=self.health.numpy(),
        )


def initial_checkpoint(config: Config) -> Checkpoint:
    """Step 0, a pure function of the recipe (and of the weights that it begins with)."""
    if config.from_:
        weights = starting_weights(config)
    else:
        weights = config.network().initial_weights(np.random.default_rng(config.seed))
    slots = [[np.zeros_like(w) for w in weights] for _ in range(SLOTS[config.optimizer])]
    average = [weight.copy() for weight in weights] if config.average else []
    return Checkpoint(0, weights, slots, average, initial_health(config))


def make_steps(strategy: Strategy, config: Config, network: Network, variables: Variables) -> Any:
    """A tf.function of (iterator, first step, count) that trains ``count`` steps.

    It gives float32 [count, 3]: of each step its loss, 1 if it changed the weights, and 1 if it
    was skipped because something is wrong. The loss is the sum of (weighted) squared errors over
    the global batch divided by its values, so that it and its gradients are the same for any
    number of replicas, but for the order of summation.
    """
    dtype = _DTYPES[config.precision]

    def scaled_loss(inputs: Tensor, targets: Tensor, parts: Tensor, scale: Tensor) -> Tensor:
        weights = [tf.cast(weight, dtype) for weight in variables.weights]
        output = tf.cast(network.training_output(weights, inputs), tf.float32)
        border = network.border_px
        inner = targets[:, border : targets.shape[1] - border, border : targets.shape[2] - border]
        values = config.batch_size * math.prod(inner.shape[1:])
        errors = tf.reduce_sum(tf.math.squared_difference(output, inner), axis=(1, 2, 3))
        return scale * tf.reduce_sum(parts * errors) / values

    def loss_and_gradients(
        inputs: Tensor, targets: Tensor, parts: Tensor, scale: Tensor
    ) -> list[Tensor]:
        with tf.GradientTape() as tape:
            loss = scaled_loss(inputs, targets, parts, scale)
        return [loss, *tape.gradient(loss, variables.weights)]

    def change(
        health: Variable,
        reduced: Sequence[Tensor],
        weights: list[Variable],
        slots: list[list[Variable]],
        average: list[Variable],
        step: Tensor,
    ) -> Tensor:
        """Of one replica's variables, by what all replicas found; gives the outcome."""
        before = Health(*tf.unstack(tf.convert_to_tensor(health)))
        loss, *gradients = [part / before.scale for part in reduced]
        norm = tf.linalg.global_norm(gradients)
        if config.clip_norm:
            factor = tf.minimum(config.clip_norm / norm, 1.0)
            gradients = [gradient * factor for gradient in gradients]
        good, bad, after = judge(before, loss, norm, config)
        health.assign(tf.stack(after))
        _update(config, Variables(weights, slots, average, health), gradients, good, step)
        return tf.stack([loss, tf.cast(good, tf.float32), tf.cast(bad, tf.float32)])

    # By XLA hundreds of small operations are one; on a CPU it makes convolutions slower.
    if tf.config.list_physical_devices("GPU"):
        loss_and_gradients = tf.function(loss_and_gradients, jit_compile=True)
        change = tf.function(change, jit_compile=True)

    def replica_step(inputs: Tensor, targets: Tensor, parts: Tensor) -> list[Tensor]:
        scale = Health(*tf.unstack(tf.convert_to_tensor(variables.health))).scale
        local = loss_and_gradients(inputs, targets, parts, scale)
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, local)

    def one_step(batch: tuple[Tensor, ...], step: Tensor) -> Tensor:
        reduced = strategy.run(replica_step, batch)
        arguments = (reduced, variables.weights, variables.slots, variables.average, step)
        return strategy.extended.update(variables.health, change, arguments, group=False)[0]

    def steps(iterator: Any, first: Tensor, count: Tensor) -> Tensor:
        outcomes = tf.TensorArray(tf.float32, tf.cast(count, tf.int32), element_shape=[3])
        for index in tf.range(count):
            outcome = one_step(next(iterator), first + index)
            outcomes = outcomes.write(tf.cast(index, tf.int32), outcome)
        return outcomes.stack()

    return tf.function(steps)


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
    last_layer = len(variables.weights) - 2
    for index, (weight, gradient) in enumerate(zip(variables.weights, gradients, strict=True)):
        if config.clip_theta:
            limit = config.clip_theta / rate
            gradient = tf.clip_by_value(gradient, -limit, limit)
        if config.weight_decay:
            gradient += config.weight_decay * weight
        factor = config.last_layer_factor if index >= last_layer else 1.0
        slots = [slot[index] for slot in variables.slots]
        new, new_slots = UPDATES[config.optimizer](weight, slots, gradient, factor * rate, count)
        for variable, value in zip([weight, *slots], [new, *new_slots], strict=True):
            variable.assign(tf.where(good, value, variable))
        for variable in variables.average[index : index + 1]:
            mean = variable + (1.0 - decay) * (new - variable)
            variable.assign(tf.where(good, mean, variable))


class StopRequest:
    """Notes the first Ctrl-C or SIGTERM for a safe point; a second one acts at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        _logger.info("stopping after this step, at a checkpoint")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def train(
    config: Config,
    split: Split,
    validation: Validation | None,
    run: str,
    strategy: Strategy,
    workers: Workers,
) -> None:
    """Trains RUN to config.steps from its last checkpoint, or from the beginning.

    Of several workers the chief alone validates and writes. Raises Interrupted after a checkpoint
    on Ctrl-C or SIGTERM; WorkError where step after step has to be skipped or the dataset cannot
    be read.
    """
    checkpoints = Checkpoints(run)
    begin = checkpoints.last() or initial_checkpoint(config)
    _check_agreed(begin.step, workers, run)
    variables = Variables.create(strategy, begin)
    steps = make_steps(strategy, config, config.network(), variables)
    batches = iter(_distributed(strategy, split, config, begin.step))
    state = dataclasses.replace(begin, weights=[], slots=[], average=[])
    metrics = MetricsLog(run, begin.step) if workers.is_chief else None
    pace = Pace()
    progress = Progress("train", config.steps, unit="steps", initial=begin.step)
    note, wanted = "", 1.0

    with StopRequest() as stop, progress:
        while state.step < config.steps:
            # One call: some steps, ending where something is due at the latest.
            count = _steps_to_next_event(config, state.step, round(wanted))
            pace.start()
            outcomes = _run_steps(steps, batches, state.step, count)
            state = _count_steps(state, outcomes, config, run)
            pace.stop(count, config.steps - state.step, config.batch_size)

            # What the steps gave.
            last = state.step == config.steps
            record = {}
            if state.step % config.log_every == 0 or last:
                record = _training_record(config, state, pace)
                state = dataclasses.replace(state, losses=[])
            if validation is not None and (state.step % config.validate_every == 0 or last):
                values = variables.update(state)
                scores = validation(values.result)
                record |= validation_record(scores, validation.bicubic)
                note = f"validation {scores.mean_psnr_db:.2f} dB, "
                state = _keep_best(state, values, scores, checkpoints)
                if metrics is not None:
                    metrics.show(state.step, validation.pictures(values.result))
            if record and metrics is not None:
                metrics.write(state.step, record)
            speed = f"{pace.rate * config.batch_size:.4g} images/s"
            progress.update(state.step, f"{note}loss {outcomes[-1, 0]:.3g}, {speed}")

            # A safe point.
            due = state.step % config.checkpoint_every == 0 or last
            if due and workers.is_chief:
                checkpoints.save(variables.update(state))
            stopping, wanted = workers.mean([stop.requested, pace.steps_a_call])
            if stopping and not last:
                if workers.is_chief and not due:
                    checkpoints.save(variables.update(state))
                raise Interrupted(
                    f"checkpoint at step {state.step:,} of {config.steps:,} in {run}: the same "
                    "command goes on from there"
                )
    if metrics is not None:
        metrics.close()


def _check_agreed(step: int, workers: Workers, run: str) -> None:
    if workers.mean([step]) != [step]:
        raise WorkError(
            f"the workers see different checkpoints, this one step {step:,}: {run} must be a "
            "folder that they share"
        )


def _distributed(strategy: Strategy, split: Split, config: Config, step: int) -> Any:
    def batches(context: tf.distribute.InputContext) -> Any:
        return training_batches(
            split,
            config,
            step,
            per_replica=context.get_per_replica_batch_size(config.batch_size),
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    return strategy.distribute_datasets_from_function(batches)


def _steps_to_next_event(config: Config, step: int, wanted: int) -> int:
    every = (config.log_every, config.validate_every, config.checkpoint_every)
    return min(wanted, config.steps - step, *(period - step % period for period in every))


def _run_steps(steps: Any, batches: Any, first: int, count: int) -> npt.NDArray[np.float32]:
    try:
        outcomes = steps(batches, tf.constant(first, tf.int64), tf.constant(count, tf.int64))
        return np.asarray(outcomes.numpy())
    except tf.errors.ResourceExhaustedError as error:
        raise WorkError(
            f"out of memory: use a smaller --batch-size or --patch-size: {first_line(error)}"
        ) from None
    except (tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise WorkError(
            "the dataset cannot be read (python -m pipelines.verify checks it): "
            + first_line(error)
        ) from None


def _count_steps(
    state: Checkpoint, outcomes: npt.NDArray[np.float32], config: Config, run: str
) -> Checkpoint:
    """``state`` after these steps. Raises WorkError where too many in a row had to be skipped."""
    losses, skipped, in_a_row = list(state.losses), state.skipped, state.skipped_in_a_row
    for step, (loss, good, bad) in enumerate(outcomes.tolist(), state.step + 1):
        if good:
            losses.append(loss)
            in_a_row = 0
            continue
        skipped, in_a_row = skipped + 1, in_a_row + int(bad)
        if bad:
            _logger.warning("step %s skipped: its loss is %.3g", f"{step:,}", loss)
        if in_a_row == MOST_SKIPPED:
            raise WorkError(
                f"{MOST_SKIPPED} steps in a row up to {step:,} had a loss that is not finite "
                f"or over {config.skip_above:g} times the mean: {run}/checkpoints is as it was "
                "before; use --restart with a smaller --learning-rate or with --clip-norm"
            )
    return dataclasses.replace(
        state,
        step=state.step + len(outcomes),
        losses=losses,
        skipped=skipped,
        skipped_in_a_row=in_a_row,
    )


def _training_record(config: Config, state: Checkpoint, pace: Pace) -> dict[str, float]:
    return {
        "train/mse": float(np.mean(state.losses)) if state.losses else math.nan,
        "train/skipped": state.skipped,
        "train/learning_rate": float(learning_rate(config, tf.constant(state.step - 1))),
        "train/images_per_s": pace.rate * config.batch_size,
    }


def validation_record(scores: Scores, bicubic: Scores) -> dict[str, float]:
    """The metrics of one validation."""
    record = {"validation/mse": scores.mse, "validation/bicubic_mse": bicubic.mse}
    for scale, psnr_db in scores.psnr_db.items():
        record[f"validation/psnr_x{scale}"] = psnr_db
        record[f"validation/bicubic_psnr_x{scale}"] = bicubic.psnr_db[scale]
    return record


def _keep_best(
    state: Checkpoint, values: Checkpoint, scores: Scores, checkpoints: Checkpoints
) -> Checkpoint:
    if state.best_psnr_db is not None and scores.mean_psnr_db <= state.best_psnr_db:
        return state
    psnr_db = scores.mean_psnr_db
    checkpoints.save_best(dataclasses.replace(values, best_step=state.step, best_psnr_db=psnr_db))
    return dataclasses.replace(state, best_step=state.step, best_psnr_db=psnr_db)
