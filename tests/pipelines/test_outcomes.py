import ast
import inspect

from pipelines import outcomes
from pipelines.outcomes import Outcome, Row, describe_totals


def test_every_outcome_is_one_word_with_one_sentence() -> None:
    tree = ast.parse(inspect.getsource(outcomes.Outcome)).body[0]
    assert isinstance(tree, ast.ClassDef)
    documented = {
        ast.unparse(name.targets[0]): text.value.value  # type: ignore[attr-defined]
        for name, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(name, ast.Assign) and isinstance(text, ast.Expr)
    }
    assert documented.keys() == {outcome.name for outcome in Outcome}
    for outcome in Outcome:
        assert outcome.value == outcome.name.lower()
        assert documented[outcome.name].endswith(".")


def test_totals_are_told_the_most_frequent_first() -> None:
    totals = {"b": 1, "ok": 1_200, "a": 1}
    assert describe_totals(totals) == "ok 1,200, a 1, b 1"
    assert describe_totals({}) == "no lines"


def test_a_duplicate_keeps_what_is_known_of_it() -> None:
    row = Row(Outcome.OK, "n1", "http://a/", sha256="aa", width=3)
    marked = row.as_duplicate_image(of="n0 http://b/")
    assert (marked.outcome, marked.duplicate_of) == ("duplicate_image", "n0 http://b/")
    assert (marked.image_id, marked.sha256, marked.width) == ("n1", "aa", 3)
