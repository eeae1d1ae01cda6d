"""RUN/checkpoints/: everything a run needs to go on, in one file that is there whole or not at all.

A checkpoint is an .npz with the weights (w1, b1, ...), the optimizer's arrays (0_w1, 1_w1, ...)
and ``state``, the rest as JSON.
"""

import dataclasses
import io
import json
import logging
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cli import WorkError
from trainer.models.network import Weights, weights_by_name

_KEEP = 3
_NAME = re.compile(r"step-(\d{8,})\.npz")
_BEST = "best.npz"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps."""

    step: int
    weights: Weights
    slots: list[Weights]
    """The optimizer's arrays: for each of its slots one a weight."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last one that was logged."""
    best_step: int | None = None
    best_psnr_db: float | None = None
    """Mean over the scales, on the validation crops."""


class Checkpoints:
    """The checkpoints of one run: the last three and the best."""

    def __init__(self, run: Path) -> None:
        self._directory = run / "checkpoints"

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes it and removes those before the last three."""
        _write(self._directory / f"step-{checkpoint.step:08}.npz", checkpoint)
        for path in self._paths()[:-_KEEP]:
            path.unlink()

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Replaces the best."""
        _write(self._directory / _BEST, checkpoint)

    def last(self) -> Checkpoint | None:
        """The newest, or None. Raises WorkError where there are some but none is readable."""
        paths = self._paths()
        for path in reversed(paths):
            try:
                return _read(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                _logger.warning("%s is damaged (%s): going back to the one before", path, error)
        if paths:
            raise WorkError(f"no checkpoint in {self._directory} is readable: use --restart")
        return None

    def best(self) -> Checkpoint | None:
        """The one of best validation PSNR, or None where none was validated."""
        path = self._directory / _BEST
        return _read(path) if path.exists() else None

    def _paths(self) -> list[Path]:
        if not self._directory.is_dir():
            return []
        paths = (path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")))


def _write(path: Path, checkpoint: Checkpoint) -> None:
    arrays = weights_by_name(checkpoint.weights)
    for number, slot in enumerate(checkpoint.slots):
        arrays.update((f"{number}_{name}", a) for name, a in weights_by_name(slot).items())
    state = {
        item.name: getattr(checkpoint, item.name)
        for item in dataclasses.fields(checkpoint)
        if item.name not in ("weights", "slots")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read(path: Path) -> Checkpoint:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    state = json.loads(str(arrays.pop("state")))
    weights = [array for name, array in arrays.items() if "_" not in name]
    slots = [array for name, array in arrays.items() if "_" in name]
    size = len(weights)
    parts = [slots[start : start + size] for start in range(0, len(slots), size)]
    return Checkpoint(weights=weights, slots=parts, **state)
