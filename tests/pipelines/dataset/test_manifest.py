import json
from pathlib import Path

import pytest

from pipelines.command.cli import UsageError
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from pipelines.dataset.options import DatasetOptions

MANIFEST = Manifest(
    DatasetOptions(crop_size=96),
    {"sha256": "ab", "lines": 12, "rejected": {}},
    {
        "train-00001-of-00016": Shard(3, "aa", 300),
        "train-00000-of-00016": Shard(2, "bb", 200),
        "test-00000-of-00001": Shard(1, "cc", 100),
    },
    {"ok": 6, "http_client_error": 6},
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(MANIFEST.to_json()))
    return tmp_path


def test_a_manifest_is_read_back(directory: Path) -> None:
    assert Manifest.load(str(directory)) == MANIFEST


def test_what_the_contract_promises_is_in_the_file() -> None:
    values = MANIFEST.to_json()
    assert values["options"]["crop_size"] == 96
    assert values["splits"]["train"] == {
        "examples": 5,
        "shards": {
            "train-00000-of-00016": {"examples": 2, "bytes": 200, "sha256": "bb"},
            "train-00001-of-00016": {"examples": 3, "bytes": 300, "sha256": "aa"},
        },
    }
    assert values["splits"]["validation"] == {"examples": 0, "shards": {}}
    assert values["outcomes"] == {"ok": 6, "http_client_error": 6}
    decide_bytes = {"pillow", "simplejpeg", "fpng", "can_ada", "publicsuffixlist", "apache-beam"}
    assert values["versions"].keys() == {"imagenet-superres", *decide_bytes}


def test_shard_paths_are_in_order(directory: Path) -> None:
    assert MANIFEST.shard_paths(str(directory), "train") == [
        f"{directory}/examples/train-0000{n}-of-00016.tfrecord" for n in (0, 1)
    ]
    assert MANIFEST.num_examples("train") == 5


def test_an_empty_split_is_refused_with_what_to_do(directory: Path) -> None:
    with pytest.raises(UsageError, match=r"validation split of .* --splits train=0.8"):
        MANIFEST.shard_paths(str(directory), "validation")


def test_a_folder_without_dataset_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a finished dataset.*python -m pipelines"):
        Manifest.load(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", "\xff"),
        json.dumps(MANIFEST.to_json() | {"splits": {"train": {}}}),
        *(json.dumps(MANIFEST.to_json() | {"outcomes": {"ok": n}}) for n in (-1, "6", None, 1.5)),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text, "latin-1")
    with pytest.raises(UsageError, match="is not a dataset's description"):
        Manifest.load(str(tmp_path))


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(MANIFEST.to_json() | {"format": 99}))
    with pytest.raises(UsageError, match="has format 99, this reads"):
        Manifest.load(str(tmp_path))
