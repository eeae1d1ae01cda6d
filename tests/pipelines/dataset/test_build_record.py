import pytest

from pipelines.command.cli import UsageError
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import DatasetFolder

RECORD = BuildRecord(2, {"seed": 0}, {"retry": ["timed_out"]}, {"lines": 3})


def test_what_is_saved_is_loaded(folder: DatasetFolder) -> None:
    assert BuildRecord.load(folder) is None
    RECORD.save(folder)
    assert BuildRecord.load(folder) == RECORD


def test_another_versions_is_refused(folder: DatasetFolder) -> None:
    folder.publish_json(folder.build, {"format": 1, "options": {}})
    with pytest.raises(UsageError, match="begun by another version of this program"):
        BuildRecord.load(folder)


@pytest.mark.parametrize(
    ("planned", "finished", "state"),
    [
        (None, False, State.BEGUN),
        (1, False, State.BEGUN),
        (1, True, State.BEGUN),  # the dataset.json is that of the build before
        (2, False, State.PLANNED),
        (2, True, State.COMPLETE),
        (None, True, State.COMPLETE),
    ],
)
def test_the_state_of_a_folder(
    folder: DatasetFolder, planned: int | None, finished: bool, state: State
) -> None:
    if planned is not None:
        folder.publish_json(folder.plan_index, {"generation": planned, "shards": {}})
    if finished:
        folder.publish_json(folder.manifest, {})
    assert state_of(folder, RECORD) is state
    assert state_of(folder, None) is State.EMPTY
