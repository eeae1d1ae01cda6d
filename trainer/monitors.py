"""What a run shows of itself: metrics, validation, the estimate of its length."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.command.cli import WorkError
from pipelines.command.progress import format_duration
from trainer import files
from trainer.input import Images, ValidationCrop
from trainer.models import Network
from trainer.models.network import Weights

_PICTURES = 4
Check = Callable[[], None]

_logger = logging.getLogger(__name__)


class MetricsLog:
    """RUN/metrics.jsonl, one object a record, and the same as TensorBoard scalars in RUN/events/.

    ``first_step``: records of later steps, left by a run that died, are dropped, and its ``record``
    is written where it is missing. What cannot be written costs no training: it is said once.
    """

    def __init__(self, run: str, first_step: int, record: Mapping[str, float]) -> None:
        self._path, self._events = files.join(run, "metrics.jsonl"), files.join(run, "events")
        self._lines: list[str] = []
        self._failed: set[str] = set()
        self._writer: Any = None
        with self._sparing(self._path):
            self._lines = _lines_up_to(self._path, first_step)
            self._save()
        with self._sparing(self._events):
            self._writer = tf.summary.create_file_writer(self._events)
        if record and (not self._lines or _step_of(self._lines[-1]) < first_step):
            self.write(first_step, record)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one record. Values that are not finite become null, which JSON has."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.append(json.dumps({"step": step, **finite}) + "\n")
        with self._sparing(self._path):
            # An object store cannot append, and half a line may lie where appending failed.
            if not files.is_local(self._path) or self._path in self._failed:
                self._save()
            else:
                with Path(self._path).open("a") as file:
                    file.write(self._lines[-1])

        def write_scalars() -> None:
            for name, value in values.items():
                tf.summary.scalar(name, value, step)

        self._write_events(write_scalars)

    def show(self, step: int, pictures: Mapping[int, Images]) -> None:
        """Pictures [N, H, W, C] by scale, for TensorBoard."""

        def write_pictures() -> None:
            for scale, images in pictures.items():
                tf.summary.image(f"validation x{scale}: LR, bicubic, SR, HR", images, step, 8)

        self._write_events(write_pictures)

    def close(self) -> None:
        """Closes the TensorBoard file."""
        if self._events not in self._failed:
            with self._sparing(self._events):
                self._writer.close()

    def _save(self) -> None:
        if self._lines:
            files.write(self._path, "".join(self._lines).encode())

    def _write_events(self, write: Callable[[], None]) -> None:
        if self._events not in self._failed:
            with self._sparing(self._events):
                with self._writer.as_default():
                    write()
                self._writer.flush()

    @contextmanager
    def _sparing(self, path: str) -> Iterator[None]:
        """Around writing ``path``: what fails is said the first time, and costs no training."""
        try:
            yield
        except (OSError, WorkError, tf.errors.OpError) as error:
            if path not in self._failed:
                is_tensorflows = isinstance(error, tf.errors.OpError)
                why = files.reason(error) if is_tensorflows else getattr(error, "strerror", error)
                _logger.warning("%s is left as it is: %s; the training goes on", path, why)
            self._failed.add(path)


def _lines_up_to(path: str, step: int) -> list[str]:
    if not files.exists(path):
        return []
    lines = files.read(path).decode(errors="replace").splitlines(keepends=True)
    return [line for line in lines if _step_of(line) <= step]


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf  # cut off by a kill, or none of ours


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


def _go_on() -> None:
    pass


class Validation:
    """Scores on fixed crops of the validation split."""

    def __init__(
        self, network: Network, scales: Sequence[int], crops: Sequence[ValidationCrop]
    ) -> None:
        self._scales, self._crops = scales, crops
        self._apply = tf.function(network, autograph=False)
        self.bicubic = self._scores(lambda crop: crop.upscaled)

    def __call__(self, weights: Weights, check: Check = _go_on) -> Scores:
        """Of the network with these weights, computed in float32 (TensorFloat-32 on a GPU).

        ``check`` is called before each crop: what it raises ends the work.
        """
        return self._scores(lambda crop: self._super_resolve(weights, crop), check)

    def pictures(self, weights: Weights, check: Check = _go_on) -> dict[int, Images]:
        """Of the first few crops, by scale: LR (its pixels enlarged), bicubic, SR and HR in a row.

        float32 [crops, H, 4 W, C] in 0..1.
        """
        rows: dict[int, list[Images]] = {scale: [] for scale in self._scales}
        for crop in self._crops[:_PICTURES]:
            check()
            sr = self._super_resolve(weights, crop).clip(0.0, 1.0)
            for scale, *row in zip(self._scales, crop.lr, crop.upscaled, sr, strict=True):
                rows[scale].append(np.concatenate([*row, crop.hr], axis=1))
        return {scale: np.stack(images) for scale, images in rows.items()}

    def _super_resolve(self, weights: Weights, crop: ValidationCrop) -> Images:
        return self._apply(weights, tf.constant(crop.inputs), self._scales[-1]).numpy()

    def _scores(
        self, super_resolve: Callable[[ValidationCrop], Images], check: Check = _go_on
    ) -> Scores:
        errors, psnrs = [], []
        for crop in self._crops:
            check()
            sr = super_resolve(crop)
            errors.append(np.mean(np.square(sr - crop.hr), dtype=np.float64))
            psnrs.append(_psnr_db(sr, crop.hr))
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
        if not self._announced and (self._measured >= 5 or self._seconds > 5.0):
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
