"""The devices that a step runs on: one process, or several that TF_CONFIG names."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.command.cli import UsageError, WorkError

Strategy = Any


def make_strategy(replicas: int | None) -> Strategy:
    """One replica a GPU, or one on the CPU where there is none; at most one call a process.

    ``replicas`` takes that many GPUs, or divides the CPU into as many logical devices (to try
    on one machine what several GPUs would do). With TF_CONFIG in the environment this process
    becomes one of the workers that it lists, and waits for the others. Raises UsageError for
    more replicas than there are GPUs and for a TF_CONFIG that is none.
    """
    # They tell at length about collectives set up and names changed in a SavedModel.
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # TensorFlow 2.16 turns sums of three terms into an accumulator that a loop creates twice:
    # AlreadyExistsError in the second step of a call.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if "TF_CONFIG" in os.environ:
        return _multi_worker_strategy(replicas)
    if not gpus:
        return _cpu_strategy(replicas or 1)
    if replicas is not None and replicas > len(gpus):
        raise UsageError(f"--replicas {replicas} is more than the {len(gpus)} GPUs here")
    return tf.distribute.MirroredStrategy([f"GPU:{n}" for n in range(replicas or len(gpus))])


def _cpu_strategy(replicas: int) -> Strategy:
    if replicas == 1:
        # Several operations at a time take the cores and the cache from one another.
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        tf.config.set_logical_device_configuration(cpu, devices)
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])


def _multi_worker_strategy(replicas: int | None) -> Strategy:
    if replicas is not None:
        raise UsageError("--replicas is for one process: with TF_CONFIG each uses all its GPUs")
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        task = config["task"]
        addresses = config["cluster"][task["type"]]
        if task["type"] not in ("chief", "worker") or not addresses[int(task["index"])]:
            raise ValueError
    except (ValueError, KeyError, TypeError, IndexError):
        raise UsageError(
            'TF_CONFIG is not {"cluster": {"worker": ["host:port", …]}, "task": {"type": '
            '"worker", "index": 0}}'
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def describe_devices(strategy: Strategy) -> str:
    """What a step runs on, of all workers: '2 GPUs (NVIDIA H200)'."""
    replicas = strategy.num_replicas_in_sync
    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        name = details.get("device_name", "unknown")
        return f"{replicas} GPU{'s' if replicas > 1 else ''} ({name})"
    parts = f", as {replicas} replicas" if replicas > 1 else ""
    return f"a CPU (no GPU found, {os.cpu_count()} cores{parts})"


class Workers:
    """The processes of a training, each of which runs the same loop."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        resolver: Any = getattr(strategy, "cluster_resolver", None)
        spec = resolver.cluster_spec().as_dict() if resolver else {}
        self.count = sum(len(spec.get(kind, ())) for kind in ("chief", "worker")) or 1
        first = "chief" if "chief" in spec else "worker"
        self.is_chief = not spec or (resolver.task_type, resolver.task_id) == (first, 0)
        """The one that writes."""
        self._mean = tf.function(self._mean_over_replicas, autograph=False)

    def _mean_over_replicas(self, values: Any) -> Any:
        def mean(values: Any) -> Any:
            context = tf.distribute.get_replica_context()
            # The copy lies on the replica's device, which the reduction goes by.
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(values))

        result = self._strategy.run(mean, (values,))
        return self._strategy.experimental_local_results(result)[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within it, raises WorkError where another worker is gone."""
        try:
            yield
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
        ) as error:
            if self.count == 1:
                raise
            reasons = [line for line in str(error.message).splitlines() if "aborted by" in line]
            raise WorkError(
                "another worker is gone; start all of them again, the run goes on from its last "
                f"checkpoint{': ' + reasons[0].strip() if reasons else ''}"
            ) from None

    def mean(self, values: Sequence[float]) -> list[float]:
        """Of each value over the workers, the same everywhere; all must call it."""
        if self.count == 1:
            return list(values)
        means = self._mean(tf.constant(np.array(values, np.float64)))
        return [float(value) for value in means.numpy()]

    def wait(self) -> None:
        """Until all workers are here."""
        self.mean([0.0])
