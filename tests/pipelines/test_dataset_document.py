"""The readers in docs/dataset.md run as they stand there."""

import re
from pathlib import Path

import pytest

from pipelines.dataset.examples import decode_features
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.outcome_table import SCHEMA
from pipelines.dataset.tfrecord import read_records
from tests.support import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "dataset.md"
READERS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


TENSORFLOW, PYTHON = READERS


@pytest.mark.parametrize(
    ("reader", "printed"),
    [
        pytest.param(TENSORFLOW, [r"\S+ \(32, 32, 3\) \(16, 16, 3\)"], id="tensorflow"),
        pytest.param(PYTHON, [r"\S+ \S+ .* \d+", r"\(16, 16, 3\) \(32, 32, 3\)"], id="python"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_reader_prints_every_example_of_the_split(
    reader: str,
    printed: list[str],
    photo_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet").symlink_to(photo_dataset)
    monkeypatch.chdir(tmp_path)
    exec(compile(reader, str(DOCUMENT), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    count = Manifest.load(str(photo_dataset)).num_examples("train")
    wanted = [line for line in printed for _ in range(count)]
    assert all(map(re.fullmatch, wanted, lines)), lines
    assert len(lines) == len(wanted)
    assert len(reader.splitlines()) <= 11


def names_in(section: str) -> list[str]:
    """The names in the first column of a section's table."""
    text = DOCUMENT.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return re.findall(r"`(\w+)`", " ".join(cells))


def test_the_document_has_every_name(photo_dataset: Path) -> None:
    manifest = Manifest.load(str(photo_dataset))
    assert set(names_in("dataset.json")) == manifest.to_json().keys()
    assert set(names_in("outcomes/")) == set(SCHEMA.names)
    shard = next(iter(manifest.shards))
    with (photo_dataset / "examples" / f"{shard}.tfrecord").open("rb") as file:
        features = decode_features(next(read_records(file))).keys()
    assert features - set(names_in("An example")) == set()
