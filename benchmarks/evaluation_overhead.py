"""What an evaluation takes beside what its networks alone take, in one run.

    python -m benchmarks.evaluation_overhead --benchmarks DIR --models vdsr.npz srcnn-915

``--benchmarks`` holds set5/, set14/ and bsd100/. Of each set the first ``--pictures`` are taken, at
x2, x3 and x4, protocol paper. The networks alone: their inputs are in memory, nothing is decoded,
made small or scored. Both take turns, after a picture to warm up; of each turn the ratio, and the
median of these, for the machine may have other work. Then bicubic alone, a picture and scale.
"""

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from evaluation.pictures import PictureSet, folder_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.scoring import batches, score
from evaluation.tiles import in_tiles
from evaluation.upscalers import Bicubic, Network, Upscaler, load_upscalers

PAPER = PROTOCOLS["paper"]
SCALES = (2, 3, 4)
SETS = ("set5", "set14", "bsd100")


def whole_s(sets: list[PictureSet], upscalers: list[Upscaler]) -> float:
    """Of an evaluation as the command does it."""
    started = time.perf_counter()
    for pictures in sets:
        score(pictures, PAPER, upscalers, SCALES)
    return time.perf_counter() - started


def networks_s(sets: list[PictureSet], upscalers: list[Upscaler]) -> float:
    """Of the networks, in the same batches."""
    import numpy as np

    seconds = 0.0
    for pictures in sets:
        for batch in batches(pictures.read()):
            for scale in SCALES:
                samples = [PAPER.sample(picture, scale) for _, picture in batch]  # type: ignore[arg-type]
                for upscaler in upscalers:
                    if not isinstance(upscaler, Network):
                        continue
                    model, network = upscaler.model, upscaler.model.network
                    inputs = np.stack([one.network_input("y", network.takes) for one in samples])
                    started = time.perf_counter()
                    apply = partial(model, scale=scale)
                    in_tiles(apply, inputs, model.reach_px, network.ratio(scale))
                    seconds += time.perf_counter() - started
    return seconds


def main() -> None:
    """Prints a line a turn, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", type=Path, required=True, help="holds set5/ and others")
    parser.add_argument("--models", nargs="+", required=True, help="networks of Y")
    parser.add_argument("--pictures", type=int, default=5, help="of each set, the first so many")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    upscalers = load_upscalers(options.models)
    found = [folder_pictures(str(options.benchmarks / name)) for name in SETS]
    sets = [replace(one, size=min(len(one), options.pictures)) for one in found]
    whole_s([replace(sets[0], size=1)], upscalers)
    ratios = []
    for turn in range(options.turns):
        alone, whole = networks_s(sets, upscalers), whole_s(sets, upscalers)
        ratios.append(whole / alone)
        print(f"{turn}: networks alone {alone:.1f} s, evaluation {whole:.1f} s, {ratios[-1]:.3f}")
    print(f"evaluation / networks alone: {statistics.median(ratios):.3f}")
    count = sum(map(len, sets)) * len(SCALES)
    times = [whole_s(sets, [Bicubic()]) / count for _ in range(options.turns)]
    print(f"bicubic alone: {statistics.median(times) * 1000:.1f} ms a picture and scale")


if __name__ == "__main__":
    main()
