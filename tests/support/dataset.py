"""Finished datasets of given crops, written by the parts that a build writes with."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.tfrecord import frame_record
from pipelines.pictures.degradation import degrade
from tests.support.site import png

Crops = Mapping[str, Image.Image]
"""Square crops of one size, by image id."""


def write_dataset(
    directory: Path, splits: Mapping[str, Crops], *, shards: int = 1, **options: Any
) -> Path:
    """A finished dataset of these crops; the train split has ``shards`` shards, others one.

    A shard without a crop is left out, as in a build.
    """
    size = next(crop.width for crops in splits.values() for crop in crops.values())
    settings = DatasetOptions(crop_size=size, **options)
    written = {}
    (directory / "examples").mkdir(parents=True)
    for split, crops in splits.items():
        count = shards if split == "train" else 1
        for index in range(count):
            part = list(crops.items())[index::count]
            if part:
                name = f"{split}-{index:05}-of-{count:05}"
                data = b"".join(_record(*one, settings) for one in part)
                (directory / "examples" / f"{name}.tfrecord").write_bytes(data)
                written[name] = Shard(len(part), hashlib.sha256(data).hexdigest(), len(data))
    manifest = Manifest(settings, source={}, shards=written, outcomes={})
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest.to_json()))
    return directory


def _record(image_id: str, crop: Image.Image, options: DatasetOptions) -> bytes:
    lr = degrade(np.asarray(crop), options.scales, options.degradation)
    example = Example(
        image_id=image_id,
        url=f"http://example.org/{image_id}.jpg",
        sha256=hashlib.sha256(image_id.encode()).hexdigest(),
        crop=Crop(0, 0, crop.width, crop.height),
        hr=png(crop),
        lr={scale: png(Image.fromarray(pixels)) for scale, pixels in lr.items()},
    )
    return frame_record(example.to_bytes())
