import pytest

from pipelines.cli import UsageError
from trainer import files


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    path = files.join(str(tmp_path), "a")
    for data in (b"one", b""):
        files.write(path, data)
        assert files.read(path) == data
    assert files.names(str(tmp_path)) == ["a"]


def test_what_cannot_be_written_or_read_is_an_os_error(tmp_path):
    for attempt in (lambda path: files.write(path, b""), files.read):
        with pytest.raises(OSError, match="absent"):
            attempt(str(tmp_path / "absent/a"))


def test_folders(tmp_path):
    folder = str(tmp_path / "one/two")
    assert files.names(folder) == []
    files.make_folder(folder)
    files.make_folder(folder)
    files.write(files.join(folder, "a"), b"a")
    files.rename(folder, str(tmp_path / "three"))
    assert files.names(str(tmp_path)) == ["one", "three"]
    for _ in range(2):
        files.remove(str(tmp_path / "three"))
    assert files.names(str(tmp_path)) == ["one"]


@pytest.mark.parametrize("path", ["gs://bucket/a", "http://host/a", "hdfs://host/a"])
def test_other_schemes_are_refused(path):
    with pytest.raises(UsageError, match="local folders and s3://"):
        files.check(path)


def test_s3_without_tensorflow_io_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_io", None)
    with pytest.raises(UsageError, match="s3:// needs tensorflow-io, which works with TensorFlow"):
        files.check("s3://bucket/run")
