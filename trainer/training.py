"""From a recipe and a dataset to a trained run folder."""

import contextlib
import logging
from pathlib import Path

import numpy as np

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.manifest import Fault, Manifest, check_listing
from pipelines.dataset.options import Degradation
from trainer import files
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import Config
from trainer.damage import naming_damage
from trainer.dataset import Split, load_manifest
from trainer.distribution import Strategy, Workers, describe_devices, make_strategy
from trainer.export import MODEL_FOLDER, WEIGHTS, ModelDescription, export_model, is_exported
from trainer.input import validation_crops
from trainer.loop import train
from trainer.monitors import Validation
from trainer.run_folder import Lock, RunFolder
from trainer.step import initial_checkpoint
from trainer.trained import best_checkpoint, starting_weights
from trainer.weights_file import read_weights

_MOST_CROP_PX = 2048  # an enlargement is a matrix of as many rows and columns
_logger = logging.getLogger("trainer")


def run_training(
    config: Config,
    data: str,
    output: str,
    *,
    recipe: str,
    restart: bool = False,
    replicas: int | None = None,
) -> None:
    """Trains by ``config`` on the dataset ``data``, or goes on with the run folder ``output``.

    ``recipe`` is what the configuration is called where it is told what is done.
    Raises UsageError before anything is written, WorkError and Interrupted as trainer.loop.train.
    """
    for path in (data, output):
        files.check(path)
    strategy = make_strategy(replicas)
    run = RunFolder(output, config, data, _load_dataset(data)).resolved(restart)
    config = run.config
    if not restart:
        run.check()
    split = Split.of(run.manifest, data, "train")
    _check_fits(config, run.manifest)
    if config.from_ and (restart or not run.has_begun()):
        starting_weights(config)
    config.check_batch(strategy.num_replicas_in_sync)
    workers = Workers(strategy)

    with workers.together():
        workers.wait()  # the others may still look into a folder that is not begun
        with _begin(run, restart) if workers.is_chief else contextlib.nullcontext():
            workers.wait()
            _train(run, recipe, split, strategy, workers)


def _train(run: RunFolder, recipe: str, split: Split, strategy: Strategy, workers: Workers) -> None:
    if _is_finished(run):
        _logger.info("already trained for %s steps: %s", f"{run.config.steps:,}", run.path)
        return
    begin = Checkpoints(run.path).last() or initial_checkpoint(run.config)
    _logger.info("%s", _plan(run.config, recipe, split, strategy, begin.step))
    validation = _validation(run) if workers.is_chief else None
    train(run.config, split, validation, run.path, strategy, workers, begin)
    if workers.is_chief:
        _finish(run, validation)
    _part(run, workers)


def _plan(config: Config, recipe: str, split: Split, strategy: Strategy, step: int) -> str:
    """In one line what is going to be done, and on what."""
    going_on = f"; going on from step {step:,}" if step else ""
    return (
        f"{config.model} by {recipe} on {describe_devices(strategy)} in {config.precision}: "
        f"{config.steps:,} steps of {config.batch_size:,} patches, from {sum(split.counts):,} "
        f"crops{going_on}"
    )


def _part(run: RunFolder, workers: Workers) -> None:
    """Waits for the chief's last file. Raises WorkError where that does not come."""
    try:
        with workers.together():
            workers.wait()
    except WorkError:
        # Who has its answer leaves, perhaps before another one has its own.
        if not _is_finished(run):
            raise


def _begin(run: RunFolder, restart: bool) -> Lock:
    """Makes the folder this process's own."""
    lock = run.lock()
    if restart and (aside := run.set_aside()):
        _logger.info("the old run is now %s", aside)
        lock.release()
        lock = run.lock()
    run.check()
    run.begin()
    return lock


def _load_dataset(data: str) -> Manifest:
    manifest = load_manifest(data)
    try:
        if files.is_local(data):
            examples = Path(data, "examples").glob("*.tfrecord")
            check_listing({path.name: path.stat().st_size for path in examples}, manifest)
    except Fault as fault:
        raise UsageError(f"{data} is not complete: {fault}; copy it once more") from None
    return manifest


