"""PSNR, SSIM and time of upscalers over a set of pictures."""

import itertools
import logging
import math
import os
import statistics
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock
from time import perf_counter
from typing import NamedTuple, TypeVar, cast

from evaluation.memory import Memory, Score, Scored
from evaluation.metrics import SSIM_WINDOW_PX, ImageArray, psnr_db, shave, ssim
from evaluation.pictures import Picture, PictureSet, Unread
from evaluation.protocols import Protocol, Sample
from evaluation.upscalers import Upscaler
from pipelines.command.cli import UsageError, WorkError
from pipelines.command.progress import Progress

Item = TypeVar("Item")
Numbered = tuple[int, Picture | Unread]
# Eight crops of 200x200, whose 64 feature maps take 82 MB a layer in float32; or one large picture.
BATCH_PX = 8 * 200 * 200
AHEAD = 8
BATCHES_AHEAD = 2
_MOST_WORKERS = 8
Job = tuple[str, "Future[Scored]"]
# One computes on all cores, and takes the memory of its feature maps.
_one_network = Lock()

_logger = logging.getLogger(__name__)


@dataclass
class Scores:
    """Of one upscaler at one scale."""

    upscaler: Upscaler
    scale: int
    shave_px: int
    pictures: Scored = field(default_factory=dict)
    """In the order of the pictures, the same for all upscalers."""

    @property
    def seconds(self) -> float:
        """From LR in memory to the 8-bit result; reading, decoding and scoring are left out."""
        return sum(score.seconds for score in self.pictures.values())

    def of(self, samples: Mapping[int, Sample]) -> Scored:
        """Upscales samples of one size, measures the time, scores the results."""
        with _one_network if self.upscaler.weights else nullcontext():
            started = perf_counter()
            images = self.upscaler([*samples.values()])
            seconds = (perf_counter() - started) / len(samples)
        return {
            number: replace(score_image(sample, image, self.shave_px), seconds=seconds)
            for (number, sample), image in zip(samples.items(), images, strict=True)
        }


class Outcome(NamedTuple):
    """Of scoring a set of pictures."""

    totals: list[Scores]
    failures: list[str]
    """What could not be scored, and why: a picture, or an upscaler at a scale."""


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
    memory: Memory | None = None,
    code: str = "",
) -> Outcome:
    """The scores by scale, then upscaler; an upscaler is left out where it does not fit.

    ``shave_px`` is left out at each side; None: the protocol's choice. All upscalers are scored
    on the same pixels of the same pictures. What ``memory`` has, by the same ``code``, is not
    scored again. Raises UsageError where a picture is too small or cannot be read, or a network is
    none that the protocol scores; WorkError where all failed in the end.
    """
    refuse_unfit([(pictures, protocol, scales)], shave_px)
    refuse_networks(upscalers, protocol)
    shaves = _shaves(protocol, scales, shave_px)
    totals = {
        _what(code, pictures, protocol, scores): scores
        for scale in scales
        for upscaler in upscalers
        if fits(upscaler, scale)
        for scores in [Scores(upscaler, scale, shaves[scale])]
    }
    if memory is not None:
        for what, scores in totals.items():
            scores.pictures.update(memory.recall(what))
    done = _known(totals.values())
    if done:
        _logger.info("going on: %d of %d pictures are scored", len(done), len(pictures))
    failures: list[str] = []
    count = len(done)
    with (
        Progress("evaluate", len(pictures), unit="pictures", initial=count) as progress,
        _workers() as pool,
    ):
        batched = batches(pictures.read(done))
        begun = ((batch, _begin(pool, batch, protocol, totals)) for batch in batched)
        for batch, jobs in early(begun, BATCHES_AHEAD):
            failures += [picture.reason for _, picture in batch if isinstance(picture, Unread)]
            for what, job in jobs:
                if what not in totals:
                    continue
                try:
                    added = job.result()
                except WorkError as error:
                    scores = totals.pop(what)
                    failures.append(f"{scores.upscaler.name} at x{scores.scale}: {error}")
                    continue
                totals[what].pictures.update(added)
                if memory is not None:
                    memory.add(what, added)
            count += len(batch)
            progress.update(count)
    known = sorted(_known(totals.values()))
    if not known:
        raise WorkError(f"nothing could be scored: {'; '.join(failures)}")
    for scores in totals.values():
        scores.pictures = {number: scores.pictures[number] for number in known}
    return Outcome([*totals.values()], failures)


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads that degrade, interpolate and score beside the one in which a network computes."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_WORKERS) + 1) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(
    pool: ThreadPoolExecutor,
    batch: Iterable[Numbered],
    protocol: Protocol,
    totals: Mapping[str, Scores],
) -> list[Job]:
    """Has scored what ``totals`` lack of pictures of one size."""
    pictures = {number: picture for number, picture in batch if isinstance(picture, Picture)}
    jobs = []
    for scale, group in itertools.groupby([*totals.items()], key=lambda item: item[1].scale):
        missing = [(what, scores) for what, scores in group if pictures.keys() - scores.pictures]
        if missing:
            samples = {number: protocol.sample(pic, scale) for number, pic in pictures.items()}
            jobs += [(what, pool.submit(scores.of, samples)) for what, scores in missing]
    return jobs


