"""What a network costs: its weights, its multiplications, its time on this machine."""

import math
import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from evaluation.options import DEFAULT_SCALES
from evaluation.pictures import HASH_DIGITS
from evaluation.published import METHODS, Method
from evaluation.results import Cost
from evaluation.tiles import in_tiles
from evaluation.upscalers import load_network
from trainer.cards import shipped_names
from trainer.models import Network
from trainer.models.network import Shape

if TYPE_CHECKING:
    from trainer.trained import TrainedModel

HEIGHT_PX, WIDTH_PX = 720, 1280
"""Of the result, as papers compare costs."""
_RUNS = 3
_CPU_INFO = Path("/proc/cpuinfo")
_CPU_NAME = re.compile(r"model name\s*:(.*)")


def measure(names: Sequence[str]) -> Iterator[Cost]:
    """Of models at each of their scales; without ``names`` of those shipped and published.

    Networks of one shape take the same time and are measured once. Raises UsageError for a name
    that is none.
    """
    times: dict[tuple[Network, int], float] = {}
    run_at, machine = datetime.now(UTC).isoformat(timespec="seconds"), _machine()
    for model, scale in _models(names):
        network = model.network
        # Its own has the shapes of one scale.
        shapes = {name: weight.shape for name, weight in model.weights_at(scale).items()}
        key = network, scale if network.takes == "lr" else 0
        if key not in times:
            times[key] = seconds(model, scale)
        yield Cost(
            run_at=run_at,
            machine=machine,
            model=model.name,
            weights=model.weights_sha256[:HASH_DIGITS],
            scale=scale,
            parameters=sum(map(math.prod, shapes.values())),
            gmac=multiplications(network, shapes, scale) / 1e9,
            ms=times[key] * 1000,
        )


def _models(names: Sequence[str]) -> Iterator[tuple["TrainedModel", int]]:
    for name in names or shipped_names():
        model = load_network(name)
        for scale in model.scales or DEFAULT_SCALES:
            yield model, scale
    if not names:
        for method in METHODS:
            if method.network:
                for scale in method.psnr_db["set5"]:
                    yield _untrained(method, scale), scale


def _untrained(method: Method, scale: int) -> "TrainedModel":
    """Of the method's shape, to see what it costs."""
    from trainer.export import ModelDescription
    from trainer.trained import EVERY_SCALE, TrainedModel

    network = method.network_at(scale)
    channels = "y" if network.channels == 1 else "rgb"
    weights = network.initial_weights(np.random.default_rng(0))
    description = ModelDescription(network.name, channels, (scale,), None)
    return TrainedModel(method.name, description, network, {EVERY_SCALE: weights}, "")


def multiplications(network: Network, shapes: Mapping[str, Shape], scale: int) -> int:
    """Of its convolutions, each with an addition, for a result of 1280x720 pixels.

    A deconvolution multiplies once for each pixel of its input and weight; some papers count its
    output's pixels, which are more by the square of the scale.
    """
    import tensorflow as tf

    height, width = _input_size(network, scale)
    graph = tf.Graph()
    with graph.as_default():
        weights = {
            name: tf.zeros(shape, name=name.replace("/", "_")) for name, shape in shapes.items()
        }
        network(weights, tf.zeros([1, height, width, network.channels]), scale)
    total = 0
    for operation in graph.get_operations():
        if operation.type == "Conv2D":
            pixels, kernel = operation.outputs[0].shape, operation.inputs[1].shape
        elif operation.type == "Conv2DBackpropInput":
            pixels, kernel = operation.inputs[2].shape, operation.inputs[1].shape
        else:
            continue
        total += int(np.prod(pixels[1:3]) * np.prod(kernel))
    made = height * width * network.ratio(scale) ** 2
    return round(total * HEIGHT_PX * WIDTH_PX / made)


def seconds(model: "TrainedModel", scale: int) -> float:
    """The median time from its input in memory to its output, in tiles as in an evaluation."""
    height, width = _input_size(model.network, scale)
    shape = (1, height, width, model.network.channels)
    images = np.random.default_rng(0).random(shape, np.float32)
    network, ratio = partial(model, scale=scale), model.network.ratio(scale)
    times = []
    for _ in range(1 + _RUNS):  # the first to warm up
        started = perf_counter()
        in_tiles(network, images, model.reach_px, ratio)
        times.append(perf_counter() - started)
    return statistics.median(times[1:])


def _input_size(network: Network, scale: int) -> tuple[int, int]:
    """Height and width for at least the result's."""
    ratio = network.ratio(scale)
    return -(-HEIGHT_PX // ratio), -(-WIDTH_PX // ratio)


def _machine() -> str:
    """'2 cores of AMD EPYC', or the name of its GPU."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        return str(details.get("device_name", "a GPU"))
    found = _CPU_NAME.search(_CPU_INFO.read_text()) if _CPU_INFO.exists() else None
    name = found[1].strip() if found else platform.machine()
    return f"{os.cpu_count()} cores of {name}"
