import hashlib
import io
import random
from contextlib import closing
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from pipelines.decoder import decode
from pipelines.examples import Example, Original
from pipelines.http_client import Body
from pipelines.options import DatasetOptions
from pipelines.outcome_table import read_table
from pipelines.outcomes import Outcome, Row
from pipelines.spool import ShardSpool
from pipelines.storage import Attempt, DatasetFolder
from pipelines.tfrecord import read_records
from pipelines.url_list import Entry

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
    with folder.spool() as directory, closing(ShardSpool(directory)) as spool:
        spool.add(Row(Outcome.DNS_FAILED, "n9", "http://b.com/"))
        for url in order:
            data = pictures[url]
            body = Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())
            entry = Entry(f"n{len(data) % 3:08}_1", url, url, "a.com")
            picture = spool.store(entry, body)
            row = spool.add_picture(picture, decode(picture, OPTIONS))
            assert (row.url, row.num_bytes, row.sha256) == (url, len(data), body.sha256)
        attempt = folder.new_attempt(SHARD)
        spool.publish(attempt)
        return attempt


def test_files_are_sorted_whatever_the_order_of_arrival(
    tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    order = list(pictures)
    written = []
    for seed in range(2):
        random.Random(seed).shuffle(order)
        attempt = published(DatasetFolder(str(tmp_path / str(seed))), pictures, order)
        paths = (attempt.originals, attempt.candidates, attempt.table)
        written.append([Path(path).read_bytes() for path in paths])
    assert written[0] == written[1]


def test_what_an_attempt_holds(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    folder = DatasetFolder(str(tmp_path))
    attempt = published(folder, pictures, list(pictures))
    with folder.open(attempt.candidates) as file:
        examples = [Example.from_bytes(record) for record in read_records(file)]
    keys = [(example.image_id, example.url, example.crop) for example in examples]
    assert keys == sorted(keys)
    assert {example.url for example in examples} == set(list(pictures)[:5])
    with folder.open(attempt.originals) as file:
        originals = [Original.from_bytes(record) for record in read_records(file)]
    # One that is too small for these crops may do for others.
    assert {original.url: original.data for original in originals} == dict(
        list(pictures.items())[:6]
    )
    with folder.open(attempt.table) as file:
        outcomes = {row.url: row.outcome for row in read_table(file)}
    assert [outcomes[f"http://a.com/{n}"] for n in range(4, 8)] == [
        *(Outcome.OK, Outcome.TOO_SMALL, Outcome.CORRUPT, Outcome.NOT_AN_IMAGE)
    ]
    assert outcomes["http://b.com/"] is Outcome.DNS_FAILED
    assert list(folder.attempts()) == [SHARD]


def test_a_shard_without_pictures_has_a_table_alone(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    attempt = published(folder, {}, [])
    assert folder.names("fetched") == [Path(attempt.table).name]
