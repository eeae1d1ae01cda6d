"""The training step against PyTorch's: python benchmarks/training.py --peer PYTHON.

Both train the same network on the same shapes with Adam: forward, backward and update of a batch
that lies in the host's memory, on the GPU where there is one. Each stays loaded in a process of its
own and they take turns, one pair after another; of each pair the ratio of times is taken, and of
these the median. PyTorch runs in the better of its two memory formats, on a GPU with cuDNN's
fastest algorithms, and with --compile through torch.compile if that is faster still. PYTHON is an
interpreter that has torch.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Steps = Callable[[int], Any]
"""Runs as many training steps and waits for them."""


@dataclass(frozen=True)
class Case:
    """One line of the table: a network on luma patches, and each side's precision."""

    model: str
    batch: int
    patch: int
    ours: str
    peer: str


CASES = {
    "srcnn-float32": Case("srcnn", 128, 33, "float32", "float32"),
    "vdsr-float32": Case("vdsr", 64, 41, "float32", "float32"),
    "vdsr-bfloat16": Case("vdsr", 64, 41, "bfloat16", "bfloat16"),
    "vdsr-auto": Case("vdsr", 64, 41, "auto", "float32"),
    "vdsr-article": Case("vdsr", 40, 200, "bfloat16", "bfloat16"),  # half a minute on a CPU
}


def our_steps(case: Case) -> Steps:
    """The step of trainer.step."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as python -m trainer does

    import numpy as np
    import tensorflow as tf

    from trainer.config import Config
    from trainer.distribution import make_strategy
    from trainer.step import TrainingStep, initial_checkpoint

    config = Config(
        model=case.model, channels="y", batch_size=case.batch, patch_size=case.patch,
        precision=case.ours,
    ).resolved()  # fmt: skip
    strategy = make_strategy(None)
    step = TrainingStep(strategy, config, initial_checkpoint(config))
    shape = (case.batch, case.patch, case.patch, 1)
    inputs, targets = np.random.default_rng(0).random((2, *shape), np.float32)
    weights = np.ones(case.batch, np.float32)
    dataset = tf.data.Dataset.from_tensors((inputs, targets, weights)).repeat()
    batches = iter(strategy.experimental_distribute_dataset(dataset))

    return lambda count: step(batches, 0, count)


def peer_steps(case: Case, compiled: bool) -> Steps:
    """The usual PyTorch step, in the faster of its memory formats, compiled if that is faster."""
    import torch

    torch.backends.cudnn.benchmark = True  # as TensorFlow chooses its algorithms
    formats = {name: getattr(torch, name) for name in ("channels_last", "contiguous_format")}
    candidates = {name: _torch_steps(case, layout) for name, layout in formats.items()}
    seconds = {name: _best_of_five(steps) for name, steps in candidates.items()}
    if compiled:
        name = min(seconds, key=seconds.__getitem__)
        candidates["compiled"] = _torch_steps(case, formats[name], compiled=True)
        seconds["compiled"] = _best_of_five(candidates["compiled"])
    best = min(seconds, key=seconds.__getitem__)
    print(f"  PyTorch {torch.__version__}, {best}, {seconds}", file=sys.stderr, flush=True)
    return candidates[best]


def _torch_steps(case: Case, layout: Any, compiled: bool = False) -> Steps:
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if case.model == "srcnn":
        sizes, widths, padding = (9, 1, 5), (1, 64, 32, 1), 0
    else:
        sizes, widths, padding = (3,) * 20, (1, *[64] * 19, 1), 1
    layers: list[nn.Module] = []
    for size, fan, out in zip(sizes, widths, widths[1:], strict=False):
        layers += [nn.Conv2d(fan, out, size, padding=padding), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers[:-1]).to(device, memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=device == "cuda")
    forward = torch.compile(network) if compiled else network
    torch.manual_seed(0)
    images = torch.rand(2, case.batch, 1, case.patch, case.patch)
    if device == "cuda":
        images = images.pin_memory()
    mixed = torch.autocast(device, torch.bfloat16, enabled=case.peer == "bfloat16")

    def one_step() -> torch.Tensor:
        inputs, targets = (
            part.to(device, memory_format=layout, non_blocking=True) for part in images
        )
        if case.model == "srcnn":
            targets = targets[:, :, 6:-6, 6:-6]
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            output = forward(inputs)
        if case.model == "vdsr":
            output = output + inputs
        loss = nn.functional.mse_loss(output.float(), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda count: torch.stack([one_step() for _ in range(count)]).tolist()


def _best_of_five(steps: Steps) -> float:
    """Seconds a step, of as many as take a tenth of a second, once its kernels are chosen."""
    steps(3)
    count = max(round(0.1 / _timed(steps, 1)), 1)
    return min(_timed(steps, count) for _ in range(5))


def _timed(steps: Steps, count: int) -> float:
    start = time.perf_counter()
    steps(count)
    return (time.perf_counter() - start) / count


def serve(make: Callable[[Case], Steps]) -> None:
    """For each 'case count' on standard input: that many steps; answers with seconds a step."""
    made: dict[str, Steps] = {}
    for line in sys.stdin:
        name, count = line.split()
        if name not in made:
            made[name] = make(CASES[name])
            made[name](1)
            made[name](2)
        sys.stdout.write(f"{_timed(made[name], int(count))}\n")
        sys.stdout.flush()


def main() -> None:
    """Prints a table of medians and ratios, and each pair on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="interpreter of the environment with PyTorch")
    parser.add_argument("--pairs", type=int, default=7, help="measured, a case")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps, one measurement")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[:-1])
    parser.add_argument("--compile", action="store_true", help="torch.compile for PyTorch as well")
    parser.add_argument("--serve", choices=("ours", "pytorch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        peer = functools.partial(peer_steps, compiled=options.compile)
        serve(our_steps if options.serve == "ours" else peer)
        return
    if not options.peer:
        parser.error("--peer is needed")
    print("luma patches, Adam, milliseconds a step")
    print(f"{'':16}{'ours':>9}{'PyTorch':>9}{'ratio':>7}{'from':>7}{'to':>6}")
    for name in options.cases:
        pairs = measure(options, name)
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratios = sorted(mine / yours for mine, yours in pairs)
        print(
            f"{name:16}{ours * 1e3:9.2f}{theirs * 1e3:9.2f}{statistics.median(ratios):7.2f}"
            f"{ratios[0]:7.2f}{ratios[-1]:6.2f}",
            flush=True,
        )


def measure(options: argparse.Namespace, name: str) -> list[tuple[float, float]]:
    """Seconds a step of both, pair by pair."""
    compiled = ["--compile"] if options.compile else []
    workers = [
        subprocess.Popen(
            [python, "-m", "benchmarks.training", "--serve", side, *compiled],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for side, python in (("ours", sys.executable), ("pytorch", options.peer))
    ]  # fmt: skip
    first = [_ask(worker, name, 1) for worker in workers]
    count = max(round(options.seconds / min(first)), 1)
    pairs = []
    for number in range(options.pairs):
        ours, theirs = (_ask(worker, name, count) for worker in workers)
        pairs.append((ours, theirs))
        print(f"  {name} {number + 1}/{options.pairs}: {ours:.5f} {theirs:.5f}", file=sys.stderr)
    for worker in workers:
        worker.communicate()
    return pairs


def _ask(worker: "subprocess.Popen[str]", name: str, count: int) -> float:
    assert worker.stdin and worker.stdout
    worker.stdin.write(f"{name} {count}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


if __name__ == "__main__":
    main()
