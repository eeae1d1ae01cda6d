"""A run's folder: its configuration, and whether a command may go on in it."""

import dataclasses
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import yaml

from pipelines.command.cli import UsageError
from pipelines.command.fields import differing
from pipelines.dataset.manifest import Manifest
from trainer import files
from trainer.config import MOST_TEXT_BYTES, Config, read_values

_IS_OF = "dataset"
_CONFIG, _DATASET, _LOCK = "config.yaml", "dataset.json", "lock"


@dataclass(frozen=True)
class RunFolder:
    """RUN with the recipe and the dataset that a command asks for.

    config.yaml is the recipe, complete; dataset.json names what it is trained on; lock holds the
    number of the process that trains.
    """

    path: str
    config: Config
    directory: str
    """Of the dataset."""
    manifest: Manifest

    def resolved(self, restart: bool = False) -> "RunFolder":
        """With what auto means: in a run that goes on, what it meant when it began."""
        config = self.config
        if config.precision == "auto" and not restart and self.has_begun():
            config = dataclasses.replace(config, precision=self._begun_config().precision)
        return dataclasses.replace(self, config=config.resolved())

    def has_begun(self) -> bool:
        """Whether the folder is of a run."""
        return files.exists(files.join(self.path, _CONFIG))

    def check(self) -> None:
        """Raises UsageError where the folder is of another run; writes nothing."""
        if files.exists(self.path) and not files.is_folder(self.path):
            raise UsageError(f"{self.path} is not a folder")
        if not self.has_begun():
            if not self._is_empty():
                raise UsageError(f"{self.path} is not a run folder and not empty: use another")
            return
        begun, wanted = self._begun(), self._identity()
        others = differing(Config, {name: begun.get(name) for name in wanted}, wanted)
        if begun[_IS_OF] != wanted[_IS_OF]:
            others.append(f"another dataset ({begun[_IS_OF]}, not {wanted[_IS_OF]})")
        if others:
            raise UsageError(
                f"{self.path} was begun with {'; '.join(others)}: use the same options, another "
                "--output, or --restart, which keeps the old run aside"
            )

    def lock(self) -> "Lock":
        """Creates the folder and takes its lock. Raises UsageError while another trains in it."""
        files.make_folder(self.path)
        return Lock(self.path)

    def set_aside(self) -> str | None:
        """Renames a folder that holds anything to the first free RUN.old-N, which it returns."""
        if self._is_empty():
            return None
        names = (f"{self.path.rstrip('/')}.old-{number}" for number in range(1, 1_000_000))
        aside = next(name for name in names if not files.exists(name))
        files.rename(self.path, aside)
        return aside

    def _is_empty(self) -> bool:
        return not set(files.names(self.path)) - {_LOCK}

    def begin(self) -> None:
        """Writes what the folder is of, or brings config.yaml of a run that goes on up to date."""
        dataset = {"directory": self.directory, "sha256": self._dataset_sha256()}
        text = yaml.safe_dump(self.config.to_yaml(), sort_keys=False)
        files.write(
            files.join(self.path, _DATASET), (json.dumps(dataset, indent=2) + "\n").encode()
        )
        files.write(files.join(self.path, _CONFIG), text.encode())

    def _identity(self) -> dict[str, Any]:
        return {**self.config.identity(), _IS_OF: self._dataset_sha256()}

    def _begun(self) -> dict[str, Any]:
        path = files.join(self.path, _DATASET)
        try:
            dataset = json.loads(files.read(path, at_most=MOST_TEXT_BYTES))["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{path} cannot be read: {error!r:.200}; use --restart") from None
        return {**self._begun_config().to_yaml(), _IS_OF: dataset}

    def _begun_config(self) -> Config:
        return Config(**read_values(files.join(self.path, _CONFIG)))

    def _dataset_sha256(self) -> str:
        """Of the dataset's records, wherever the folder lies."""
        shards = sorted((name, shard.sha256) for name, shard in self.manifest.shards.items())
        return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


class Lock:
    """Held while a process trains in a local folder; gone with the process, however it ends.

    An object store has no such lock: there a second training is not noticed.
    """

    def __init__(self, run: str) -> None:
        self._file: TextIO | None = None
        if not files.is_local(run):
            return
        path = Path(run, _LOCK)
        with files.writing(str(path)):
            self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            pid = self._file.read().strip()
            self._file.close()
            raise UsageError(
                f"{run} is being trained by process {pid}: stop it, or use another --output"
            ) from None
        with files.writing(str(path)):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others in."""
        if self._file is not None:
            self._file.close()