def _check_fits(config: Config, manifest: Manifest) -> None:
    """Raises UsageError where the dataset lacks what the recipe wants."""
    missing = sorted(set(config.scales) - set(manifest.options.scales))
    if missing:
        there = ",".join(map(str, manifest.options.scales))
        raise UsageError(f"the dataset has scales {there} but not {missing[0]}: use --scales")
    crop_size = manifest.options.crop_size
    border_px = config.network().border_px
    smallest = int(crop_size * min(config.shrink_factors))
    if config.scale_augment and not 0 < config.patch_size <= smallest:
        raise UsageError(
            f"scale_augment shrinks the dataset's crops of {crop_size} px to {smallest}: use a "
            "--patch-size of at most that"
        )
    if crop_size > _MOST_CROP_PX:
        raise UsageError(
            f"the dataset's crops are {crop_size} px: over {_MOST_CROP_PX} are not read"
        )
    whole = config.whole(crop_size)
    if (config.lr == "stored" or not config.patch_size) and whole != crop_size:
        raise UsageError(
            f"the dataset's crops of {crop_size} px have no whole LR at x{config.ratio}: use one "
            f"built with --crop-size {whole}"
        )
    if config.patch_size > crop_size or crop_size <= 2 * border_px:
        raise UsageError(
            f"the dataset's crops are {crop_size} px: use a --patch-size of at most that, and "
            f"more than {2 * border_px}"
        )


def _is_finished(run: RunFolder) -> bool:
    """Whether nothing is left to do: the model may be of fewer steps, exported before."""
    if not is_exported(run.path):
        return False
    last, best = Checkpoints(run.path).last(), best_checkpoint(run.path)
    if last is None or best is None or last.step < run.config.steps or not last.recorded:
        return False
    try:
        exported = read_weights(files.join(run.path, MODEL_FOLDER, WEIGHTS)).weights
    except UsageError:
        return False
    return exported.keys() == best.result.keys() and all(
        np.array_equal(exported[name], best.result[name]) for name in exported
    )


def _validation(run: RunFolder) -> Validation | None:
    if run.manifest.num_examples("validation") == 0:
        _logger.warning("the dataset has no validation split: the last step counts as the best")
        return None
    split = Split.of(run.manifest, run.directory, "validation")
    with naming_damage(split, seed=0, first=0):
        crops = validation_crops(split, run.config)
    return Validation(run.config.network(), run.config.scales, crops)


def _finish(run: RunFolder, validation: Validation | None) -> None:
    """Exports the best model and says what it reaches."""
    best = best_checkpoint(run.path)
    assert best is not None
    config, stored = run.config, run.manifest.options.degradation
    degradation = stored if config.lr == "stored" else Degradation.BICUBIC
    description = ModelDescription(config.model, config.channels, config.scales, degradation.value)
    folder = export_model(run.path, description, config.network(), best.result)
    gains_db = _summarize(best, validation) if validation is not None else []
    _logger.info("the model of step %s is in %s", f"{best.step:,}", folder)
    if gains_db and max(gains_db) < 0:
        _logger.warning(
            "it is worse than bicubic at every scale: train longer, or anew with a smaller "
            "--learning-rate"
        )


def _summarize(best: Checkpoint, validation: Validation) -> list[float]:
    """Says what each scale gains over bicubic, and gives it in dB."""
    scores = validation(best.result)
    gains_db = []
    for scale, psnr_db in scores.psnr_db.items():
        bicubic = validation.bicubic.psnr_db[scale]
        gains_db.append(psnr_db - bicubic)
        _logger.info(
            "x%d: %.2f dB on the validation crops, bicubic %.2f dB, gain %+.2f dB",
            scale, psnr_db, bicubic, gains_db[-1],
        )  # fmt: skip
    return gains_db
