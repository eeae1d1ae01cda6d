"""Training killed at random moments: python -m benchmarks.kill_training --data DIR.

One run is left alone. Another one of the same recipe is killed (SIGKILL) after a random time as
often as --kills says, started again each time, and let end at last. Both must have the same
weights, optimizer, averages, statistics and recorded losses, bit for bit.
"""

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECIPE = [
    *("--config", "srcnn", "--identity-start", "--patch-size", "24", "--batch-size", "8"),
    *("--scale-per", "crop", "--augment", "--average", "0.99", "--learning-rate", "1e-3"),
    *("--log-every", "5", "--validate-every", "40", "--validation-crops", "2"),
    *("--checkpoint-every", "20"),
]


def main() -> None:
    """Prints a line a kill, and at last whether both runs are equal; exit status 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--longest", type=float, default=2.0, help="s from its first new step to a kill"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        _train(options, undisturbed)
        for number in range(1, options.kills + 1):
            process = _start(options, killed)
            moment = _kill_within(process, killed, rng.random(), options.longest)
            step = _last_step(killed)
            print(f"kill {number}: {moment:.2f} s after its first new step, checkpoint {step}",
                  flush=True)  # fmt: skip
            if process.returncode == 0:
                sys.exit("the run was over before it could be killed: use more --steps")
        _train(options, killed)
        differing = differences(undisturbed, killed)
    print(f"different: {', '.join(differing)}" if differing else "equal, bit for bit")
    sys.exit(bool(differing))


def _start(options: argparse.Namespace, run: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "trainer", "--data", options.data, "--output", run]
    return subprocess.Popen(
        [*command, *RECIPE, "--steps", str(options.steps)], stderr=subprocess.DEVNULL
    )


def _train(options: argparse.Namespace, run: Path) -> None:
    if _start(options, run).wait() != 0:
        sys.exit(f"training {run} failed")


def _kill_within(
    process: "subprocess.Popen[bytes]", run: Path, fraction: float, longest_s: float
) -> float:
    """Kills it that part of the time after it got farther than any before; gives the seconds."""
    before = _recorded_step(run)
    while process.poll() is None and _recorded_step(run) <= before:
        time.sleep(0.01)
    moment = fraction * longest_s
    time.sleep(moment)
    process.kill()
    process.wait()
    return moment


def _recorded_step(run: Path) -> int:
    """The last one in metrics.jsonl."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (FileNotFoundError, ValueError):  # not begun, or just being written
        return 0


def _last_step(run: Path) -> int:
    from trainer.checkpoints import Checkpoints

    last = Checkpoints(str(run)).last()
    return last.step if last else 0


def differences(one: Path, other: Path) -> list[str]:
    """What the two runs do not share."""
    from trainer.checkpoints import Checkpoints

    found = []
    for kind in ("last", "best"):
        mine, theirs = (getattr(Checkpoints(str(run)), kind)() for run in (one, other))
        for field in dataclasses.fields(mine):
            pair = (getattr(run, field.name) for run in (mine, theirs))
            # The record is a line of metrics.jsonl, speed and all, which is compared below.
            if field.name != "record" and not _equal(*pair):
                found.append(f"{field.name} of the {kind} checkpoint")
    if _metrics(one) != _metrics(other):
        found.append("metrics.jsonl")
    return found


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(_equal(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list) and mine and not isinstance(mine[0], float):
        return len(mine) == len(theirs) and all(map(_equal, mine, theirs))
    return bool(np.array_equal(mine, theirs))


def _metrics(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "train/images_per_s"} for r in records]


if __name__ == "__main__":
    main()
