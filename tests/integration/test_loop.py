"""The whole loop on real photographs: list, dataset, training of both networks, CSV."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import build
from tests.support.site import LoopbackServer, answer

PHOTOS = 40
STEPS = 4


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., None]:
    """Runs a command: run(module, argument, ...)."""

    def run(module: str, *arguments: str) -> None:
        done = build.run(sys.executable, "-m", module, *arguments, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]

    return run


@pytest.fixture
def photo_list(
    shared_data: Path,
    server: LoopbackServer,
    tmp_path: Path,
) -> Path:
    """The ids and paths of photos.tsv, at a loopback address."""
    lines = []
    for row in (shared_data / "imagenet/photos.tsv").read_text().splitlines()[:PHOTOS]:
        image_id, _, name = row.split("\t")
        path = f"/{name}"
        server.routes[path] = answer((shared_data / "imagenet/photos" / name).read_bytes())
        lines.append(f"{image_id}\t{server.url(path)}\n")
    written = tmp_path / "urls.tsv"
    written.write_text("".join(lines))
    return written


@pytest.mark.slow
def test_from_a_list_of_real_photographs_to_a_table(
    run: Callable[..., None], photo_list: Path, tmp_path: Path
) -> None:
    data, results = tmp_path / "data", tmp_path / "results.csv"
    run(
        *("pipelines", "--urls", str(photo_list), "--output", str(data), "--num-shards", "2"),
        *("--splits", "train=0.7,validation=0.15,test=0.15", "--allow-host", "127.0.0.1"),
        *("--requests-per-host", "100000", "--crawlers", "1", "--crop-size", "96"),
    )
    runs = []
    for model, recipe in (
        ("srcnn", ["--patch-size", "40", "--batch-size", "16"]),
        ("vdsr", ["--patch-size", "32", "--batch-size", "4"]),
    ):
        runs.append(str(tmp_path / "runs" / model))
        run(
            *("trainer", "--config", model, "--data", str(data), "--output", runs[-1]),
            *("--replicas", "2", "--steps", str(STEPS), "--validation-crops", "1"),
            *recipe,
        )
    run(
        *("evaluation", "--data", str(data), "--models", "bicubic", *runs),
        *("--scales", "2,4", "--output", str(results)),
    )
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["model"], row["scale"]) for row in rows} == {
        (model, scale) for model in ("bicubic", "srcnn", "vdsr") for scale in ("2", "4")
    }
    # The level that the article's degradation leaves on such photographs.
    assert all(15 < float(row["bicubic_psnr_db"]) < 30 for row in rows)
    assert {int(row["images"]) for row in rows} == {int(rows[0]["images"])}
