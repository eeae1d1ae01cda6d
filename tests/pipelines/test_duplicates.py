from hypothesis import given
from hypothesis import strategies as st

from pipelines.duplicates import Copy, best_copies, mark_duplicates, settle
from pipelines.outcomes import Outcome, Row

SHARDS = ["test-00000-of-00001", "validation-00000-of-00001"]
SHARDS += [f"train-{n:05}-of-00002" for n in range(2)]
OK_ROW = st.builds(
    lambda image_id, url, sha256: Row(Outcome.OK, f"n{image_id}", f"http://{url}/", sha256=sha256),
    st.integers(0, 3),
    st.integers(0, 9),
    st.sampled_from("abc"),
)
BAD_ROW = st.builds(lambda n: Row(Outcome.CORRUPT, f"n{n}", "http://x/", sha256="a"), st.integers())
TABLES = st.fixed_dictionaries(
    {
        shard: st.lists(OK_ROW | BAD_ROW, max_size=6, unique_by=lambda r: (r.image_id, r.url))
        for shard in SHARDS
    }
)


def marked(tables: dict[str, list[Row]], order: list[str]) -> dict[str, list[Row]]:
    """What the graph does with the shards' tables, copies arriving in the given order."""
    copies: dict[str, list[Copy]] = {}
    for shard in order:
        for sha256, copy in best_copies(shard, tables[shard]):
            copies.setdefault(sha256, []).append(copy)
    settled: dict[str, list[tuple[str, Copy]]] = {shard: [] for shard in tables}
    for sha256, found in copies.items():
        for shard, kept in settle(sha256, found):
            settled[shard].append(kept)
    return {shard: mark_duplicates(shard, rows, settled[shard]) for shard, rows in tables.items()}


@given(TABLES, st.permutations(SHARDS))
def test_one_copy_of_a_content_is_kept_whatever_the_order(
    tables: dict[str, list[Row]], order: list[str]
) -> None:
    result = marked(tables, order)
    assert result == marked(tables, SHARDS)
    contents = {r.sha256 for rows in tables.values() for r in rows if r.outcome is Outcome.OK}
    for sha256 in contents:
        kept = [
            (shard, row)
            for shard in SHARDS
            for row in result[shard]
            if row.outcome is Outcome.OK and row.sha256 == sha256
        ]
        # A URL is in one shard only; here the same may be drawn for two of them.
        assert len({(row.image_id, row.url) for _, row in kept}) == 1


def row(image_id: str, sha256: str = "a") -> Row:
    return Row(Outcome.OK, image_id, "http://u/", sha256=sha256)


def test_test_comes_before_validation_before_train_then_the_least_id() -> None:
    train, other, validation, test = SHARDS[2], SHARDS[3], SHARDS[1], SHARDS[0]
    tables = {train: [row("n1")], validation: [row("n3"), row("n2")], test: [row("n9")], other: []}
    result = marked(tables, SHARDS)
    assert [r.outcome for r in result[test]] == [Outcome.OK]
    assert {r.duplicate_of for r in result[train] + result[validation]} == {"n9 http://u/"}
    del tables[test][0]
    result = marked(tables, SHARDS)
    assert [r.outcome for r in result[validation]] == [Outcome.DUPLICATE_IMAGE, Outcome.OK]
    tables[validation].clear()
    tables[other] = [row("n0")]
    result = marked(tables, SHARDS)
    assert [r.outcome for r in result[train] + result[other]] == ["duplicate_image", "ok"]


def test_other_outcomes_and_contents_are_left_alone() -> None:
    rows = [row("n1"), row("n2", "b"), Row(Outcome.TOO_SMALL, "n0", "http://u/", sha256="a")]
    assert mark_duplicates(SHARDS[0], rows, []) == rows
    assert dict(best_copies(SHARDS[0], rows)).keys() == {"a", "b"}


def test_a_content_of_one_shard_crosses_no_further() -> None:
    copy = Copy(2, "n1", "http://u/", SHARDS[2])
    assert list(settle("a", [copy])) == []
