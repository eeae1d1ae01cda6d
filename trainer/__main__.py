"""python -m trainer: options -> a trained run folder -> exit status."""

import argparse
import contextlib
import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

# TensorFlow leaves oneDNN off where a CPU lacks AVX-512, where SRCNN's step takes half with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import tensorflow as tf

from pipelines.command import cli
from pipelines.command.cli import UsageError
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Fault, Manifest, check_listing
from pipelines.dataset.options import Degradation
from trainer import config as recipes
from trainer import files
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import Config
from trainer.dataset import Split, load_manifest
from trainer.distribution import Strategy, Workers, make_strategy
from trainer.export import ModelDescription, export_model, is_exported
from trainer.input import validation_crops
from trainer.loop import train
from trainer.models import NETWORKS
from trainer.monitors import Validation
from trainer.run_folder import Lock, RunFolder
from trainer.trained import best_checkpoint, starting_weights

_logger = logging.getLogger("trainer")


def main(arguments: Sequence[str]) -> None:
    """Trains, or goes on with, the run that the arguments describe.

    Raises UsageError before anything is written, WorkError and Interrupted as trainer.loop.train.
    """
    options = vars(_parser().parse_args(arguments))
    data, output = options.pop("data"), options.pop("output")
    restart, replicas = options.pop("restart"), options.pop("replicas", None)
    config = _config(options)
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
            _train(run, split, strategy, workers)


def _train(run: RunFolder, split: Split, strategy: Strategy, workers: Workers) -> None:
    if _is_finished(run):
        _logger.info("already trained for %s steps: %s", f"{run.config.steps:,}", run.path)
        return
    validation = _validation(run) if workers.is_chief else None
    train(run.config, split, validation, run.path, strategy, workers)
    if workers.is_chief:
        _finish(run, validation)
    workers.wait()


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


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(
        "python -m trainer",
        "Trains a super-resolution network; goes on by itself where RUN holds a checkpoint.",
    )
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add(
        "--data", required=True, default=unset, metavar="DIR", help="dataset folder, local or s3://"
    )
    add("--output", required=True, default=unset, metavar="RUN", help="run folder, local or s3://")
    add(
        "--config",
        default=unset,
        metavar="FILE.yaml",
        help="recipe: a YAML file or the name of one of trainer/configs (default: --model's, "
        f"without a GPU MODEL{recipes.FOR_CPU})",
    )
    add("--restart", action="store_true", help="begin again; the old run is kept as RUN.old-N")
    add(
        "--replicas",
        type=cli.positive_int,
        default=unset,
        metavar="N",
        help="GPUs to use, or logical CPU devices (default: every GPU, or the CPU as one)",
    )
    group = parser.add_argument_group(
        "the recipe",
        f"Each in place of the recipe's value; in brackets the values of {', '.join(NETWORKS)}.",
    )
    defaults = [recipes.build(name, {}) for name in NETWORKS]
    for field in dataclasses.fields(Config):
        values = dict.fromkeys(_text(getattr(default, field.name)) for default in defaults)
        group.add_argument(
            f"--{recipes.written(field.name).replace('_', '-')}",
            dest=field.name,
            default=unset,
            help=f"{field.metadata['help']} [{', '.join(values)}]",
            **_argument(field.type),
        )
    return parser


def _argument(kind: Any) -> dict[str, Any]:
    """What argparse needs to know for a field of this type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if kind == tuple[float, ...]:
        return {"type": _numbers, "metavar": "X,X,X"}
    if get_origin(kind) is tuple:
        return {"type": cli.scales, "metavar": "2,3,4"}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) or "none"


def _config(options: dict[str, Any]) -> Config:
    if recipe := options.pop("config", None):
        return recipes.build(recipe, options)
    if "model" not in options:
        raise UsageError("--model or --config is needed (see python -m trainer --help)")
    recipe = options["model"]
    for_cpu = recipes.RECIPES / f"{recipe}{recipes.FOR_CPU}.yaml"
    if for_cpu.is_file() and not tf.config.list_physical_devices("GPU"):
        recipe = for_cpu.stem
        _logger.info(
            "no GPU here: the recipe is %s, made for a CPU; --config %s is the article's own",
            recipe, options["model"],
        )  # fmt: skip
    return recipes.build(recipe, options)


def _load_dataset(data: str) -> Manifest:
    manifest = load_manifest(data)
    try:
        if files.is_local(data):
            check_listing(DatasetFolder(data), manifest)
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
    if config.patch_size > crop_size or crop_size <= 2 * border_px:
        raise UsageError(
            f"the dataset's crops are {crop_size} px: use a --patch-size of at most that, and "
            f"more than {2 * border_px}"
        )


def _is_finished(run: RunFolder) -> bool:
    if not is_exported(run.path):
        return False
    last = Checkpoints(run.path).last()
    return last is not None and last.step >= run.config.steps


def _validation(run: RunFolder) -> Validation | None:
    if run.manifest.num_examples("validation") == 0:
        _logger.warning("the dataset has no validation split: the last step counts as the best")
        return None
    split = Split.of(run.manifest, run.directory, "validation")
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


if __name__ == "__main__":
    # tensorflow-io's s3:// aborts the process while Python shuts down.
    cli.run(main, leave=os._exit)
