"""VDSR on Set14 against a plain PyTorch implementation, in one run: time and PSNR.

    python benchmarks/evaluation.py --benchmarks DIR --weights NPZ --peer PYTHON [--runs 3]

``--benchmarks`` holds set14/. ``--peer`` is the interpreter of an environment of its own that has
PyTorch (pip install torch); it runs this file too. Both get the same float32 inputs (protocol
paper: bicubic-upscaled Y), the same published weights and one picture after the other, and give
float32 outputs. They run in turn, in processes that stay, each alone at its time, the first run
of each to warm up. What is measured is from array to array; both use all cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# This file's folder comes first, and the package of this file's name would be hidden by it.
_HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [folder for folder in sys.path if folder != _HERE]

Network = Callable[[Any], Any]


def torch_network(weights: Path) -> Network:
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
    residual = torch.nn.Sequential(*layers[:-1]).eval()

    def apply(image: Any) -> Any:
        with torch.inference_mode():
            images = torch.from_numpy(image).permute(0, 3, 1, 2)
            return (images + residual(images)).permute(0, 2, 3, 1).numpy()

    return apply


def our_network(weights: Path) -> Network:
    """The network as the commands of evaluation/ apply it."""
    from evaluation.upscalers import in_tiles, load_network

    model = load_network(str(weights))
    return lambda image: in_tiles(model, image, model.reach_px)


def serve(network: Network, folder: Path) -> None:
    """For each scale named on standard input: all pictures; answers with the seconds."""
    for line in sys.stdin:
        scale = line.strip()
        with np.load(folder / f"x{scale}.npz") as arrays:
            images = {name: arrays[name] for name in arrays.files}
        start = time.perf_counter()
        outputs = {name: network(image) for name, image in images.items()}
        seconds = time.perf_counter() - start
        np.savez(folder / f"output_x{scale}.npz", **outputs)
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


def main() -> None:
    """Runs both in turn and prints a table of medians, ratios and PSNRs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", type=Path, help="folder that holds set14/")
    parser.add_argument("--weights", type=Path, required=True, help="VDSR of Y without biases")
    parser.add_argument("--peer", help="interpreter of the environment with PyTorch")
    parser.add_argument("--runs", type=int, default=3, help="measured, after one to warm up")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--serve", choices=("ours", "pytorch"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        load = our_network if options.serve == "ours" else torch_network
        serve(load(options.weights), options.folder)
        return
    if not (options.benchmarks and options.peer):
        parser.error("--benchmarks and --peer are needed")
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """A line a scale on standard output, each run on standard error."""
    from evaluation.pictures import folder_pictures
    from evaluation.protocols import PROTOCOLS
    from evaluation.scoring import score_image

    pictures = list(folder_pictures(str(options.benchmarks / "set14")))
    samples = {
        scale: [PROTOCOLS["paper"].sample(picture, scale) for picture in pictures]
        for scale in options.scales
    }
    for scale in options.scales:
        inputs = {sample.name: sample.network_input("y")[None] for sample in samples[scale]}
        np.savez(folder / f"x{scale}.npz", **inputs)
    workers = {
        name: subprocess.Popen(
            [python, __file__, "--serve", name, "--folder", folder, "--weights", options.weights],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, python in (("ours", sys.executable), ("pytorch", options.peer))
    }  # fmt: skip
    print("VDSR, Set14, float32, s for all pictures, PSNR in dB")
    print(f"{'':4}{'ours s':>9}{'PyTorch s':>11}{'ratio':>7}{'ours dB':>10}{'PyTorch dB':>12}")
    for scale in options.scales:
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        psnrs_db = {}
        for run in range(options.runs + 1):
            for name, worker in workers.items():
                assert worker.stdin and worker.stdout
                worker.stdin.write(f"{scale}\n")
                worker.stdin.flush()
                seconds[name].append(float(worker.stdout.readline()))
                print(f"  x{scale} {run}/{options.runs} {name}: {seconds[name][-1]:.2f} s",
                      file=sys.stderr)  # fmt: skip
                with np.load(folder / f"output_x{scale}.npz") as outputs:
                    psnrs_db[name] = statistics.fmean(
                        score_image(
                            sample, sample.result(outputs[sample.name][0], "y"), scale
                        ).psnr_db
                        for sample in samples[scale]
                    )
        ours, theirs = (statistics.median(times[1:]) for times in seconds.values())
        print(
            f"x{scale:<3}{ours:9.2f}{theirs:11.2f}{ours / theirs:7.2f}"
            f"{psnrs_db['ours']:10.3f}{psnrs_db['pytorch']:12.3f}",
            flush=True,
        )
    for worker in workers.values():
        worker.communicate()


if __name__ == "__main__":
    main()
