"""The training step, and the loop around it."""

import dataclasses
import logging
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import tensorflow as tf

from pipelines.cli import Interrupted, WorkError
from pipelines.progress import Progress
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import Config
from trainer.distribution import Strategy
from trainer.input import Split, training_batches
from trainer.models import Network
from trainer.models.network import Weights
from trainer.monitors import MetricsLog, Pace, Scores, Validation
from trainer.optimizers import SLOTS, UPDATES, learning_rate

Tensor = Any
Variable = Any

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variables:
    """What a step changes, mirrored on every replica."""

    weights: list[Variable]
    slots: list[list[Variable]]
    """The optimizer's, for each of its slots one a weight."""

    @classmethod
    def create(cls, strategy: Strategy, checkpoint: Checkpoint) -> "Variables":
        """With the checkpoint's values."""
        with strategy.scope():
            return cls(
                [tf.Variable(weight) for weight in checkpoint.weights],
                [[tf.Variable(array) for array in slot] for slot in checkpoint.slots],
            )

    def values(self) -> tuple[Weights, list[Weights]]:
        """Weights and slots as numpy arrays."""
        return [v.numpy() for v in self.weights], [[v.numpy() for v in s] for s in self.slots]


def initial_checkpoint(config: Config) -> Checkpoint:
    """Step 0, a pure function of the recipe."""
    weights = config.network().initial_weights(np.random.default_rng(config.seed))
    slots = [[np.zeros_like(w) for w in weights] for _ in range(SLOTS[config.optimizer])]
    return Checkpoint(0, weights, slots)


def make_steps(strategy: Strategy, config: Config, network: Network, variables: Variables) -> Any:
    """A tf.function of (iterator, first step, count): trains ``count`` steps, gives their losses.

    The loss is the sum of squared errors over the global batch divided by its values, so that it
    and its gradients are the same for any number of replicas, but for the order of summation.
    """
    dtype = tf.bfloat16 if config.precision == "bfloat16" else tf.float32

    def squared_error(inputs: Tensor, targets: Tensor) -> Tensor:
        weights = [tf.cast(weight, dtype) for weight in variables.weights]
        output = tf.cast(network.training_output(weights, tf.cast(inputs, dtype)), tf.float32)
        border = network.border_px
        inner = targets[:, border : targets.shape[1] - border, border : targets.shape[2] - border]
        values = config.batch_size * math.prod(inner.shape[1:])
        return tf.reduce_sum(tf.math.squared_difference(output, inner)) / values

    def loss_and_gradients(inputs: Tensor, targets: Tensor) -> list[Tensor]:
        with tf.GradientTape() as tape:
            loss = squared_error(inputs, targets)
        gradients = tape.gradient(loss, variables.weights)
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, *gradients])

    def one_step(batch: tuple[Tensor, Tensor], step: Tensor) -> Tensor:
        loss, *gradients = strategy.run(loss_and_gradients, batch)
        _update(strategy, config, variables, gradients, step)
        return strategy.experimental_local_results(loss)[0]

    def steps(iterator: Any, first: Tensor, count: Tensor) -> Tensor:
        losses = tf.TensorArray(tf.float32, tf.cast(count, tf.int32))
        for index in tf.range(count):
            losses = losses.write(tf.cast(index, tf.int32), one_step(next(iterator), first + index))
        return losses.stack()

    return tf.function(steps)


