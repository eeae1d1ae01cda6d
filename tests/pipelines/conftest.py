"""A small finished dataset, built by the package itself."""

from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from pipelines.build.build import build
from pipelines.build.engine import EMBEDDED, Engine
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source


@pytest.fixture(scope="session")
def photo_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen photos of 80x80 in three splits, two crops of 32x32 each; two files are no picture.

    Not to be written to.
    """
    home = tmp_path_factory.mktemp("photos")
    photo = Image.fromarray(skimage.data.chelsea())
    for number in range(16):
        path = home / "pictures" / f"n0144076{number % 4}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((number * 8, 0, number * 8 + 80, 80)).save(path)
    for name in "ab":
        (home / "pictures" / f"{name}.jpg").write_text(f"no picture {name}")
    options = DatasetOptions(
        crop_size=32,
        scales=(2, 3),
        num_shards=2,
        splits={"train": 0.5, "validation": 0.25, "test": 0.25},
        crops_per_image=2,
    )
    source = Source(str(home / "pictures"), is_folder=True)
    engine = Engine.of(EMBEDDED)
    build(DatasetFolder(str(home / "set")), options, CrawlOptions(), source, engine)
    return home / "set"
