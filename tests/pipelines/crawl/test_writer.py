import hashlib
import io
import random
from contextlib import closing
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from pipelines.build.finish import finish_shard
from pipelines.crawl.answer import Body
from pipelines.crawl.writer import ShardWriter
from pipelines.dataset.attempt_table import Fetched, read_table
from pipelines.dataset.examples import Example, Original
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.tfrecord import Span, read_records, unframe_record
from pipelines.lists.url_list import Entry
from pipelines.pictures.decoder import decode

OPTIONS = DatasetOptions(crop_size=32, crops_per_image=2, scales=(2,))
SHARD = "train-00000-of-00001"


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """By URL; the last three are too small, cut off and none."""
    photo = Image.fromarray(skimage.data.chelsea())
    found = {}
    for number in range(8):
        file = io.BytesIO()
        side = 30 if number == 5 else 60
        photo.crop((number, 0, number + side, side)).save(file, "PNG")
        found[f"http://a.com/{number}"] = file.getvalue()
    found["http://a.com/6"] = found["http://a.com/6"][:-200]
    found["http://a.com/7"] = b"<html>"
    return found


def published(folder: DatasetFolder, pictures: dict[str, bytes], order: list[str]) -> Attempt:
    attempt = folder.new_attempt(SHARD)
    with folder.spool() as directory, closing(ShardWriter(directory, attempt)) as writer:
        writer.add(Row(Outcome.DNS_FAILED, "n9", "http://b.com/"))
        for url in order:
            data = pictures[url]
            body = Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())
            entry = Entry(f"n{len(data) % 3:08}_1", url, url, "a.com")
            picture = writer.store(entry, body)
            row = writer.add_picture(entry, body, picture, decode(picture, OPTIONS))
            assert (row.url, row.num_bytes, row.sha256) == (url, len(data), body.sha256)
        writer.publish()
    return attempt


def test_the_finished_shard_does_not_depend_on_the_order_of_arrival(
    tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    order = list(pictures)
    written = []
    for seed in range(2):
        random.Random(seed).shuffle(order)
        folder = DatasetFolder(str(tmp_path / str(seed)))
        finish_shard(published(folder, pictures, order), [])
        paths = (folder.examples(SHARD), folder.outcomes(SHARD))
        written.append([Path(path).read_bytes() for path in paths])
    assert written[0] == written[1]
    examples = [Example.from_bytes(r) for r in read_records(io.BytesIO(written[0][0]))]
    keys = [(example.image_id, example.url, example.crop) for example in examples]
    assert keys == sorted(keys)


def test_what_an_attempt_holds(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    folder = DatasetFolder(str(tmp_path))
    attempt = published(folder, pictures, list(pictures))
    with folder.open(attempt.table) as file:
        fetched = {line.row.url: line for line in read_table(file)}
    outcomes = [fetched[f"http://a.com/{n}"].row.outcome for n in range(4, 8)]
    assert outcomes == [*(Outcome.OK, Outcome.TOO_SMALL, Outcome.CORRUPT, Outcome.NOT_AN_IMAGE)]
    lost = fetched.pop("http://b.com/")
    assert lost == Fetched(Row(Outcome.DNS_FAILED, "n9", "http://b.com/"))
    originals, candidates = (
        Path(path).read_bytes() for path in (attempt.originals, attempt.candidates)
    )

    def record(data: bytes, span: Span | None) -> bytes:
        assert span
        return unframe_record(data[span.offset : span.offset + span.num_bytes])

    # What is of no use for these crops, or to this decoder, may be so for others.
    for url, data in pictures.items():
        assert Original.from_bytes(record(originals, fetched[url].original)).data == data
        for crop, span in fetched[url].examples:
            example = Example.from_bytes(record(candidates, span))
            assert (example.url, example.crop) == (url, crop)
    assert [len(fetched[url].examples) for url in pictures] == [2] * 5 + [0] * 3
    assert list(folder.attempts()) == [SHARD]


def test_a_shard_without_pictures_has_a_table_alone(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    attempt = published(folder, {}, [])
    assert folder.names("fetched") == [Path(attempt.table).name]
