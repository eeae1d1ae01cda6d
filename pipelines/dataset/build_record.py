"""build.json: what a dataset folder's build was begun with; and how far that build has come."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from pipelines.command.cli import UsageError
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions

FORMAT = 2
# The names of all classes and of a thousand families of hosts are a hundredth of it.
_MAX_BYTES = 32_000_000
_SHOWN = 200


@dataclass(frozen=True)
class BuildRecord:
    """The content of build.json, written before anything else of a build."""

    generation: int
    """How many builds were begun in this folder, this one among them."""
    options: Mapping[str, Any]
    """As DatasetOptions.to_json gives them."""
    originals: Mapping[str, Any] | None
    """What a rebuilt dataset is made from; None for a list or pictures."""
    source: Mapping[str, Any]
    """The list's identity, and what the survey found in it."""

    @classmethod
    def load(cls, folder: DatasetFolder) -> Self | None:
        """Reads it; None where there is none. Raises UsageError where it is damaged or another
        version's."""
        if not folder.exists(folder.build):
            return None
        with folder.open(folder.build) as file:
            data = file.read(_MAX_BYTES)
        try:
            values = json.loads(data)
            version = values.pop("format")
            if version != FORMAT:
                raise UsageError(
                    f"{folder.root} was begun by another version of this program: use another "
                    "--output"
                )
            record = cls(**values)
            record.check()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"[:_SHOWN]
            raise UsageError(
                f"{folder.build} is damaged ({reason}): restore it, or use another --output"
            ) from None
        return record

    def check(self) -> None:
        """Raises ValueError, KeyError or TypeError where it is not what ``save`` writes."""
        DatasetOptions.from_json(self.options)
        kinds: dict[str, type] = {"name": str, "sha256": str, "lines": int, "is_folder": bool}
        _check_kind("generation", self.generation, int)
        for name, kind in kinds.items():
            _check_kind(name, self.source[name], kind)
        _check_kind("rejected", self.source["rejected"], Mapping)
        _check_kind("large_families", self.source["large_families"], list)
        _check_kind("size", self.source["size"], int | None)
        if self.originals is not None:
            _check_kind("retry", self.originals["retry"], list)

    def save(self, folder: DatasetFolder) -> None:
        """Writes it."""
        folder.publish_json(folder.build, {"format": FORMAT, **asdict(self)})


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}")


class State(Enum):
    """How far the build of a folder has come."""

    EMPTY = "no build.json: no build was begun"
    BEGUN = "build.json alone counts: all else is what an earlier build has left"
    PLANNED = "the plan is whole; shards are being fetched and finished"
    COMPLETE = "dataset.json is written"


def state_of(folder: DatasetFolder, build: BuildRecord | None) -> State:
    """The state of a folder with this build.json.

    The next build writes its build.json first, then deletes the old dataset.json, then the old
    plan's index. So a plan of another generation says that the dataset.json beside it is old too.
    """
    if build is None:
        return State.EMPTY
    planned = None
    if folder.exists(folder.plan_index):
        planned = folder.read_json(folder.plan_index)["generation"]
    if planned in (build.generation, None) and folder.exists(folder.manifest):
        return State.COMPLETE
    return State.PLANNED if planned == build.generation else State.BEGUN
