"""The loop around the training step: validation, checkpoints, what it shows, a safe end."""

import dataclasses
import logging
import math
from contextlib import suppress
from typing import Any

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
from trainer.step import TrainingStep
from trainer.stop import Stopped, StopRequest

_logger = logging.getLogger(__name__)


def train(
    config: Config,
    split: Split,
    validation: Validation | None,
    run: str,
    strategy: Strategy,
    workers: Workers,
    begin: Checkpoint,
) -> None:
    """Trains RUN to config.steps from its checkpoint ``begin`` on.

    Of several workers the chief alone validates and writes. Raises Interrupted after a checkpoint
    on Ctrl-C or SIGTERM; WorkError where step after step has to be skipped or the dataset cannot
    be read.
    """
    checkpoints = Checkpoints(run)
    if begin.best_step is not None and checkpoints.best() is None:
        begin = dataclasses.replace(begin, best_step=None, best_psnr_db=None)
    shapes = {name: weight.shape for name, weight in begin.weights.items()}
    if shapes != config.network().shapes:
        raise WorkError(f"{run}/checkpoints are of another network than its config.yaml: --restart")
    _check_agreed(begin.step, workers, run)
    step = TrainingStep(strategy, config, begin)
    batches = _batches(strategy, split, config, begin.step)
    state = dataclasses.replace(begin, weights={}, slots=[], average={})
    metrics = MetricsLog(run, begin.step, begin.record) if workers.is_chief else None
    pace = Pace()
    progress = Progress("train", config.steps, unit="steps", initial=begin.step)
    note, loss, wanted = "", "", 1.0

    with StopRequest() as stop, progress:
        while state.step < config.steps or not state.recorded:
            if state.recorded:
                # One call: some steps, ending where something is due at the latest.
                count = _steps_to_next_event(config, state.step, round(wanted))
                pace.start()
                with naming_damage(
                    split, config.seed, state.step * config.batch_size // config.patches_per_crop
                ):
                    outcomes = _run_steps(step, batches, state.step, count)
                stop.arm()
                state = _count_steps(state, outcomes, config, run)
                pace.stop(count, config.steps - state.step, config.batch_size)
                loss = f"loss {outcomes[-1, 0]:.3g}, {pace.rate * config.batch_size:.4g} images/s"

            # What they gave.
            scores, result = None, {}
            with suppress(Stopped):
                if validation is not None and _is_due(config.validate_every, state, config):
                    result = step.update(state).result
                    scores = validation(result, stop.check)
                    note = f"validation {scores.mean_psnr_db:.2f} dB, "
                state = _recorded(state, config, pace, scores, validation)
            if scores is not None and state.best_step == state.step:
                checkpoints.save_best(step.update(state))
            progress.update(state.step, note + loss)

            # A safe point: the checkpoint first, then what may fail without harm.
            due = _is_due(config.checkpoint_every, state, config)
            if due and workers.is_chief:
                checkpoints.save(step.update(state))
            if metrics is not None and state.record:
                metrics.write(state.step, state.record)
            if metrics is not None and validation is not None and scores is not None:
                with suppress(Stopped):
                    metrics.show(state.step, validation.pictures(result, stop.check))
            stopping, wanted, recorded = workers.mean(
                [stop.requested, pace.steps_a_call, state.recorded]
            )
            if stopping and (state.step < config.steps or recorded < 1):
                _logger.info("stopping at a checkpoint")
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


# To the end of the process. What fetches batches to devices is a dataset of TensorFlow's own, which
# tunes itself whatever our options say: its destructor may wait a minute for that.
_kept: list[Any] = []


def _batches(strategy: Strategy, split: Split, config: Config, step: int) -> Any:
    """An iterator over the batches from a step on, for each replica its own."""
    if strategy.num_replicas_in_sync == 1 and not tf.config.list_physical_devices("GPU"):
        return iter(training_batches(split, config, step))

    def batches(context: tf.distribute.InputContext) -> Any:
        return training_batches(
            split,
            config,
            step,
            per_replica=context.get_per_replica_batch_size(config.batch_size),
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    _kept.append(iter(strategy.distribute_datasets_from_function(batches)))
    return _kept[-1]


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
        record={},
        recorded=False,
    )


def _is_due(every: int, state: Checkpoint, config: Config) -> bool:
    return state.step % every == 0 or state.step == config.steps


def _recorded(
    state: Checkpoint,
    config: Config,
    pace: Pace,
    scores: Scores | None,
    validation: Validation | None,
) -> Checkpoint:
    """``state`` with the record of what is due at its step, and the best score up to there."""
    record: dict[str, float] = {}
    losses, best_step, best_psnr_db = state.losses, state.best_step, state.best_psnr_db
    if _is_due(config.log_every, state, config):
        record, losses = _training_record(config, state, pace), []
    if validation is not None and scores is not None:
        record |= validation_record(scores, validation.bicubic)
        if best_psnr_db is None or scores.mean_psnr_db > best_psnr_db:
            best_step, best_psnr_db = state.step, scores.mean_psnr_db
    return dataclasses.replace(
        state,
        losses=losses,
        best_step=best_step,
        best_psnr_db=best_psnr_db,
        record=record,
        recorded=True,
    )


def _training_record(config: Config, state: Checkpoint, pace: Pace) -> dict[str, float]:
    return {
        f"train/{config.loss}": float(np.mean(state.losses)) if state.losses else math.nan,
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
