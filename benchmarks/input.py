"""The input against the steps it feeds: python -m benchmarks.input --data DIR [RECIPE ...].

For each recipe: patches that one core makes in a second (by CPU time), patches that the training
step of this machine takes in a second (by the clock, all cores), and how many times over the
machine's cores could feed it.
"""

import argparse
import dataclasses
import os
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as python -m trainer does

import numpy as np
import tensorflow as tf

from pipelines.dataset.manifest import Manifest
from trainer import config as recipes
from trainer.config import Config
from trainer.dataset import Split
from trainer.distribution import make_strategy
from trainer.input import training_batches
from trainer.step import TrainingStep, initial_checkpoint

_WARM_UP = 2


def patches_a_core_second(split: Split, config: Config, seconds: float) -> float:
    """Made by the input alone, by CPU time; the first batches are left out."""
    batches = iter(training_batches(split, config, 0))
    for _ in range(_WARM_UP):
        next(batches)
    cpu, clock, count = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - clock < seconds:
        next(batches)
        count += config.batch_size
    return count / (time.process_time() - cpu)


def patches_a_second(strategy: tf.distribute.Strategy, config: Config, seconds: float) -> float:
    """Taken by the training step, on batches that are there already."""
    step = TrainingStep(strategy, config, initial_checkpoint(config))
    channels = 1 if config.channels == "y" else 3
    shape = (config.batch_size, config.patch_size, config.patch_size, channels)
    pictures = np.random.default_rng(0).random(shape, np.float32)
    weights = np.ones(config.batch_size, np.float32)
    dataset = tf.data.Dataset.from_tensors((pictures, pictures, weights)).repeat()
    batches = iter(strategy.experimental_distribute_dataset(dataset))
    step(batches, 0, 1)
    clock, count = time.perf_counter(), 0
    while not count or time.perf_counter() - clock < seconds:
        step(batches, 0, 1)
        count += config.batch_size
    return count / (time.perf_counter() - clock)


def main() -> None:
    """A line a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="dataset folder with scales 2, 3, 4")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's, to save memory")
    parser.add_argument(
        "recipes", nargs="*", default=["srcnn", "vdsr", "srcnn_paper", "vdsr_paper"]
    )
    options = parser.parse_args()
    strategy = make_strategy(None)
    manifest = Manifest.load(options.data)
    split = Split.of(manifest, options.data, "train")
    cores = os.cpu_count() or 1
    print(f"{cores} cores\n{'recipe':16}{'input/s a core':>16}{'step/s':>10}{'times':>8}")
    for name in options.recipes:
        config = recipes.build(name, {}).resolved()
        size = config.patch_size or manifest.options.crop_size
        batch = options.batch_size or config.batch_size
        per_crop = min(config.patches_per_crop, batch)
        config = dataclasses.replace(
            config, patch_size=size, batch_size=batch, patches_per_crop=per_crop
        )
        made = patches_a_core_second(split, config, options.seconds)
        taken = patches_a_second(strategy, config, options.seconds)
        print(f"{name:16}{made:16.1f}{taken:10.2f}{made * cores / taken:8.1f}", flush=True)


if __name__ == "__main__":
    main()
