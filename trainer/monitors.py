"""What a run shows of itself: metrics, validation, the estimate of its length."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.progress import format_duration
from trainer.models import Network

Images = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)


class MetricsLog:
    """RUN/metrics.jsonl, one object a record, and the same as TensorBoard scalars in RUN/events/.

    ``first_step``: records of later steps, left by a run that died, are dropped.
    """

    def __init__(self, run: Path, first_step: int) -> None:
        self._path = run / "metrics.jsonl"
        _drop_later(self._path, first_step)
        self._writer = tf.summary.create_file_writer(str(run / "events"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one record. Infinite values become null, which JSON has."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._writer.close()


def _drop_later(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept))
    partial.replace(path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf  # cut off by a kill


@dataclass(frozen=True)
class Scores:
    """Of the network or of bicubic on the validation crops, at full size."""

    mse: float
    """Mean squared error over all scales, pictures in 0..1, unrounded."""
    psnr_db: Mapping[int, float]
    """By scale: mean over the crops of the PSNR of 8-bit pictures."""

    @property
    def mean_psnr_db(self) -> float:
        """Over the scales: what 'best' means."""
        return float(np.mean(list(self.psnr_db.values())))


class Validation:
    """Scores on fixed crops: upscaled [scales, H, W, C] and HR [H, W, C], float32 in 0..1."""

    def __init__(
        self, network: Network, scales: Sequence[int], crops: Sequence[tuple[Images, Images]]
    ) -> None:
        self._scales, self._crops = scales, crops
        self._apply = tf.function(network)
        self.bicubic = self._scores(lambda upscaled: upscaled)

    def __call__(self, weights: Sequence[Any]) -> Scores:
        """Of the network with these weights, computed in float32."""
        return self._scores(lambda upscaled: self._apply(weights, tf.constant(upscaled)).numpy())

    def _scores(self, super_resolve: Callable[[Images], Images]) -> Scores:
        errors, psnrs = [], []
        for upscaled, hr in self._crops:
            sr = super_resolve(upscaled)
            errors.append(np.mean(np.square(sr - hr), dtype=np.float64))
            psnrs.append(_psnr_db(sr, hr))
        means = _mean_of_finite(np.array(psnrs))
        return Scores(float(np.mean(errors)), dict(zip(self._scales, means, strict=True)))


def _psnr_db(sr: Images, hr: Images) -> npt.NDArray[np.float64]:
    """For each of the pictures [N, H, W, C], rounded to 8 bits; infinite for equal ones."""
    levels = np.floor(np.clip(sr, 0.0, 1.0) * 255.0 + 0.5)
    mse = np.mean(np.square(levels - np.round(hr * 255.0)), axis=(1, 2, 3), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(255.0**2 / mse)


def _mean_of_finite(psnrs: npt.NDArray[np.float64]) -> list[float]:
    """Per column; NaN where a scale has no finite value."""
    columns = (column[np.isfinite(column)] for column in psnrs.T)
    return [float(column.mean()) if column.size else math.nan for column in columns]


class Pace:
    """How many steps to hand TensorFlow at a time, and how long the run will take.

    Several steps a call save its overhead; a call stays around a second, so that an interruption
    is answered. The first call traces and is not measured.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = self._measured = 0.0
        self._started: float | None = None
        self._calls = 0
        self._announced = False

    @property
    def steps_a_call(self) -> int:
        """Between 1 and 100."""
        if not self._measured:
            return 1
        return round(min(max(self.rate, 1.0), 100.0))

    def start(self) -> None:
        """Before a call."""
        self._started = self._clock()

    def stop(self, steps: int, left: int, images: int) -> None:
        """After a call of ``steps``; logs the estimate of the ``left`` ones once it is known."""
        self._calls += 1
        if self._calls == 1 or self._started is None:
            return
        self._seconds += max(self._clock() - self._started, 1e-6)
        self._measured += steps
        if not self._announced and self._measured >= 5:
            self._announced = True
            _logger.info(
                "%.3g s a step (%.4g images/s): the %s steps left take about %s",
                self._seconds / self._measured,
                self.rate * images,
                f"{left:,}",
                format_duration(left / self.rate),
            )

    @property
    def rate(self) -> float:
        """Steps a second; 0 where not yet known."""
        return self._measured / self._seconds if self._seconds else 0.0