def _update(
    strategy: Strategy,
    config: Config,
    variables: Variables,
    gradients: Sequence[Tensor],
    step: Tensor,
) -> None:
    rate = learning_rate(config, step)
    count = tf.cast(step + 1, tf.float32)

    def update(weight: Variable, gradient: Tensor, factor: float, *slots: Variable) -> None:
        if config.clip_theta:
            limit = config.clip_theta / rate
            gradient = tf.clip_by_value(gradient, -limit, limit)
        if config.weight_decay:
            gradient += config.weight_decay * weight
        UPDATES[config.optimizer](weight, slots, gradient, factor * rate, count)

    last_layer = len(variables.weights) - 2
    for index, weight in enumerate(variables.weights):
        factor = config.last_layer_factor if index >= last_layer else 1.0
        slots = [slot[index] for slot in variables.slots]
        strategy.extended.update(weight, update, args=(gradients[index], factor, *slots))


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
    config: Config, split: Split, validation: Validation | None, run: Path, strategy: Strategy
) -> None:
    """Trains RUN to config.steps from its last checkpoint, or from the beginning.

    Raises Interrupted after a checkpoint on Ctrl-C or SIGTERM, WorkError where the loss is not
    finite or the dataset cannot be read.
    """
    checkpoints = Checkpoints(run)
    begin = checkpoints.last() or initial_checkpoint(config)
    variables = Variables.create(strategy, begin)
    steps = make_steps(strategy, config, config.network(), variables)
    batches = iter(_distributed(strategy, split, config, begin.step))
    state = dataclasses.replace(begin, weights=[], slots=[])
    metrics, pace = MetricsLog(run, begin.step), Pace()
    progress = Progress("train", config.steps, unit="steps", initial=begin.step)
    note = ""

    with StopRequest() as stop, progress:
        while state.step < config.steps:
            # One call: some steps, ending where something is due at the latest.
            count = _steps_to_next_event(config, state.step, pace.steps_a_call)
            pace.start()
            losses = _run_steps(steps, batches, state.step, count)
            step = state.step + count
            pace.stop(count, config.steps - step, config.batch_size)
            state = dataclasses.replace(state, step=step, losses=[*state.losses, *losses])
            _check_finite(losses, step, run)

            # What the steps gave.
            last = step == config.steps
            record = {}
            if step % config.log_every == 0 or last:
                record = _training_record(config, state, pace)
                state = dataclasses.replace(state, losses=[])
            if validation is not None and (step % config.validate_every == 0 or last):
                scores = validation(variables.values()[0])
                record |= validation_record(scores, validation.bicubic)
                note = f"validation {scores.mean_psnr_db:.2f} dB, "
                state = _keep_best(state, scores, variables, checkpoints)
            if record:
                metrics.write(step, record)
            shown = f"{note}loss {losses[-1]:.3g}, {pace.rate * config.batch_size:.4g} images/s"
            progress.update(step, shown)

            # A safe point.
            if step % config.checkpoint_every == 0 or last or stop.requested:
                checkpoints.save(_with_values(state, variables))
            if stop.requested and not last:
                raise Interrupted(
                    f"checkpoint at step {step:,} of {config.steps:,} in {run}: the same command "
                    "goes on from there"
                )
    metrics.close()


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


def _run_steps(steps: Any, batches: Any, first: int, count: int) -> list[float]:
    try:
        losses = steps(batches, tf.constant(first, tf.int64), tf.constant(count, tf.int64))
    except tf.errors.ResourceExhaustedError as error:
        raise WorkError(
            "out of memory: use a smaller --batch-size or --patch-size: "
            f"{error.message.splitlines()[0]}"
        ) from None
    except (tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise WorkError(
            f"the dataset cannot be read (python -m pipelines.verify checks it): "
            f"{error.message.splitlines()[0]}"
        ) from None
    return losses.numpy().tolist()


def _check_finite(losses: Sequence[float], step: int, run: Path) -> None:
    if not all(map(math.isfinite, losses)):
        raise WorkError(
            f"the loss is not finite at step {step:,}: try --restart with a smaller "
            f"--learning-rate; {run}/checkpoints is as it was before"
        )


def _training_record(config: Config, state: Checkpoint, pace: Pace) -> dict[str, float]:
    return {
        "train/mse": float(np.mean(state.losses)),
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
    state: Checkpoint, scores: Scores, variables: Variables, checkpoints: Checkpoints
) -> Checkpoint:
    if state.best_psnr_db is not None and scores.mean_psnr_db <= state.best_psnr_db:
        return state
    state = dataclasses.replace(state, best_step=state.step, best_psnr_db=scores.mean_psnr_db)
    checkpoints.save_best(_with_values(state, variables))
    return state


def _with_values(state: Checkpoint, variables: Variables) -> Checkpoint:
    weights, slots = variables.values()
    return dataclasses.replace(state, weights=weights, slots=slots)
