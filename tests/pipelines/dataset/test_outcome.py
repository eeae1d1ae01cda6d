import pickle
from pathlib import Path

from pipelines.dataset.outcome import Outcome, Row, describe_totals


def test_every_outcome_is_one_word_with_one_sentence() -> None:
    for outcome in Outcome:
        assert outcome.value == outcome.name.lower()
        assert outcome.sentence.endswith(".")
        assert Outcome(outcome.value) is pickle.loads(pickle.dumps(outcome)) is outcome


def test_the_documents_table_has_every_outcome() -> None:
    document = Path(__file__).parents[3] / "docs" / "dataset.md"
    rows = [f"| `{o}` | {o.of.name.lower()} | {o.sentence} |\n" for o in Outcome]
    assert "| outcome | of the | what |\n|---|---|---|\n" + "".join(rows) in document.read_text()


def test_totals_are_told_the_most_frequent_first() -> None:
    totals = {"b": 1, "ok": 1_200, "a": 1}
    assert describe_totals(totals) == "ok 1,200, a 1, b 1"
    assert describe_totals({}) == "no lines"


def test_a_duplicate_keeps_what_is_known_of_it() -> None:
    row = Row(Outcome.OK, "n1", "http://a/", sha256="aa", width=3)
    marked = row.as_duplicate_image(of="n0 http://b/")
    assert (marked.outcome, marked.duplicate_of) == ("duplicate_image", "n0 http://b/")
    assert (marked.image_id, marked.sha256, marked.width) == ("n1", "aa", 3)
