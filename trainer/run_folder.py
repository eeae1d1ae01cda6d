"""A run's folder: its configuration, and whether a command may go on in it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.cli import UsageError
from pipelines.manifest import Manifest
from trainer.config import Config, read_values

_CONFIG, _DATASET = "config.yaml", "dataset.json"


@dataclass(frozen=True)
class RunFolder:
    """RUN with the recipe and the dataset that a command asks for.

    config.yaml is the recipe, complete; dataset.json names what it is trained on.
    """

    path: Path
    config: Config
    directory: str
    """Of the dataset."""
    manifest: Manifest

    def check(self) -> None:
        """Raises UsageError where the folder is of another run; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is not a folder")
        if not (self.path / _CONFIG).exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise UsageError(f"{self.path} is not a run folder and not empty: use another")
            return
        begun, wanted = self._begun(), self._identity()
        differing = [
            f"{name} {begun.get(name)} there, {value} here"
            for name, value in wanted.items()
            if begun.get(name) != value
        ]
        if differing:
            raise UsageError(
                f"{self.path} was begun with another configuration ({'; '.join(differing)}): "
                "use another --output, or --restart, which keeps the old run aside"
            )

    def set_aside(self) -> Path | None:
        """Renames an existing folder to the first free RUN.old-N, which it returns."""
        if not self.path.exists():
            return None
        numbers = (number for number in range(1, 1_000_000))
        names = (self.path.with_name(f"{self.path.name}.old-{n}") for n in numbers)
        aside = next(name for name in names if not name.exists())
        self.path.rename(aside)
        return aside

    def begin(self) -> None:
        """Creates the folder, or brings config.yaml of one that goes on up to date."""
        self.path.mkdir(parents=True, exist_ok=True)
        dataset = {"directory": self.directory, "sha256": self._dataset_sha256()}
        _write(self.path / _DATASET, json.dumps(dataset, indent=2) + "\n")
        text = yaml.safe_dump(self.config.to_yaml(), sort_keys=False)
        _write(self.path / _CONFIG, text)

    def _identity(self) -> dict[str, Any]:
        return {**self.config.identity(), "dataset": self._dataset_sha256()}

    def _begun(self) -> dict[str, Any]:
        config = Config(**read_values(self.path / _CONFIG))
        path = self.path / _DATASET
        try:
            dataset = json.loads(path.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} cannot be read: {error!r}; use --restart") from None
        return {**config.to_yaml(), "dataset": dataset}

    def _dataset_sha256(self) -> str:
        """Of the dataset's records, wherever the folder lies."""
        shards = sorted((name, shard.sha256) for name, shard in self.manifest.shards.items())
        return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
