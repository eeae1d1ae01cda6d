import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.cli import UsageError
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import DatasetFolder

SOURCE = {
    "name": "list.txt", "size": 3, "modified_ns": 4, "is_folder": False, "sha256": "0" * 64,
    "lines": 3, "rejected": {"malformed_line": 1}, "large_families": ["example.org"],
}  # fmt: skip
RECORD = BuildRecord(2, {"seed": 0}, {"retry": ["timed_out"]}, SOURCE)


def test_what_is_saved_is_loaded(folder: DatasetFolder) -> None:
    assert BuildRecord.load(folder) is None
    RECORD.save(folder)
    assert BuildRecord.load(folder) == RECORD


def test_another_versions_is_refused(folder: DatasetFolder) -> None:
    folder.publish_json(folder.build, {"format": 1, "options": {}})
    with pytest.raises(UsageError, match="begun by another version of this program"):
        BuildRecord.load(folder)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


@given(data=st.data())
def test_a_damaged_one_is_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = {"format": 2, **asdict(RECORD)}
    place = data.draw(st.sampled_from([whole, *(v for v in whole.values() if isinstance(v, dict))]))
    place[data.draw(st.sampled_from(sorted(place)) | st.text(max_size=9))] = data.draw(PLAIN)
    text = json.dumps(data.draw(st.just(whole) | PLAIN)).encode()
    cut = text[: data.draw(st.integers(0, len(text)))]
    folder = DatasetFolder(str(tmp_path_factory.mktemp("dataset")))
    folder.publish_bytes(folder.build, data.draw(st.sampled_from([text, cut]) | st.binary()))
    try:
        build = BuildRecord.load(folder)
    except UsageError as error:
        assert len(str(error)) < 500
    else:
        assert build is not None
        build.save(folder)
        assert BuildRecord.load(folder) == build


@pytest.mark.parametrize("text", ["[" * 1_000_000, "9" * 40_000_000, '{"a":' * 6_000_000])
def test_a_large_one_costs_little_memory(tmp_path: Path, text: str) -> None:
    folder = DatasetFolder(str(tmp_path))
    Path(folder.build).write_text(text)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"build\.json is damaged"):
        BuildRecord.load(folder)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


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
