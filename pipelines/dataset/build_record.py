"""build.json: what a dataset folder's build was begun with; and how far that build has come."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from pipelines.command.cli import UsageError
from pipelines.dataset.folder import DatasetFolder

FORMAT = 2


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
        """Reads it; None where there is none. Raises UsageError for another version's."""
        if not folder.exists(folder.build):
            return None
        values = folder.read_json(folder.build)
        if values.pop("format") != FORMAT:
            raise UsageError(
                f"{folder.root} was begun by another version of this program: use another --output"
            )
        return cls(**values)

    def save(self, folder: DatasetFolder) -> None:
        """Writes it."""
        folder.publish_json(folder.build, {"format": FORMAT, **asdict(self)})


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
