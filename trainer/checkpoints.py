"""RUN/checkpoints/: everything a run needs to go on, in one file that is there whole or not at all.

A checkpoint is an .npz with the weights (w1, b1, ...), the optimizer's arrays (0_w1, 1_w1, ...),
the weights' average where there is one (average_w1, ...), ``health`` and ``state``, the rest as
JSON.
"""

import dataclasses
import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import WorkError
from trainer import files, npz
from trainer.health import Health
from trainer.models import Shape, recognise
from trainer.models.network import Weights

_KEEP = 3
_NAME = re.compile(r"step-(\d{8,})\.npz")
_BEST = "best.npz"
_AVERAGE = "average"
_ARRAYS = ("weights", "slots", "average", "health")
# Of what others may have written: the weights, two slots and the average; losses for long, as text.
_MOST_SETS, _MOST_STATE_BYTES, _MOST_STEPS = 4, 1 << 27, 1 << 53

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps."""

    step: int
    weights: Weights
    slots: list[Weights]
    """The optimizer's arrays: for each of its slots one a weight."""
    average: Weights
    """Of the weights; empty where the recipe asks for none."""
    health: npt.NDArray[np.float32]
    """A trainer.health.Health as a vector."""
    losses: list[float] = field(default_factory=list)
    """Of the good steps since the last one that was logged."""
    skipped: int = 0
    """Steps that were none, in the whole run."""
    skipped_in_a_row: int = 0
    best_step: int | None = None
    best_psnr_db: float | None = None
    """Mean over the scales, on the validation crops."""
    record: dict[str, float] = field(default_factory=dict)
    """The metrics of this step, if any were due: they are written after the checkpoint."""
    recorded: bool = True
    """False where an interruption came before what is due at this step was measured."""

    @property
    def result(self) -> Weights:
        """What is validated and exported: the average where there is one, else the weights."""
        return self.average or self.weights


class Checkpoints:
    """The checkpoints of one run: the last three and the best."""

    def __init__(self, run: str) -> None:
        self._folder = files.join(run, "checkpoints")

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes it and removes those before the last three. Raises WorkError."""
        self._write(f"step-{checkpoint.step:08}.npz", checkpoint)
        for name in self._names()[:-_KEEP]:
            files.remove(files.join(self._folder, name))

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Replaces the best. Raises WorkError."""
        self._write(_BEST, checkpoint)

    def last(self) -> Checkpoint | None:
        """The newest, or None. Raises WorkError where there are some but none is readable."""
        names = self._names()
        for name in reversed(names):
            if checkpoint := self._read(name, "going back to the one before"):
                return checkpoint
            if name not in self._names():  # a training that goes on put newer ones in its place
                return self.last()
        if names:
            raise WorkError(f"no checkpoint in {self._folder} is readable: use --restart")
        return None

    def best(self) -> Checkpoint | None:
        """The one of best validation PSNR, or None where none was validated or it is damaged."""
        if not files.exists(files.join(self._folder, _BEST)):
            return None
        return self._read(_BEST, "the last checkpoint takes its place")

    def _read(self, name: str, instead: str) -> Checkpoint | None:
        path = files.join(self._folder, name)
        try:
            return _decode(path)
        except FileNotFoundError:
            return None
        except (OSError, npz.NotArrays) as error:
            _logger.warning("%s is damaged (%s): %s", path, error, instead)
            return None

    def _names(self) -> list[str]:
        """Oldest first."""
        found = {name: _NAME.fullmatch(name) for name in files.names(self._folder)}
        steps = {name: int(match[1]) for name, match in found.items() if match}
        return sorted(steps, key=lambda name: steps[name])

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        files.make_folder(self._folder)
        files.write(files.join(self._folder, name), _encode(checkpoint))


def _encode(checkpoint: Checkpoint) -> bytes:
    arrays = {**checkpoint.weights, "health": checkpoint.health}
    sets = {str(number): slot for number, slot in enumerate(checkpoint.slots)}
    for prefix, weights in {**sets, _AVERAGE: checkpoint.average}.items():
        arrays.update((f"{prefix}_{name}", array) for name, array in weights.items())
    state = {
        item.name: getattr(checkpoint, item.name)
        for item in dataclasses.fields(checkpoint)
        if item.name not in _ARRAYS
    }
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays)
    return buffer.getvalue()


def _decode(path: str) -> Checkpoint:
    """Unpacks nothing but what a known network has. Raises OSError, npz.NotArrays."""
    with npz.opened(path) as arrays:
        sets = _sets(arrays.headers)
        state = json.loads(str(arrays["state"]))
        _check_state(state)
        found = {
            prefix: {own: arrays[name] for own, name in names.items()}
            for prefix, names in sets.items()
        }
        weights, average = found.pop(""), found.pop(_AVERAGE, {})
        return Checkpoint(
            weights=weights,
            slots=list(found.values()),
            average=average,
            health=arrays["health"],
            **state,
        )


def _sets(headers: Mapping[str, npz.Header]) -> dict[str, dict[str, str]]:
    """The names of the weights, and of each set of their like, by prefix. Raises ValueError.

    For each weight the name that it has in the file.
    """
    text = headers["state"]
    if text.dtype.kind != "U" or text.shape or text.dtype.itemsize > _MOST_STATE_BYTES:
        raise ValueError("state is no text, or too long")
    sets: dict[str, dict[str, str]] = {}
    for name in headers:
        if name not in ("state", "health"):
            prefix, _, own = name.partition("_")
            if not (prefix.isdigit() or prefix == _AVERAGE):
                prefix, own = "", name
            sets.setdefault(prefix, {})[own] = name
    shapes = {own: headers[name].shape for own, name in sets.get("", {}).items()}
    if recognise(shapes) is None or len(sets) > _MOST_SETS:
        raise ValueError("its weights are of no known network")
    expected: dict[str, Shape] = {"health": (len(Health._fields),)}
    for prefix in sets:
        expected |= {f"{prefix}_{own}" if prefix else own: shape for own, shape in shapes.items()}
    for name, shape in expected.items():
        if headers[name].shape != shape or headers[name].dtype.str != "<f4":
            raise ValueError(f"{name} is not float32 {list(shape)}")
    return sets


def _check_state(state: Any) -> None:
    """Raises ValueError, TypeError, KeyError, AttributeError for what is none."""
    counts = [state[name] for name in ("step", "skipped", "skipped_in_a_row")]
    numbers = [*counts, *state["losses"], *state.get("record", {}).values()]
    numbers += [state[name] for name in ("best_step", "best_psnr_db") if state[name] is not None]
    if not all(isinstance(count, int) for count in counts):
        raise ValueError("a number of steps is not whole")
    if not all(isinstance(number, float) or 0 <= number < _MOST_STEPS for number in numbers):
        raise ValueError("a number is out of range")
