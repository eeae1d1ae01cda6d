"""dataset.json: what a finished dataset holds, and reading it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import __version__
from pipelines.command.cli import UsageError
from pipelines.dataset.options import SPLITS, DatasetOptions

FORMAT = 1
MANIFEST_NAME = "dataset.json"
_SHARD_NAME = re.compile(r"[a-z]+-\d{5,}-of-\d{5,}", re.ASCII)
_DECIDE_BYTES = ("pillow", "simplejpeg", "fpng", "can_ada", "publicsuffixlist", "apache-beam")


class Fault(Exception):
    """What is wrong in a dataset folder, beginning with the file's name."""


@dataclass(frozen=True)
class Shard:
    """One file of examples/."""

    examples: int
    sha256: str
    """Of the file, in hexadecimal."""
    num_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The content of dataset.json."""

    options: DatasetOptions
    source: Mapping[str, Any]
    """What the lines came from: sha256 of all lines, and their counts."""
    shards: Mapping[str, Shard]
    """By name, 'train-00000-of-00064'; only those that have a file."""
    outcomes: Mapping[str, int]

    def split(self, name: str) -> dict[str, Shard]:
        """The shards of one split, in order."""
        return {
            shard: self.shards[shard]
            for shard in sorted(self.shards)
            if shard.startswith(f"{name}-")
        }

    def num_examples(self, split: str) -> int:
        """How many examples a split has."""
        return sum(shard.examples for shard in self.split(split).values())

    def shard_paths(self, directory: str, split: str) -> list[str]:
        """The record files of a split, in order. Raises UsageError where it has no example."""
        if not self.split(split):
            raise UsageError(
                f"the {split} split of {directory} has no example: build the dataset from more "
                "pictures, or with larger shares: --splits train=0.8,validation=0.1,test=0.1"
            )
        folder = directory.rstrip("/")
        return [f"{folder}/examples/{name}.tfrecord" for name in self.split(split)]

    def to_json(self) -> dict[str, Any]:
        """The object that dataset.json holds."""
        return {
            "format": FORMAT,
            "options": self.options.to_json(),
            "source": dict(self.source),
            "splits": {
                split: {
                    "examples": self.num_examples(split),
                    "shards": {
                        name: {
                            "examples": shard.examples,
                            "bytes": shard.num_bytes,
                            "sha256": shard.sha256,
                        }
                        for name, shard in self.split(split).items()
                    },
                }
                for split in SPLITS
            },
            "outcomes": dict(sorted(self.outcomes.items())),
            "versions": {
                "imagenet-superres": __version__,
                **{package: version(package) for package in _DECIDE_BYTES},
            },
        }

    @classmethod
    def load(cls, directory: str) -> "Manifest":
        """Reads DIR/dataset.json. Raises UsageError where there is no finished dataset."""
        directory = directory.rstrip("/")
        if (text := _text(f"{directory}/{MANIFEST_NAME}")) is None:
            raise UsageError(
                f"{directory} is not a finished dataset: it has no {MANIFEST_NAME} "
                f"(python -m pipelines --output {directory} … builds one; --data, with make DATA=, "
                "names another)"
            )
        return cls.parse(f"{directory}/{MANIFEST_NAME}", text)

    @classmethod
    def parse(cls, path: str, text: bytes) -> "Manifest":
        """Of what ``path`` held. Raises UsageError where that is no description."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise UsageError(f"{path} has format {values['format']}, this reads {FORMAT}")
            return cls(
                options=DatasetOptions.from_json(values["options"]),
                source=values["source"],
                shards={
                    name: _shard(split, name, shard)
                    for split, part in values["splits"].items()
                    for name, shard in part["shards"].items()
                },
                outcomes=_counts(values["outcomes"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path} is not a dataset's description: {error!r:.200}") from None


def _counts(values: Mapping[str, int]) -> Mapping[str, int]:
    """Raises ValueError where they are none."""
    wrong = [word for word, count in values.items() if type(count) is not int or count < 0]
    if wrong:
        raise ValueError(f"there cannot be {values[wrong[0]]!r:.30} lines of {wrong[0][:60]}")
    return values


def _shard(split: str, name: str, values: Mapping[str, Any]) -> Shard:
    """Raises ValueError for a name that would lead elsewhere, and for numbers that cannot be."""
    shard = Shard(values["examples"], values["sha256"], values["bytes"])
    if split not in SPLITS or not _SHARD_NAME.fullmatch(name) or not name.startswith(f"{split}-"):
        raise ValueError(f"{name[:60]!r} is no name of a shard of {split[:20]}")
    numbers = (shard.examples, shard.num_bytes)
    # A record has a frame of 16 bytes.
    if {*map(type, numbers)} != {int} or not 0 < 16 * shard.examples < shard.num_bytes < 1 << 63:
        raise ValueError(
            f"{name} cannot have {numbers[0]!r:.30} examples in {numbers[1]!r:.30} bytes"
        )
    return shard


def _text(path: str) -> bytes | None:
    """Of a file, None where there is none."""
    if "://" not in path:
        # Path.exists raises for a folder that may not be looked into.
        return Path(path).read_bytes() if os.path.exists(path) else None  # noqa: PTH110
    # A training on local files needs no Beam, which takes a second to import.
    from pipelines.dataset.folder import DatasetFolder

    folder = DatasetFolder(path.rpartition("/")[0])
    if not folder.exists(path):
        return None
    with folder.open(path) as file:
        text: bytes = file.read()
    return text


def check_listing(sizes: Mapping[str, int], manifest: Manifest) -> None:
    """Every shard of dataset.json is there: ``sizes`` of the files in examples/. Raises Fault."""
    for name, shard in sorted(manifest.shards.items()):
        size = sizes.get(f"{name}.tfrecord")
        if size is None:
            raise Fault(f"examples/{name}.tfrecord: missing")
        if size != shard.num_bytes:
            raise Fault(f"examples/{name}.tfrecord: {size:,} bytes, not {shard.num_bytes:,}")
