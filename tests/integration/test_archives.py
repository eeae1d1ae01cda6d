"""Builds from archives, as a user runs them: on disk, and on a real object store."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataset.manifest import Manifest
from pipelines.dataset.outcome import Outcome
from tests.support.build import Build, command, examples, manifest, rows, run, wait_for
from tests.support.site import crops, png

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--crop-size", "32", "--scales", "2", "--num-shards", "2", "--crawlers", "1"),
    *("--splits", "train=0.5,validation=0.25,test=0.25"),
)


def tar(folder: Path, archive: Path, *names: str) -> None:
    subprocess.run(["tar", "-cf", archive, *names], cwd=folder, check=True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """As ILSVRC2012_img_train.tar: a tar of each class in a tar."""
    for number, crop in enumerate(crops(12)):
        wnid = ("n01440764", "n01443537")[number % 2]
        path = tmp_path / wnid / f"{wnid}_{number}.JPEG"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(crop))
    for wnid in ("n01440764", "n01443537"):
        tar(tmp_path / wnid, tmp_path / f"{wnid}.tar", ".")
    tar(tmp_path, tmp_path / "train.tar", "n01440764.tar", "n01443537.tar")
    return tmp_path / "train.tar"


def test_a_tar_of_tars_on_disk_and_in_a_store_is_one_dataset(
    archive: Path, tmp_path: Path, store: Any
) -> None:
    wanted = tmp_path / "set"
    built = run(*command(archive, wanted, *OPTIONS, option="--images"))
    assert built.returncode == 0, built.stderr
    assert Manifest.load(str(wanted)).outcomes == {"ok": 12}
    assert {row.image_id for row in rows(wanted)} >= {"n01440764/n01440764_0"}
    again = run(*command(archive, wanted, *OPTIONS, option="--images"))
    assert "already complete" in again.stderr

    store.put("train.tar", archive)
    remote = ("s3://bucket/train.tar", "s3://bucket/set", *OPTIONS, "--crawlers", "2")
    stored = run(*command(*remote, option="--images"), env=store.environment())
    assert stored.returncode == 0, stored.stderr
    assert examples(store.bucket / "set") == examples(wanted)

    only = ("--wnids", "n01443537")
    some = run(*command(archive, tmp_path / "some", *OPTIONS, *only, option="--images"))
    assert some.returncode == 0, some.stderr
    assert Manifest.load(str(tmp_path / "some")).outcomes == {"ok": 6}


def test_a_folder_of_a_store_is_a_source(archive: Path, tmp_path: Path, store: Any) -> None:
    for path in sorted((tmp_path / "n01440764").iterdir()):
        store.put(f"photos/n01440764/{path.name}", path)
    remote = ("s3://bucket/photos", "s3://bucket/set")
    stored = run(*command(*remote, *OPTIONS, option="--images"), env=store.environment())
    assert stored.returncode == 0, stored.stderr
    assert {row.outcome for row in rows(store.bucket / "set")} == {Outcome.OK}


def test_an_interrupted_build_from_shards_goes_on_to_the_same_bytes(
    archive: Path, tmp_path: Path
) -> None:
    for wnid in ("n01440764", "n01443537"):
        shutil.copy(tmp_path / f"{wnid}.tar", tmp_path / f"shard-{wnid}.tar")
    pattern = str(tmp_path / "shard-*.tar")
    whole = run(*command(pattern, tmp_path / "whole", *OPTIONS, option="--images"))
    assert whole.returncode == 0, whole.stderr
    cut = command(pattern, tmp_path / "cut", *OPTIONS, option="--images")
    build = Build(tmp_path / "log", cut)
    try:
        build.wait_for((tmp_path / "cut" / "plan" / "shards.json").exists)
    finally:
        build.kill()
    wait_for(lambda: run(*cut).returncode == 0, lambda: "it does not go on")
    assert examples(tmp_path / "cut") == examples(tmp_path / "whole")
    assert manifest(tmp_path / "cut") == manifest(tmp_path / "whole")