def _known(totals: Collection[Scores]) -> set[int]:
    """The numbers of the pictures that all of them have."""
    return set.intersection(*(set(scores.pictures) for scores in totals)) if totals else set()


def _what(code: str, pictures: PictureSet, protocol: Protocol, scores: Scores) -> str:
    """All that decides a score but the picture."""
    upscaler = scores.upscaler
    parts = (
        code, pictures, protocol.name, scores.shave_px, upscaler.name, upscaler.weights,
        f"x{scores.scale}",
    )  # fmt: skip
    return " ".join(map(str, parts))


def _shaves(protocol: Protocol, scales: Sequence[int], shave_px: int | None) -> dict[int, int]:
    return {scale: protocol.shave_px(scale) if shave_px is None else shave_px for scale in scales}


def refuse_unfit(
    work: Iterable[tuple[PictureSet, Protocol, Sequence[int]]], shave_px: int | None = None
) -> None:
    """Raises UsageError that names every picture that has no readable header or is too small."""
    unfit: dict[str, str] = {}
    for pictures, protocol, scales in work:
        shaves = _shaves(protocol, scales, shave_px)
        found = {**_too_small(pictures, shaves), **pictures.faults}
        unfit |= {f"{pictures.dataset}: {name}": reason for name, reason in found.items()}
    if unfit:
        named = "; ".join(f"{name} {reason}" for name, reason in unfit.items())
        raise UsageError(f"take away or replace what cannot be scored: {named}")


def refuse_networks(upscalers: Iterable[Upscaler], protocol: Protocol) -> None:
    """Raises UsageError for a network that the protocol does not score."""
    for upscaler in upscalers:
        if not protocol.scores(upscaler.channels):
            raise UsageError(
                f"{upscaler.name} makes RGB, but protocol {protocol.name} compares Y that is made "
                "of Y alone: its figure would stand beside figures of another scale. Score it by "
                "paper-rgb, as papers do, or by article"
            )


def _too_small(pictures: PictureSet, shaves: Mapping[int, int]) -> dict[str, str]:
    result = {}
    for name, (width, height) in pictures.sizes.items():
        for scale, shave_px in shaves.items():
            if min(width, height) // scale * scale - 2 * shave_px < SSIM_WINDOW_PX:
                result[name] = (
                    f"has {width}x{height} pixels, too few to score at x{scale}: after a shave of "
                    f"{shave_px} at each side {SSIM_WINDOW_PX} must be left"
                )
    return result


def score_image(sample: Sample, image: ImageArray, shave_px: int) -> Score:
    """The score of one result, ``shave_px`` left out at each side."""
    reference, image = shave(sample.reference, shave_px), shave(image, shave_px)
    return Score(sample.name, psnr_db(reference, image), ssim(reference, image))


def means(pictures: Scored, left_out: Collection[int] = ()) -> Means:
    """The means over all pictures but those with the numbers ``left_out``."""
    kept = [score for number, score in pictures.items() if number not in left_out]
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
        for number, score in total.pictures.items()
        if math.isinf(score.psnr_db)
    }


def batches(pictures: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """Successive pictures of one size together, at most BATCH_PX pixels or a single picture."""
    for shape, group in itertools.groupby(ahead(pictures), key=lambda item: _shape(item[1])):
        count = max(BATCH_PX // (shape[0] * shape[1]), 1) if shape else 1
        while batch := list(itertools.islice(group, count)):
            yield batch


def _shape(picture: Picture | Unread) -> tuple[int, ...]:
    return picture.hr.shape if isinstance(picture, Picture) else ()


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


def early(items: Iterable[Item], count: int) -> Iterator[Item]:
    """``items`` in order, each after the next ``count`` were asked for."""
    iterator = iter(items)
    coming = deque(itertools.islice(iterator, count))
    while coming:
        coming.extend(itertools.islice(iterator, 1))
        yield coming.popleft()
