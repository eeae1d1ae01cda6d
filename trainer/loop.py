"""The loop around the training step: validation, checkpoints, what it shows, a safe end."""

import dataclasses
import logging
import math
import signal
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.command.cli import Interrupted, WorkError
from pipelines.command.progress import Progress
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import Config
from trainer.damage import naming_damage
from trainer.dataset import Split
from trainer.distribution import Strategy, Workers
from trainer.files import reason
from trainer.health import MOST_SKIPPED
from trainer.input import training_batches
from trainer.monitors import MetricsLog, Pace, Scores, Validation
from trainer.optimizers import learning_rate
from trainer.step import TrainingStep, initial_checkpoint

_logger = logging.getLogger(__name__)


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
    step = TrainingStep(strategy, config, begin)
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
            with naming_damage(
                split, config.seed, state.step * config.batch_size // config.patches_per_crop
            ):
                outcomes = _run_steps(step, batches, state.step, count)
            state = _count_steps(state, outcomes, config, run)
            pace.stop(count, config.steps - state.step, config.batch_size)

            # What the steps gave.
            last = state.step == config.steps
            record = {}
            if state.step % config.log_every == 0 or last:
                record = _training_record(config, state, pace)
                state = dataclasses.replace(state, losses=[])
            if validation is not None and (state.step % config.validate_every == 0 or last):
                values = step.update(state)
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
                checkpoints.save(step.update(state))
            stopping, wanted = workers.mean([stop.requested, pace.steps_a_call])
            if stopping and not last:
                if workers.is_chief and not due:
                    checkpoints.save(step.update(state))
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


def _run_steps(step: TrainingStep, batches: Any, first: int, count: int) -> npt.NDArray[np.float32]:
    try:
        return step(batches, first, count)
    except tf.errors.ResourceExhaustedError as error:
        raise WorkError(
            f"out of memory: use a smaller --batch-size or --patch-size: {reason(error)}"
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
