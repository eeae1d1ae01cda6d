"""From pictures and upscalers to rows of results."""

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from evaluation.memory import Memory
from evaluation.pictures import HASH_DIGITS, PictureSet
from evaluation.protocols import Protocol
from evaluation.results import PictureResult, Result
from evaluation.scoring import Scores, exact, means, score
from evaluation.upscalers import BICUBIC, Upscaler, warn_of_degradation
from pipelines import __version__
from pipelines.dataset.options import Degradation

_PROJECT = Path(__file__).resolve().parent.parent

_logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What ``evaluate`` gives."""

    rows: list[Result]
    picture_rows: list[PictureResult]
    failures: list[str]
    """A line for each picture, or model at a scale, that could not be scored."""


def evaluate(
    pictures: PictureSet,
    protocol: Protocol,
    upscalers: Sequence[Upscaler],
    scales: Sequence[int],
    shave_px: int | None = None,
    memory: Memory | None = None,
) -> Evaluation:
    """Scores everything but what ``memory`` has.

    ``upscalers`` must hold bicubic. A picture that any of them gets exactly right is counted,
    and left out of the means of all.
    """
    warn_of_degradation(upscalers, degradation_of(pictures, protocol))
    run_at, commit = datetime.now(UTC).isoformat(timespec="seconds"), project_commit()
    totals, failures = score(
        pictures, protocol, upscalers, scales, shave_px, memory, f"{commit} {_libraries()}"
    )
    rows: list[Result] = []
    for scale in scales:
        at_scale = [scores for scores in totals if scores.scale == scale]
        rows += _results(pictures, protocol, at_scale, run_at, commit)
    picture_rows = [
        row for scores in totals for row in _picture_results(pictures, protocol, scores, run_at)
    ]
    return Evaluation(rows, picture_rows, failures)


def degradation_of(pictures: PictureSet, protocol: Protocol) -> Degradation:
    """How the LR that is scored was made: by the protocol, or as the pictures have it."""
    return protocol.degradation or pictures.degradation


def project_commit() -> str:
    """Of the checkout, '-dirty' where it was changed since; of an installed package what
    SUPERRES_COMMIT says, or its version."""
    # A package installed somewhere inside another checkout has no .git of its own.
    if (_PROJECT / ".git").exists() and shutil.which("git"):
        describe = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        git = subprocess.run(describe, cwd=_PROJECT, capture_output=True, text=True, check=False)
        if git.returncode == 0:
            return git.stdout.strip()
    return os.environ.get("SUPERRES_COMMIT") or __version__


def _libraries() -> str:
    """The versions of what decides a score's digits."""
    found = []
    for name in ("numpy", "pillow", "scikit-image", "tensorflow"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return " ".join(found)


def _results(
    pictures: PictureSet, protocol: Protocol, totals: Sequence[Scores], run_at: str, commit: str
) -> list[Result]:
    left_out = exact(totals)
    if left_out:
        _logger.warning(
            "x%d: %d of %d pictures have an infinite PSNR and are left out of the means",
            totals[0].scale, len(left_out), len(pictures),
        )  # fmt: skip
    baseline = next(scores for scores in totals if scores.upscaler.name == BICUBIC)
    bicubic_psnr_db = means(baseline.pictures, left_out).psnr_db
    rows = []
    for scores in totals:
        mean = means(scores.pictures, left_out)
        if round(mean.psnr_db - bicubic_psnr_db, 2) < 0:
            _warn_of_loss(scores, mean.psnr_db - bicubic_psnr_db)
        rows.append(
            Result(
                run_at=run_at,
                commit=commit,
                dataset=pictures.dataset,
                split=pictures.split,
                protocol=protocol.name,
                degradation=degradation_of(pictures, protocol),
                model=scores.upscaler.name,
                weights=scores.upscaler.weights[:HASH_DIGITS],
                scale=scores.scale,
                images=len(scores.pictures),
                psnr_db=mean.psnr_db,
                psnr_std_db=mean.psnr_std_db,
                ssim=mean.ssim,
                bicubic_psnr_db=bicubic_psnr_db,
                gain_db=mean.psnr_db - bicubic_psnr_db,
                shave_px=scores.shave_px,
                seconds_per_image=scores.seconds / len(scores.pictures),
            )
        )
    return rows


def _warn_of_loss(scores: Scores, gain_db: float) -> None:
    _logger.warning(
        "%s is worse than bicubic at x%d: %+.2f dB", scores.upscaler.name, scores.scale, gain_db
    )


def _picture_results(
    pictures: PictureSet, protocol: Protocol, scores: Scores, run_at: str
) -> list[PictureResult]:
    return [
        PictureResult(
            run_at=run_at,
            dataset=pictures.dataset,
            split=pictures.split,
            protocol=protocol.name,
            model=scores.upscaler.name,
            weights=scores.upscaler.weights[:HASH_DIGITS],
            scale=scores.scale,
            shave_px=scores.shave_px,
            picture=score.picture,
            psnr_db=score.psnr_db,
            ssim=score.ssim,
        )
        for score in scores.pictures.values()
    ]
