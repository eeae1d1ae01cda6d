"""What to change where a small folder of pictures gave a dataset that is of little use."""

import itertools
import math
from collections.abc import Mapping

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.outcome_table import all_rows

_WANTED_PART = 0.9
_FEW_PART = 0.05
_WANTED_PICTURES = 5
_LEAST_PART, _MOST_PART = 0.1, 0.25
_LEAST_CROP_PX = 24


def advice(folder: DatasetFolder, manifest: Manifest) -> list[str]:
    """One sentence for each thing that most people would not want."""
    found = [_about_splits(manifest), _about_size(folder, manifest)]
    return [sentence for sentence in found if sentence]


def _about_splits(manifest: Manifest) -> str:
    pictures = manifest.outcomes.get(Outcome.OK, 0)
    wanted = manifest.options.splits
    empty = [name for name, part in wanted.items() if part and not manifest.num_examples(name)]
    if not empty:
        return ""
    splits = ",".join(f"{name}={part:g}" for name, part in larger_splits(pictures).items())
    return (
        f"{' and '.join(empty)} got none of the {pictures:,} pictures: try --splits {splits} "
        "--overwrite"
    )


def larger_splits(pictures: int) -> Mapping[str, float]:
    """Parts by which so few pictures give every split some."""
    part = math.ceil(100 * _WANTED_PICTURES / max(pictures, 1)) / 100
    part = min(max(part, _LEAST_PART), _MOST_PART)
    return {"train": round(1 - 2 * part, 2), "validation": part, "test": part}


def _about_size(folder: DatasetFolder, manifest: Manifest) -> str:
    options, outcomes = manifest.options, manifest.outcomes
    small = outcomes.get(Outcome.TOO_SMALL, 0)
    if small <= _FEW_PART * sum(outcomes.values()):
        return ""
    least_px = next(
        side for side in itertools.count(1) if _room(side, options) >= options.crop_size
    )
    text = f"{small:,} pictures are too_small: at least {least_px} px a side are needed"
    # The largest crop of each picture.
    rooms = sorted(
        _room(min(row.width, row.height), options)
        for row in all_rows(folder)
        if row.width and row.height
    )
    room = rooms[int(len(rooms) * (1 - _WANTED_PART))]
    size = room - room % math.lcm(*options.scales)
    if not _LEAST_CROP_PX <= size < options.crop_size:
        return text
    taken = sum(one >= size for one in rooms)
    return f"{text}; --crop-size {size} --overwrite takes {taken:,} of {len(rooms):,}"


def _room(side: int, options: DatasetOptions) -> int:
    return side - 2 * options.margin_px(side)
