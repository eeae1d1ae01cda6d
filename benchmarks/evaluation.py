"""VDSR on Set14 against a plain PyTorch implementation, in one run: time and PSNR.

    python -m benchmarks.evaluation --benchmarks DIR --weights NPZ --peer PYTHON

``--benchmarks`` holds set14/. ``--peer`` is the interpreter of an environment of its own that has
PyTorch (pip install torch); it runs this file too. Both get the same float32 inputs (protocol
paper: bicubic-upscaled Y), the same published weights and one picture after the other, and give
float32 outputs; PyTorch in both of its memory formats. Each stays in a process of its own and all
threads it takes by itself; they take turns, picture by picture, the first turn to warm up. Of each
turn the ratio of times is taken, and of these the median, for the machine may have other work.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Network = Callable[[Any], Any]
LAYOUTS = {"contiguous_format": "PyTorch", "channels_last": "PyTorch, channels last"}


def torch_network(weights: Path, layout: str) -> Network:
    """VDSR in plain PyTorch: float32 [1, H, W, 1] -> the same."""
    import torch

    with np.load(weights) as arrays:
        names = [f"w{layer}" for layer in range(1, 21)]
        kernels = [torch.from_numpy(arrays[name].transpose(3, 2, 0, 1).copy()) for name in names]
    layers: list[torch.nn.Module] = []
    for kernel in kernels:
        layer = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, bias=False)
        layer.weight.data = kernel
        layers += [layer, torch.nn.ReLU(inplace=True)]
    memory_format = getattr(torch, layout)
    residual = torch.nn.Sequential(*layers[:-1]).eval().to(memory_format=memory_format)

    def apply(image: Any) -> Any:
        with torch.inference_mode():
            images = torch.from_numpy(image).permute(0, 3, 1, 2)
            images = images.contiguous(memory_format=memory_format)
            return (images + residual(images)).permute(0, 2, 3, 1).numpy()

    return apply


def our_network(weights: Path) -> Network:
    """The network as the commands of evaluation/ apply it."""
    from evaluation.tiles import in_tiles
    from evaluation.upscalers import load_network

    model = load_network(str(weights))
    any_scale = 2  # VDSR's are all the same
    return lambda image: in_tiles(partial(model, scale=any_scale), image, model.reach_px)


def serve(network: Network, folder: Path) -> None:
    """For each picture named on standard input: its output as a file, and the seconds."""
    for line in sys.stdin:
        name = line.strip()
        image = np.load(folder / f"{name}.npy")
        start = time.perf_counter()
        output = network(image)
        seconds = time.perf_counter() - start
        np.save(folder / f"{name}.output.npy", output)
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


def main() -> None:
    """Lets them take turns and prints a table of medians, ratios and PSNRs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", type=Path, help="folder that holds set14/")
    parser.add_argument("--weights", type=Path, required=True, help="VDSR of Y without biases")
    parser.add_argument("--peer", help="interpreter of the environment with PyTorch")
    parser.add_argument("--pictures", type=int, default=2, help="the smallest so many of the 14")
    parser.add_argument("--turns", type=int, default=3, help="measured, after one to warm up")
    parser.add_argument("--scale", type=int, default=3, help="the network's work is the same")
    parser.add_argument("--serve", choices=("ours", *LAYOUTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        ours = options.serve == "ours"
        weights = options.weights
        serve(
            our_network(weights) if ours else torch_network(weights, options.serve), options.folder
        )
        return
    if not (options.benchmarks and options.peer):
        parser.error("--benchmarks and --peer are needed")
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """A line for each of them on standard output, each turn on standard error."""
    from evaluation.pictures import folder_pictures
    from evaluation.protocols import PROTOCOLS
    from evaluation.scoring import score_image

    pictures = sorted(
        folder_pictures(str(options.benchmarks / "set14")),
        key=lambda picture: math.prod(picture.hr.shape[:2]),
    )
    samples = {
        str(number): PROTOCOLS["paper"].sample(picture, options.scale)
        for number, picture in enumerate(pictures[: options.pictures])
    }
    for number, sample in samples.items():
        np.save(folder / f"{number}.npy", sample.network_input("y")[None])
    workers = {
        name: subprocess.Popen(
            [*(python, "-m", "benchmarks.evaluation", "--serve", name), *("--folder", folder),
             *("--weights", options.weights)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, python in {"ours": sys.executable, **dict.fromkeys(LAYOUTS, options.peer)}.items()
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    psnrs_db: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(options.turns + 1):
        for number, sample in samples.items():
            for name, worker in workers.items():
                assert worker.stdin and worker.stdout
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
                elapsed = float(worker.stdout.readline())
                print(f"{turn}/{options.turns} {sample.name} {name}: {elapsed:.2f} s",
                      file=sys.stderr)  # fmt: skip
                if turn:
                    seconds[name].append(elapsed)
                    continue
                image = sample.result(np.load(folder / f"{number}.output.npy")[0], "y")
                psnrs_db[name].append(score_image(sample, image, options.scale).psnr_db)
    for worker in workers.values():
        worker.communicate()
    print(f"VDSR, {len(samples)} pictures of Set14, x{options.scale}, float32")
    print(f"{'':26}{'s a picture':>12}{'ours / it':>11}{'PSNR dB':>9}{'ours - it':>11}")
    ours_db = statistics.fmean(psnrs_db["ours"])
    for name, times in seconds.items():
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(seconds["ours"], times, strict=True)
        )
        psnr_db = statistics.fmean(psnrs_db[name])
        print(
            f"{LAYOUTS.get(name, 'ours'):26}{statistics.median(times):12.2f}{ratio:11.2f}"
            f"{psnr_db:9.3f}{ours_db - psnr_db:+11.4f}"
        )


if __name__ == "__main__":
    main()
