"""The readers in docs/dataset.md run as they stand there."""

import re
from pathlib import Path

import pytest

from pipelines.manifest import Manifest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "dataset.md"
READERS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.parametrize("reader", READERS, ids=["tensorflow", "python"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_reader_prints_every_example_of_the_split(
    reader: str,
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
    assert len(lines) == Manifest.load(str(photo_dataset)).num_examples("train")
    assert all(re.fullmatch(r"\S+ \(32, 32.*\) \(16, 16.*\)", line) for line in lines)
    assert len(reader.splitlines()) <= 11


def test_what_the_document_says_of_the_manifest_is_so(photo_dataset: Path) -> None:
    keys = Manifest.load(str(photo_dataset)).to_json().keys()
    table = DOCUMENT.read_text().partition("## dataset.json")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == keys
