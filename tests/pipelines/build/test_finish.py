import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest

from pipelines.build.duplicates import Copy
from pipelines.build.finish import finish_shard
from pipelines.command.cli import WorkError
from pipelines.dataset import attempt_table
from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import all_rows, read_table
from pipelines.dataset.tfrecord import Span, frame_record, read_records

SHARD = "train-00000-of-00001"


def attempt(folder: DatasetFolder) -> Attempt:
    """Pictures n0 and n1 have the same content; they came last to first."""
    made = folder.new_attempt(SHARD)
    fetched = [Fetched(Row(Outcome.HTTP_CLIENT_ERROR, "n3", "http://3/", http_status=404))]
    candidates = b"cut off where a decoder died"
    for number, sha256 in reversed(list(enumerate("aab"))):
        image_id, url, crop = f"n{number}", f"http://{number}/", Crop(0, 0, 8, 8)
        row = Row(Outcome.OK, image_id, url, sha256=sha256)
        record = frame_record(Example(image_id, url, sha256, crop, b"hr", {2: b"lr"}).to_bytes())
        examples = ((crop, Span(len(candidates), len(record))),)
        fetched.append(Fetched(row, Span(0, 1), None, examples))
        candidates += record
    folder.publish_bytes(made.candidates, candidates)
    table = io.BytesIO()
    attempt_table.write_table(table, fetched)
    folder.publish_bytes(made.table, table.getvalue())
    return made


def image_ids(folder: DatasetFolder) -> list[str]:
    with folder.open(folder.examples(SHARD)) as file:
        return [Example.from_bytes(record).image_id for record in read_records(file)]


def test_a_shards_own_copies_are_dropped_and_everything_is_counted(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    made = attempt(folder)
    finished = finish_shard(made, [])
    assert image_ids(folder) == ["n0", "n2"]
    assert (finished.name, finished.examples) == (SHARD, 2)
    content = Path(folder.examples(SHARD)).read_bytes()
    assert finished.sha256 == hashlib.sha256(content).hexdigest()
    assert finished.num_bytes == len(content)
    assert finished.outcomes == {"ok": 2, "duplicate_image": 1, "http_client_error": 1}
    assert Counter(row.outcome for row in all_rows(folder)) == finished.outcomes
    with folder.open(folder.outcomes(SHARD)) as file:
        assert [row.duplicate_of for row in read_table(file)] == [None, "n0 http://0/", None, None]
    assert finish_shard(made, []) == finished
    assert Path(folder.examples(SHARD)).read_bytes() == content


def test_a_copy_kept_elsewhere_drops_all_of_the_content(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    elsewhere = Copy(0, "n9", "http://9/", "test-00000-of-00001", "a")
    finished = finish_shard(attempt(folder), [("a", elsewhere)])
    assert image_ids(folder) == ["n2"]
    assert finished.outcomes["duplicate_image"] == 2


def test_a_shard_without_an_example_has_no_file(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    made = attempt(folder)
    finish_shard(made, [])
    elsewhere = Copy(0, "n9", "http://9/", "test-00000-of-00001", "a")
    finished = finish_shard(made, [("a", elsewhere), ("b", elsewhere)])
    assert (finished.examples, finished.sha256, finished.num_bytes) == (0, "", 0)
    assert not Path(folder.examples(SHARD)).exists()


def test_a_corrupt_candidate_is_never_copied(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    made = attempt(folder)
    data = bytearray(Path(made.candidates).read_bytes())
    data[-10] ^= 1
    Path(made.candidates).write_bytes(data)
    with pytest.raises(WorkError, match=r"candidates.tfrecord is corrupt.*fetches train-00000"):
        finish_shard(made, [])
    assert not Path(folder.examples(SHARD)).exists()
