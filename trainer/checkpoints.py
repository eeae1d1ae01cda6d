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
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.command.cli import WorkError
from trainer import files
from trainer.models.network import Weights, weights_by_name

_KEEP = 3
_NAME = re.compile(r"step-(\d{8,})\.npz")
_BEST = "best.npz"
_AVERAGE = "average"
_ARRAYS = ("weights", "slots", "average", "health")

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
            path = files.join(self._folder, name)
            try:
                return _decode(files.read(path))
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
                _logger.warning("%s is damaged (%s): going back to the one before", path, e)
        if names:
            raise WorkError(f"no checkpoint in {self._folder} is readable: use --restart")
        return None

    def best(self) -> Checkpoint | None:
        """The one of best validation PSNR, or None where none was validated."""
        path = files.join(self._folder, _BEST)
        return _decode(files.read(path)) if files.exists(path) else None

    def _names(self) -> list[str]:
        """Oldest first."""
        found = {name: _NAME.fullmatch(name) for name in files.names(self._folder)}
        steps = {name: int(match[1]) for name, match in found.items() if match}
        return sorted(steps, key=lambda name: steps[name])

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        files.make_folder(self._folder)
        files.write(files.join(self._folder, name), _encode(checkpoint))


def _encode(checkpoint: Checkpoint) -> bytes:
    arrays = {**weights_by_name(checkpoint.weights), "health": checkpoint.health}
    sets = {str(number): slot for number, slot in enumerate(checkpoint.slots)}
    for prefix, weights in {**sets, _AVERAGE: checkpoint.average}.items():
        arrays.update((f"{prefix}_{name}", a) for name, a in weights_by_name(weights).items())
    state = {
        item.name: getattr(checkpoint, item.name)
        for item in dataclasses.fields(checkpoint)
        if item.name not in _ARRAYS
    }
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays)
    return buffer.getvalue()


def _decode(data: bytes) -> Checkpoint:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    state = json.loads(str(arrays.pop("state")))
    health = arrays.pop("health")
    sets: dict[str, Weights] = {}
    for name, array in arrays.items():
        sets.setdefault(name.rpartition("_")[0], []).append(array)
    weights, average = sets.pop(""), sets.pop(_AVERAGE, [])
    return Checkpoint(
        weights=weights, slots=list(sets.values()), average=average, health=health, **state
    )
