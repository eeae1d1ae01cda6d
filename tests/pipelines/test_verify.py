import dataclasses
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Fault, Manifest, Shard, check_listing
from pipelines.dataset.outcome import Row
from pipelines.dataset.outcome_table import read_table, write_table
from pipelines.dataset.tfrecord import frame_record, read_records
from pipelines.inspect.verification import verify
from pipelines.verify import main

SHARD = "train-00001-of-00002"
EXAMPLES, OUTCOMES = f"examples/{SHARD}.tfrecord", f"outcomes/{SHARD}.parquet"


@pytest.fixture
def data(photo_dataset: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(photo_dataset, tmp_path / "set")


def fault_of(data: Path, *, decode: bool = True) -> str:
    with pytest.raises(Fault) as raised:
        verify(DatasetFolder(str(data)), Manifest.load(str(data)), decode=decode)
    return str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--quick"], ["--workers", "2"]])
def test_a_dataset_as_built_is_right(
    photo_dataset: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(photo_dataset), *options])
    count = sum(shard.examples for shard in Manifest.load(str(photo_dataset)).shards.values())
    assert 16 < count <= 32
    assert f"{count} examples" in capsys.readouterr().out


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished dataset"):
        main([str(tmp_path)])
    with pytest.raises(UsageError, match="unknown option --quik"):
        main([str(tmp_path), "--quik"])


@pytest.mark.slow
@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_the_first_wrong_file_is_named_in_one_line(data: Path, quick: list[str]) -> None:
    flip(data / EXAMPLES, 0.5)
    flip(data / EXAMPLES.replace("train-00001", "train-00000"), 0.5)
    with pytest.raises(WorkError) as raised:
        main([str(data), *quick, "--workers", "2"])
    assert f"{data} is not" in str(raised.value)
    assert ": examples/train-00000-of-00002.tfrecord: the record at byte" in str(raised.value)


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("place", [0, 0.01, 0.3, 0.6, 0.99, 1])
@pytest.mark.parametrize("name", [EXAMPLES, OUTCOMES])
def test_a_flipped_byte_is_found(data: Path, name: str, place: float, decode: bool) -> None:
    flip(data / name, place)
    assert fault_of(data, decode=decode).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [EXAMPLES, OUTCOMES, "plan/shards.json"])
def test_a_missing_file_is_found(data: Path, name: str) -> None:
    (data / name).unlink()
    assert fault_of(data, decode=False) == f"{name}: missing"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": [1]}', '{"shards": {"a": "1"}}'])
def test_a_broken_plan_is_found(data: Path, text: str) -> None:
    (data / "plan/shards.json").write_text(text)
    assert fault_of(data, decode=False).startswith("plan/shards.json: ")


@pytest.mark.parametrize("kind", ["examples", "outcomes"])
@pytest.mark.parametrize("name", ["train-00002-of-00002.tfrecord", "a", "a.tmp"])
def test_a_foreign_file_is_found(data: Path, kind: str, name: str) -> None:
    (data / kind / name).write_text("")
    assert fault_of(data, decode=False) == f"{kind}/{name}: not of this dataset"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_shard_that_is_too_short_or_too_long_is_found_by_its_size(
    data: Path, change: int
) -> None:
    content = (data / EXAMPLES).read_bytes()
    (data / EXAMPLES).write_bytes((content + b"x")[: len(content) + change])
    folder, manifest = DatasetFolder(str(data)), Manifest.load(str(data))
    with pytest.raises(Fault, match=rf"{EXAMPLES}: [\d,]+ bytes, not {len(content):,}"):
        check_listing(folder.sizes("examples"), manifest)


def test_a_truncated_table_is_found(data: Path) -> None:
    content = (data / OUTCOMES).read_bytes()
    (data / OUTCOMES).write_bytes(content[:-100])
    assert fault_of(data).startswith(f"{OUTCOMES}: ")


def change_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rewrite(
    data: Path,
    change: Callable[[list[Example]], Iterable[Example]] = lambda examples: examples,
    change_rows: Callable[[list[Row]], list[Row]] = lambda rows: rows,
    serialize: Callable[[Example], bytes] = Example.to_bytes,
) -> None:
    """Changes a shard so that all checksums and totals are right again."""
    with (data / EXAMPLES).open("rb") as file:
        examples = [Example.from_bytes(record) for record in read_records(file)]
    with (data / OUTCOMES).open("rb") as file:
        rows = read_table(file)
    before = Counter(row.outcome for row in rows)
    examples, rows = list(change(examples)), change_rows(rows)
    content = b"".join(frame_record(serialize(example)) for example in examples)
    (data / EXAMPLES).write_bytes(content)
    table = io.BytesIO()
    write_table(table, rows)
    (data / OUTCOMES).write_bytes(table.getvalue())
    manifest = Manifest.load(str(data))
    shard = Shard(len(examples), hashlib.sha256(content).hexdigest(), len(content))
    outcomes = Counter(manifest.outcomes)
    outcomes.subtract(before)
    outcomes.update(row.outcome for row in rows)
    lines = sum(outcomes.values())
    manifest = dataclasses.replace(
        manifest,
        shards={**manifest.shards, SHARD: shard},
        outcomes=outcomes,
        source={**manifest.source, "lines": lines},
    )
    (data / "dataset.json").write_text(json.dumps(manifest.to_json()))
    change_json(data / "plan/shards.json", lambda plan: plan["shards"].update({SHARD: len(rows)}))


