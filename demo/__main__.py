"""python -m demo: list, dataset, training, PSNR table on shipped photographs, in some minutes."""

import itertools
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.command import cli
from pipelines.command.fields import argument_type
from pipelines.command.progress import format_duration

_SHARES = {"train": 0.6, "validation": 0.15, "test": 0.25}
_PHOTOS = {"train": 5, "validation": 1, "test": 2}
_CROPS = 24
_OUTPUTS = ("dataset", "runs", "results.csv", "report.html", "urls.tsv")


def main(arguments: Sequence[str]) -> None:
    """Runs the loop; what an earlier demo left is removed first."""
    parser = cli.ArgumentParser("python -m demo", __doc__ or "")
    parser.add_argument("--output", default="demo", metavar="DIR", help="for the results")
    parser.add_argument(
        "--port",
        type=argument_type(int, at_least=1, below=1 << 16),
        default=8911,
        metavar="N",
        help="of the loopback web server",
    )
    parser.add_argument(
        "--steps",
        type=argument_type(int, at_least=1),
        metavar="N",
        help="of each training (default: the recipe's)",
    )
    options = parser.parse_args(arguments)
    from demo.server import other_lines, photo_lines, served

    started = time.monotonic()
    output = Path(options.output)
    _remove_results(output)
    with served(options.port) as address:
        photos, others = photo_lines(address), other_lines(address)
        lines = [*itertools.chain(*photos), *others]
        (output / "urls.tsv").write_text("\n".join(lines) + "\n")
        _build(output, _seed(photos, lines))
    steps = ["--steps", str(options.steps)] if options.steps else []
    dataset = str(output / "dataset")
    runs = {f"{model}_demo": str(output / "runs" / model) for model in ("srcnn", "fsrcnn")}
    for recipe, run in runs.items():
        _run("trainer", "--config", recipe, "--data", dataset, "--output", run, *steps)
    scored = ["--data", dataset, "--models", "bicubic", *runs.values()]
    _run("evaluation", *scored, "--output", str(output / "results.csv"))
    results = ["--results", str(output / "results.csv")]
    _run("evaluation.report", *results, *scored, "--output", str(output / "report.html"))
    _say(
        f"done in {format_duration(time.monotonic() - started)}: {output / 'results.csv'} has the "
        f"table, {output / 'report.html'} shows the pictures"
    )


def _remove_results(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUTS:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _build(output: Path, seed: int) -> None:
    from demo.server import HOST

    shares = ",".join(f"{split}={share}" for split, share in _SHARES.items())
    _run(
        *("pipelines", "--urls", str(output / "urls.tsv"), "--output", str(output / "dataset")),
        *("--splits", shares, "--seed", str(seed), "--num-shards", "4"),
        *("--crops-per-image", str(_CROPS), "--allow-host", HOST),
    )


def _seed(photos: Sequence[Sequence[str]], lines: Sequence[str]) -> int:
    """The least seed that gives every split its part of so few photographs.

    Of a photograph's copies the one in the best split is kept: test, validation, train.
    """
    # Beam takes seconds to import.
    from pipelines.build.duplicates import split_rank
    from pipelines.dataset.options import DatasetOptions
    from pipelines.lists.sharding import Sharding, survey
    from pipelines.lists.url_list import parse_line

    raw = [line.encode() for line in lines]
    families = survey(raw, parse_line).large_families
    for seed in itertools.count():
        options = DatasetOptions(seed=seed, splits=_SHARES, num_shards=4)
        sharding = Sharding(options, families, len(raw), parse_line)
        counts: Counter[str] = Counter()
        for copies in photos:
            shards = [sharding.shard_of(line.encode()) for line in copies]
            counts[min(shards, key=split_rank).partition("-")[0]] += 1
        if counts == _PHOTOS:
            return seed
    raise AssertionError("unreachable")


def _run(module: str, *arguments: str) -> None:
    _say(f"\n$ python -m {module} {' '.join(arguments)}")
    status = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if status == 3:
        raise cli.Interrupted("make demo starts over")
    if status:
        raise cli.WorkError(f"python -m {module} ended with status {status}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cli.run(main)
