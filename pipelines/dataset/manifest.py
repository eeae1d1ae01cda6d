"""dataset.json: what a finished dataset holds, and reading it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pipelines import __version__
from pipelines.command.cli import UsageError
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import SPLITS, DatasetOptions

FORMAT = 1
MANIFEST_NAME = "dataset.json"
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
        folder = DatasetFolder(directory.rstrip("/"))
        if not folder.exists(folder.manifest):
            raise UsageError(
                f"{directory} is not a finished dataset: it has no {MANIFEST_NAME} "
                f"(build it with: python -m pipelines --output {directory} …)"
            )
        with folder.open(folder.manifest) as file:
            return cls.parse(folder.manifest, file.read())

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
                    name: Shard(shard["examples"], shard["sha256"], shard["bytes"])
                    for split in values["splits"].values()
                    for name, shard in split["shards"].items()
                },
                outcomes=values["outcomes"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a dataset's description: {error!r}") from None


def check_listing(folder: DatasetFolder, manifest: Manifest) -> None:
    """One listing: every shard of dataset.json is there with its size. Raises Fault."""
    sizes = folder.sizes("examples")
    for name, shard in sorted(manifest.shards.items()):
        size = sizes.get(f"{name}.tfrecord")
        if size is None:
            raise Fault(f"examples/{name}.tfrecord: missing")
        if size != shard.num_bytes:
            raise Fault(f"examples/{name}.tfrecord: {size:,} bytes, not {shard.num_bytes:,}")
