import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.command import files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for data in (b"old", b"new"):
        files.write_whole(str(path), data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_file_gets_its_name(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"data")
    files.publish(made, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").read_bytes() == b"data"
    assert not made.exists()
