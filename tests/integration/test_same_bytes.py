"""The same pictures give the bytes below on every Python, numpy and machine.

A change that alters them alters every dataset: it belongs into CHANGELOG.md.
"""

import hashlib
import shutil
from pathlib import Path

import pytest
import skimage

from pipelines.build.build import build
from pipelines.build.engine import Engine
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions, Degradation
from pipelines.lists.plan import Source

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg")
SHA256 = {
    Degradation.ARTICLE: "cef5de7ef4ed56a135c37fa6aaec1be04e79ee97efc7eb9237d48b4abd57cf40",
    Degradation.ARTICLE_NEAREST: "359014be4c105ecdee964ed19a579f2108cd41e341c9c5a0ded68e79ab0bf9f3",
    Degradation.BICUBIC: "e3bd3863fdfea110a234919afc6d858cb8959bbda40c351f8d2c447637b39f8d",
}


@pytest.mark.parametrize("degradation", Degradation)
def test_the_bytes_are_known(degradation: Degradation, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in PHOTOS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, photos)
    options = DatasetOptions(
        degradation=degradation,
        crops_per_image=3,
        num_shards=2,
        splits={"train": 0.5, "validation": 0.25, "test": 0.25},
    )
    folder = tmp_path / "set"
    source = Source(str(photos), is_folder=True)
    build(DatasetFolder(str(folder)), options, CrawlOptions(), source, Engine.of("FnApiRunner"))
    manifest = Manifest.load(str(folder))
    assert manifest.outcomes == {"ok": len(PHOTOS)}
    shards = "".join(f"{name} {shard.sha256}\n" for name, shard in sorted(manifest.shards.items()))
    assert hashlib.sha256(shards.encode()).hexdigest() == SHA256[degradation]
