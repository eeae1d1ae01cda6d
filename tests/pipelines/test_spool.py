import random
from pathlib import Path

from pipelines.examples import Crop, Example, Original
from pipelines.outcomes import Outcome, Row, read_table
from pipelines.spool import ShardSpool
from pipelines.storage import DatasetFolder
from pipelines.tfrecord import read_records


def picture(number: int) -> tuple[Row, Original, Example, Example]:
    image_id, url = f"n{number % 3:08}_1", f"http://a.com/{number:03}"
    sha256 = f"{number:064}"
    examples = [Example(image_id, url, sha256, Crop(x, 0, 8, 8), b"hr", {2: b"lr"}) for x in (9, 2)]
    row = Row(Outcome.OK, image_id, url, sha256=sha256)
    return row, Original(image_id, url, sha256, bytes([number])), *examples


def test_files_are_sorted_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    pictures = [picture(number) for number in range(20)]
    written = []
    for seed in range(2):
        random.Random(seed).shuffle(pictures)
        folder = DatasetFolder(str(tmp_path / str(seed)))
        with folder.spool() as directory:
            spool = ShardSpool(directory)
            spool.add(Row(Outcome.DNS_FAILED, "n9", "http://b.com/"))
            for row, original, *examples in pictures:
                spool.add(row, original, *examples)
            attempt = folder.new_attempt("train-00000-of-00001")
            spool.publish(attempt)
        paths = (attempt.originals, attempt.candidates, attempt.table)
        written.append([Path(path).read_bytes() for path in paths])
    assert written[0] == written[1]
    with folder.open(attempt.candidates) as file:
        examples = [Example.from_bytes(record) for record in read_records(file)]
    keys = [(e.image_id, e.url, e.crop) for e in examples]
    assert keys == sorted(keys)
    assert len(keys) == 40
    with folder.open(attempt.originals) as file:
        originals = [Original.from_bytes(record) for record in read_records(file)]
    assert sorted(o.data for o in originals) == [bytes([n]) for n in range(20)]
    with folder.open(attempt.table) as file:
        assert len(read_table(file)) == 21
    assert list(folder.attempts()) == ["train-00000-of-00001"]


def test_a_shard_without_pictures_has_a_table_alone(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    with folder.spool() as directory:
        spool = ShardSpool(directory)
        spool.add(Row(Outcome.MALFORMED_LINE, line=b"\xff"))
        attempt = folder.new_attempt("test-00000-of-00001")
        spool.publish(attempt)
    assert folder.names("fetched") == [Path(attempt.table).name]
