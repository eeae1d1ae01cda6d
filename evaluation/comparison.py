"""Which pictures to look at, and the part of each that shows the most."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from evaluation.metrics import ImageArray, UInt8Array
from evaluation.pictures import Picture, PictureSet
from evaluation.protocols import Protocol
from evaluation.scoring import Scores, exact, score
from evaluation.upscalers import BICUBIC, Upscaler

ZOOM_PX = 64
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Panel:
    """One version of a picture's zoomed part."""

    title: str
    image: UInt8Array
    """RGB, ZOOM_PX square or the whole side of a smaller picture."""
    psnr_db: float | None
    """Of the whole picture; None for LR and HR."""


@dataclass(frozen=True)
class Comparison:
    """One picture at one scale: LR, bicubic, each network, HR."""

    picture: str
    source: str
    """Where the picture is from, as in Picture."""
    protocol: str
    scale: int
    gain_db: float
    """Over bicubic, the mean of the networks."""
    overview: UInt8Array
    """The HR picture, RGB."""
    box: Box
    """The zoomed part: left, top, right, bottom in HR pixels."""
    panels: tuple[Panel, ...]


def compare(
    pictures: PictureSet,
    protocol: Protocol,
    upscalers: Sequence[Upscaler],
    scales: Sequence[int],
    shave_px: int | None,
    count: int,
) -> list[Comparison]:
    """By scale, the pictures with the largest gains, then those with the smallest.

    ``count`` pictures a scale, or all if there are fewer; none where no network is scored.
    """
    totals = score(pictures, protocol, upscalers, scales, shave_px).totals
    by_scale = {scale: [scores for scores in totals if scores.scale == scale] for scale in scales}
    gains = {scale: gains_db(by_scale[scale]) for scale in scales}
    # Several crops of one photo tell less than several photos.
    photos = {
        number: score.picture.partition(" ")[0] if pictures.split else score.picture
        for number, score in totals[0].pictures.items()
    }
    chosen = {scale: extremes(gains[scale], photos, count) for scale in scales}
    wanted = set(itertools.chain.from_iterable(chosen.values()))
    others = set(range(len(pictures))) - wanted
    kept = {
        number: picture for number, picture in pictures.read(others) if isinstance(picture, Picture)
    }
    return [
        _comparison(
            kept[number], protocol, scale, gains[scale][number],
            {scores.upscaler: scores.pictures[number].psnr_db for scores in by_scale[scale]},
        )
        for scale in scales
        for number in chosen[scale]
    ]  # fmt: skip


def gains_db(totals: Sequence[Scores]) -> dict[int, float]:
    """Over bicubic, the mean of the networks, by the number of the picture.

    A picture with an infinite PSNR has no gain and is left out.
    """
    left_out = exact(totals)
    networks = [scores for scores in totals if scores.upscaler.weights]
    baseline = next(scores for scores in totals if scores.upscaler.name == BICUBIC)
    return {
        number: statistics.fmean(scores.pictures[number].psnr_db for scores in networks)
        - bicubic.psnr_db
        for number, bicubic in baseline.pictures.items()
        if networks and number not in left_out
    }


def extremes(gains: Mapping[int, float], photos: Mapping[int, str], count: int) -> list[int]:
    """The keys of the largest gains, descending, then those of the smallest, ascending.

    ``count`` together, of each kind at most one a photo; fewer where there are not so many.
    """
    order = sorted(gains, key=lambda number: -gains[number])
    largest = _one_a_photo(order, photos)[: count - count // 2]
    rest = [number for number in reversed(order) if number not in largest]
    return largest + _one_a_photo(rest, photos)[: count // 2]


def _one_a_photo(numbers: Iterable[int], photos: Mapping[int, str]) -> list[int]:
    first: dict[str, int] = {}
    for number in numbers:
        first.setdefault(photos[number], number)
    return list(first.values())


def _comparison(
    picture: Picture,
    protocol: Protocol,
    scale: int,
    gain_db: float,
    psnrs: Mapping[Upscaler, float],
) -> Comparison:
    sample = protocol.sample(picture, scale)
    images = {upscaler: upscaler([sample])[0] for upscaler in psnrs}
    bicubic, *networks = images.values()
    box = most_changed(bicubic, networks[0])
    panels = [Panel("LR", _cut_lr(sample.lr, box, sample.rgb.shape), None)]
    panels += [
        Panel(upscaler.name, _cut(sample.in_colour(image), box), psnrs[upscaler])
        for upscaler, image in images.items()
    ]
    panels.append(Panel("HR", _cut(sample.rgb, box), None))
    return Comparison(
        picture.name, picture.source, protocol.name, scale, gain_db, sample.rgb, box, tuple(panels)
    )


def most_changed(before: ImageArray, after: ImageArray) -> Box:
    """The square of ZOOM_PX in which two images [H, W] or [H, W, 3] differ most."""
    change = np.square(after.astype(np.float32) - before).reshape(*before.shape[:2], -1).sum(axis=2)
    height, width = (min(ZOOM_PX, side) for side in change.shape)
    # The mean around each centre whose square lies inside.
    inside = uniform_filter(change, (height, width))[height // 2 :, width // 2 :]
    inside = inside[: change.shape[0] - height + 1, : change.shape[1] - width + 1]
    y, x = map(int, np.unravel_index(np.argmax(inside), inside.shape))
    return x, y, x + width, y + height


def _cut(image: UInt8Array, box: Box) -> UInt8Array:
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _cut_lr(lr: UInt8Array, box: Box, size: tuple[int, ...]) -> UInt8Array:
    """The same part of the LR picture, its pixels as squares; ``size`` is HR's height and width."""
    left, top, right, bottom = box
    rows = np.arange(top, bottom) * lr.shape[0] // size[0]
    columns = np.arange(left, right) * lr.shape[1] // size[1]
    return lr[rows[:, None], columns]
