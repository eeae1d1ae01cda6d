import pytest
import tensorflow as tf

from pipelines.command.cli import UsageError, WorkError
from trainer import files


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    path = str(tmp_path / "file/a")
    for attempt in (lambda: files.write(path, b""), lambda: files.make_folder(path)):
        with pytest.raises(WorkError, match=r"file/a cannot be written: "):
            attempt()


def test_what_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="absent"):
        files.read(str(tmp_path / "absent/a"))


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
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["file", "gs"])
    with pytest.raises(UsageError, match="s3:// needs tensorflow-io, which works with TensorFlow"):
        files.check("s3://bucket/run")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no such op", "no such op"),
        (": curlCode: 7, Couldn't connect", "curlCode: 7, Couldn't connect"),
        (
            "Graph execution error:\n\nDetected at node DatasetToSingleElement defined at (most "
            "recent call last):\n<stack traces unavailable>\ncorrupted record at 9315\n"
            "\t [[{{node DatasetToSingleElement}}]]\n\t [[RemoteCall]] [Op:__inference_steps_1]",
            "corrupted record at 9315",
        ),
        (
            'Detected at node conv2d defined at (most recent call last):\n  File "a.py", '
            "line 3, in f\n\nNode: 'conv2d'\n2 root error(s) found.\n  "
            "(0) RESOURCE_EXHAUSTED:  OOM when allocating tensor with shape[9,9]\n\t "
            "[[{{node conv2d}}]]\n  (1) CANCELLED: no",
            "OOM when allocating tensor with shape[9,9]",
        ),
        ("", "OpError"),
    ],
)
def test_the_reason_in_tensorflows_errors(message, said):
    assert files.reason(tf.errors.OpError(None, None, message, 0)) == said


def store_says(monkeypatch, error=None, exists=()):
    """A store whose bucket gives an error or none, and what it answers one after the other."""
    answers = iter(exists)

    def stat(path):
        assert path == "s3://bucket/"
        if error:
            raise error

    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["s3"])
    monkeypatch.setattr(tf.io.gfile, "stat", stat)
    monkeypatch.setattr(tf.io.gfile, "exists", lambda path: next(answers))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (tf.errors.NotFoundError, "there is no bucket 'bucket'"),
        (tf.errors.PermissionDeniedError, "permission denied; are the credentials right"),
        (tf.errors.UnknownError, "curlCode: 7, Couldn't connect to server"),
    ],
)
def test_a_store_that_refuses_is_an_error_and_no_absent_file(monkeypatch, error, said):
    refusal = error(None, None, ": curlCode: 7, Couldn't connect to server")
    store_says(monkeypatch, refusal, exists=[False, False])
    with pytest.raises(UsageError, match=f"^s3://bucket/run cannot be reached: {said}"):
        files.check("s3://bucket/run")
    with pytest.raises(WorkError, match=said):
        files.exists("s3://bucket/run")


@pytest.mark.parametrize(
    ("answers", "there"), [([True], True), ([False, True], True), ([False, False], False)]
)
def test_a_file_is_absent_only_where_the_store_answers(monkeypatch, answers, there):
    store_says(monkeypatch, exists=answers)
    files.check("s3://bucket/run")
    assert files.exists("s3://bucket/run") is there
