from pathlib import Path

import pytest

from evaluation.memory import Memory, Score
from pipelines.command.cli import UsageError
from trainer import files

SCORES = {3: Score("a.png", 1 / 3, 0.1, 0.2), 4: Score("b.png", float("inf"), 1.0)}


def remember(path, *batches):
    with Memory(path) as memory:
        for what, scores in batches:
            memory.add(what, scores)


def recall(path, what):
    with Memory(path) as memory:
        return memory.recall(what)


def test_scores_are_recalled_digit_for_digit(tmp_path):
    path = str(tmp_path / "unfinished")
    remember(path, ("x2 vdsr", SCORES))
    remember(path, ("x2 vdsr", {5: SCORES[3]}), ("x3 vdsr", {3: SCORES[4]}))
    assert recall(path, "x2 vdsr") == {**SCORES, 5: SCORES[3]}
    assert recall(path, "x3 vdsr") == {3: SCORES[4]}
    assert recall(path, "x4 vdsr") == {}


@pytest.mark.parametrize("rest", [b"", b'["x2", [[1, "a', b'\n[1]\nnull\n["x2", [[1]]]\n\xff\n'])
def test_a_line_broken_off_costs_no_other(tmp_path, rest):
    path = tmp_path / "unfinished"
    remember(str(path), ("x2", SCORES))
    path.write_bytes(path.read_bytes() + rest)
    remember(str(path), ("x2", {5: SCORES[3]}))
    assert recall(str(path), "x2") == {**SCORES, 5: SCORES[3]}


def test_nothing_is_left_where_nothing_was_scored_or_all_is_kept(tmp_path):
    path = tmp_path / "unfinished"
    remember(str(path))
    assert not path.exists()
    with Memory(str(path)) as memory:
        memory.add("x2", SCORES)
        memory.forget()
    assert not path.exists()


def test_only_one_process_has_it(tmp_path):
    path = str(tmp_path / "unfinished")
    with Memory(path), pytest.raises(UsageError, match="another process does the same"):
        Memory(path)
    recall(path, "x2")


def test_where_it_cannot_be_written_the_work_goes_on(tmp_path, caplog):
    remember(str(tmp_path / "nowhere" / "unfinished"), ("x2", SCORES))
    assert "an interruption would lose what is scored" in caplog.text
    assert not list(tmp_path.iterdir())


def test_on_a_store_it_is_an_object(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_local", lambda path: False)
    monkeypatch.setattr(files, "exists", lambda path: Path(path).exists())
    monkeypatch.setattr(files, "read", lambda path: (tmp_path / path).read_bytes())
    monkeypatch.setattr(files, "write", lambda path, data: (tmp_path / path).write_bytes(data))
    path = str(tmp_path / "unfinished")
    remember(path)
    assert not Path(path).exists()
    remember(path, ("x2", SCORES))
    remember(path, ("x2", {5: SCORES[3]}))
    assert recall(path, "x2") == {**SCORES, 5: SCORES[3]}