def first(**changes: object) -> Callable[[list[Example]], list[Example]]:
    """Changes the first example."""
    return lambda examples: [dataclasses.replace(examples[0], **changes), *examples[1:]]


def test_a_rewritten_shard_is_right(data: Path) -> None:
    rewrite(data)
    verify(DatasetFolder(str(data)), Manifest.load(str(data)))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def picture(side: int, mode: str = "RGB") -> bytes:
    return png(Image.new(mode, (side, side)))


def one_bit_changed(examples: list[Example]) -> list[Example]:
    with Image.open(io.BytesIO(examples[0].lr[3])) as lr:
        pixels = np.array(lr)
    pixels[4, 4, 0] ^= 1
    return first(lr={**examples[0].lr, 3: png(Image.fromarray(pixels))})(examples)


def swap(examples: list[Example]) -> Sequence[Example]:
    return [*examples[1:], examples[0]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (one_bit_changed, "lr_x3 is not the degradation of hr"),
        (first(hr=b"no picture"), "hr cannot be decoded"),
        (first(hr=picture(32)[:-20]), "hr cannot be decoded"),
        (first(hr=picture(31)), r"hr is RGB \(31, 31\), not RGB 32x32"),
        (first(hr=picture(32, "L")), "hr is L "),
        (first(lr={2: picture(16)}), "the scales 2, not 2,3"),
        (first(lr={2: picture(16), 3: picture(11)}), r"lr_x3 is RGB \(11, 11\)|not the degrad"),
        (first(crop=Crop(0, 0, 31, 32)), "crop is not 32x32"),
        (first(crop=Crop(60, 0, 32, 32)), "not inside 80x80"),
        (first(sha256="00"), "table has no such picture"),
        (first(image_id="0"), "table has no such picture"),
        (swap, "it is out of order"),
        (lambda examples: [examples[0], *examples], "it is out of order"),
        (lambda examples: examples[2:], "no example of 1 pictures"),
    ],
)
def test_a_wrong_example_is_found(
    data: Path, change: Callable[[list[Example]], list[Example]], fault: str
) -> None:
    rewrite(data, change)
    verify(DatasetFolder(str(data)), Manifest.load(str(data)), decode=False)
    with pytest.raises(Fault, match=rf"^{EXAMPLES}: .*({fault})"):
        verify(DatasetFolder(str(data)), Manifest.load(str(data)))


def test_another_feature_is_found(data: Path) -> None:
    rewrite(data, serialize=lambda example: example.to_bytes().replace(b"wnid", b"wmid"))
    assert "other features than the schema's" in fault_of(data)


def test_wrong_counts_are_found(data: Path) -> None:
    def one_more(values: dict[str, object]) -> None:
        values["splits"]["train"]["shards"][SHARD]["examples"] += 1  # type: ignore[index]

    change_json(data / "dataset.json", one_more)
    assert fault_of(data, decode=False).startswith(f"{EXAMPLES}: ")


def test_a_table_with_too_few_or_unsorted_rows_is_found(data: Path) -> None:
    with (data / OUTCOMES).open("rb") as file:
        rows = read_table(file)
    with (data / OUTCOMES).open("wb") as file:
        write_table(file, rows[1:])
    assert fault_of(data) == f"{OUTCOMES}: {len(rows) - 1} rows for {len(rows)} lines of the list"


def test_totals_that_do_not_add_up_are_found(data: Path) -> None:
    change_json(data / "dataset.json", lambda values: values["outcomes"].update(ok=17))  # type: ignore[attr-defined]
    assert fault_of(data) == (
        "outcomes/: ok 16, not_an_image 2, but dataset.json has ok 17, not_an_image 2"
    )
    change_json(data / "plan/shards.json", lambda plan: plan["shards"].popitem())
    assert fault_of(data).startswith("plan/shards.json: ")


@pytest.mark.parametrize(("what", "change"), [("picture", "sha256"), ("URL", "url")])
def test_a_picture_or_url_in_two_splits_is_found(data: Path, what: str, change: str) -> None:
    other = next(iter(Manifest.load(str(data)).split("test")))
    with (data / "examples" / f"{other}.tfrecord").open("rb") as file:
        twin = Example.from_bytes(next(read_records(file)))

    new = {"image_id": "zz", "url": "http://zz/", "sha256": "f" * 64, change: getattr(twin, change)}

    def add(examples: list[Example]) -> list[Example]:
        return [*examples, dataclasses.replace(examples[0], **new)]

    def add_row(rows: list[Row]) -> list[Row]:
        good = next(row for row in rows if row.outcome == "ok")
        return [*rows, dataclasses.replace(good, **new)]

    rewrite(data, add, add_row)
    assert f"{EXAMPLES}: a {what} that {other} has as well" in fault_of(data)
