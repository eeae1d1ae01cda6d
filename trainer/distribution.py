"""The devices that a step runs on."""

import logging
from typing import Any

import tensorflow as tf

from pipelines.cli import UsageError

Strategy = Any


def make_strategy(replicas: int | None) -> Strategy:
    """One replica a GPU, or one on the CPU where there is none; at most one call a process.

    ``replicas`` takes that many GPUs, or divides the CPU into as many logical devices (to try
    on one machine what several GPUs would do). Raises UsageError for more than there are GPUs.
    """
    # They tell at length about collectives set up and names changed in a SavedModel.
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return _cpu_strategy(replicas or 1)
    if replicas is not None and replicas > len(gpus):
        raise UsageError(f"--replicas {replicas} is more than the {len(gpus)} GPUs here")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf.distribute.MirroredStrategy([f"GPU:{n}" for n in range(replicas or len(gpus))])


def _cpu_strategy(replicas: int) -> Strategy:
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        tf.config.set_logical_device_configuration(cpu, devices)
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])
