"""PSNR, SSIM and time of upscalers over a set of pictures."""

import itertools
import logging
import math
import statistics
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar, cast

from evaluation.metrics import SSIM_WINDOW_PX, UInt8Array, psnr_db, shave, ssim
from evaluation.pictures import Picture, PictureSet
from evaluation.protocols import Protocol, Sample
from evaluation.upscalers import Upscaler
from pipelines.command.cli import UsageError
from pipelines.command.progress import Progress

Item = TypeVar("Item")
# Eight crops of 200x200, whose 64 feature maps take 82 MB a layer in float32; or one large picture.
BATCH_PX = 8 * 200 * 200
AHEAD = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """Of one picture."""

    picture: str
    psnr_db: float
    """Infinite where the result equals the reference."""
    ssim: float


@dataclass
class Scores:
    """Of one upscaler at one scale."""

    upscaler: Upscaler
    scale: int
    shave_px: int
    pictures: list[Score] = field(default_factory=list)
    """In the order of the pictures, the same for all upscalers."""
    seconds: float = 0.0
    """From LR in memory to the 8-bit result; reading, decoding and scoring are left out."""

    def add(self, samples: Sequence[Sample]) -> None:
        """Upscales samples of one size, measures the time and scores the results."""
        started = perf_counter()
        images = self.upscaler(samples)
        self.seconds += perf_counter() - started
        for sample, image in zip(samples, images, strict=True):
            self.pictures.append(score_image(sample, image, self.shave_px))


@dataclass(frozen=True)
class Means:
    """Over the pictures of a Scores; NaN where there are none."""

    psnr_db: float
    psnr_std_db: float
    """Of the population, not the sample."""
    ssim: float


def score(
    pictures: PictureSet,
    protocol: Protocol,
    upscalers: Sequence[Upscaler],
    scales: Sequence[int],
    shave_px: int | None = None,
) -> list[Scores]:
    """The scores by scale, then upscaler; an upscaler is left out where it does not fit.

    ``shave_px`` is left out at each side; None: the protocol's choice. All upscalers are scored
    on the same pixels. Raises UsageError for a picture that is too small.
    """
    shaves = {scale: protocol.shave_px(scale) if shave_px is None else shave_px for scale in scales}
    totals = [
        Scores(upscaler, scale, shaves[scale])
        for scale in scales
        for upscaler in upscalers
        if fits(upscaler, scale)
    ]
    done = 0
    with Progress("evaluate", len(pictures), unit="pictures") as progress:
        for batch in batches(pictures):
            for scale in scales:
                samples = _samples(batch, protocol, scale, shaves[scale])
                for scores in totals:
                    if scores.scale == scale:
                        scores.add(samples)
            done += len(batch)
            progress.update(done)
    return totals


def score_image(sample: Sample, image: UInt8Array, shave_px: int) -> Score:
    """The score of one result, ``shave_px`` left out at each side."""
    reference, image = shave(sample.reference, shave_px), shave(image, shave_px)
    return Score(sample.name, psnr_db(reference, image), ssim(reference, image))


def means(pictures: Sequence[Score], left_out: Collection[int] = ()) -> Means:
    """The means over all pictures but those with the numbers ``left_out``."""
    kept = [score for number, score in enumerate(pictures) if number not in left_out]
    if not kept:
        return Means(math.nan, math.nan, math.nan)
    psnrs = [score.psnr_db for score in kept]
    return Means(
        psnr_db=statistics.fmean(psnrs),
        psnr_std_db=statistics.pstdev(psnrs),
        ssim=statistics.fmean(score.ssim for score in kept),
    )


def exact(totals: Iterable[Scores]) -> set[int]:
    """The numbers of the pictures that any upscaler gets exactly right: their PSNR is infinite."""
    return {
        number
        for total in totals
        for number, score in enumerate(total.pictures)
        if math.isinf(score.psnr_db)
    }


def batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Successive pictures of one size together, at most BATCH_PX pixels or a single picture."""
    for shape, group in itertools.groupby(ahead(pictures), key=lambda picture: picture.hr.shape):
        count = max(BATCH_PX // (shape[0] * shape[1]), 1)
        while batch := list(itertools.islice(group, count)):
            yield batch


def fits(upscaler: Upscaler, scale: int) -> bool:
    """Whether the upscaler is meant for the scale; logs a line where it is not."""
    if not upscaler.scales or scale in upscaler.scales:
        return True
    trained = ", ".join(f"x{trained}" for trained in upscaler.scales)
    _logger.warning("%s is skipped at x%d: it was trained for %s", upscaler.name, scale, trained)
    return False


def ahead(items: Iterable[Item], count: int = AHEAD) -> Iterator[Item]:
    """``items`` in order, the next ``count`` of them made by a thread in the meantime."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, iterator, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, iterator, end))
            yield cast(Item, item)


def _samples(
    batch: Sequence[Picture], protocol: Protocol, scale: int, shave_px: int
) -> list[Sample]:
    for picture in batch:
        height, width = picture.hr.shape[:2]
        if min(height, width) // scale * scale - 2 * shave_px < SSIM_WINDOW_PX:
            raise UsageError(
                f"{picture.name} has {width}x{height} pixels, too few to score at x{scale}: "
                f"after a shave of {shave_px} at each side {SSIM_WINDOW_PX} must be left"
            )
    return [protocol.sample(picture, scale) for picture in batch]
