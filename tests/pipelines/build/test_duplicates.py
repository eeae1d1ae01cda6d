import random
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.build import duplicates
from pipelines.build.duplicates import (
    PLACEHOLDER_FAMILIES,
    Verdict,
    best_copies,
    in_parts,
    mark_duplicates,
    settle,
)
from pipelines.dataset.attempt_table import Fetched
from pipelines.dataset.outcome import Outcome, Row
from pipelines.pictures.perceptual_hash import MAX_DISTANCE, bands

TEST, VALIDATION = "test-00000-of-00001", "validation-00000-of-00001"
TRAIN, OTHER = "train-00000-of-00002", "train-00001-of-00002"
SHARDS = [TEST, VALIDATION, TRAIN, OTHER]
Tables = dict[str, list[Fetched]]


def marked(tables: Tables, seed: int = 0) -> dict[str, list[Row]]:
    """What the graph makes of the shards' tables, rows arriving in an order of the seed."""
    shuffled = random.Random(seed).shuffle
    parts: dict[int, list[bytes]] = {}
    for shard, fetched in tables.items():
        for part, copies in in_parts(best_copies(shard, fetched)):
            parts.setdefault(part, []).append(copies)
    verdicts: list[tuple[str, Verdict]] = []
    for part, batches in parts.items():
        shuffled(batches)
        verdicts += settle(part, batches)
    shuffled(verdicts)
    return {
        shard: mark_duplicates(shard, fetched, [v for to, v in verdicts if to == shard])
        for shard, fetched in tables.items()
    }


def line(
    image_id: str,
    sha256: str,
    phash: bytes | None = None,
    *,
    url: str = "http://a.com/",
    outcome: Outcome = Outcome.OK,
) -> Fetched:
    return Fetched(Row(outcome, image_id, url, sha256=sha256), phash=phash)


def hash_with(*flips: int) -> bytes:
    """A hash that differs in these bits from that of no flips."""
    bits = int.from_bytes(b"\xa5" * 32, "big")
    for flip in flips:
        bits ^= 1 << (255 - flip)
    return bits.to_bytes(32, "big")


def every(result: dict[str, list[Row]]) -> list[Row]:
    return list(chain.from_iterable(result.values()))


def duplicates_of(rows: list[Row]) -> dict[str | None, str | None]:
    return {row.image_id: row.duplicate_of for row in rows}


# Few bits flip, but often, so that most drawn pictures are near one another and some just not.
FLIPS = st.sets(st.sampled_from([0, 1, 23, 24, 45, 46, *range(64, 64 + 2 * MAX_DISTANCE)]))
CONTENTS = st.lists(st.none() | FLIPS.map(lambda flips: hash_with(*flips)), min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    contents = draw(CONTENTS)
    found: Tables = {shard: [] for shard in SHARDS}
    for number in range(draw(st.integers(0, 12))):
        content = draw(st.integers(0, len(contents) - 1))
        outcome = draw(st.sampled_from([*[Outcome.OK] * 4, Outcome.TOO_SMALL]))
        of_it = line(f"n{number}", f"{content:064}", contents[content], outcome=outcome)
        found[draw(st.sampled_from(SHARDS))].append(of_it)
    return found


def near(one: Fetched, other: Fetched) -> bool:
    """Whether two pictures are one, by definition."""
    if one.row.sha256 == other.row.sha256:
        return True
    if one.phash is None or other.phash is None:
        return False
    distance = int.from_bytes(one.phash, "big") ^ int.from_bytes(other.phash, "big")
    shared = set(bands(one.phash)) & set(bands(other.phash))
    return bool(shared) and distance.bit_count() <= MAX_DISTANCE


@given(tables(), st.integers())
def test_a_picture_is_dropped_if_a_better_one_is_near_in_whatever_order(
    found: Tables, seed: int
) -> None:
    result = marked(found, seed)
    assert result == marked(found)
    good = [
        (SHARDS.index(shard) if shard != OTHER else 2, one.row.image_id, one)
        for shard, fetched in found.items()
        for one in fetched
        if one.row.outcome is Outcome.OK
    ]
    rows = {row.image_id: row for rows in result.values() for row in rows}
    for place in good:
        dropped = any(near(place[2], better[2]) for better in good if better[:2] < place[:2])
        row = rows[place[1]]
        assert (row.outcome is Outcome.DUPLICATE_IMAGE) == dropped
        while row.duplicate_of:  # the names lead to a picture that is kept
            row = rows[row.duplicate_of.partition(" ")[0]]
        assert row.outcome is Outcome.OK
    assert [row.outcome for row in rows.values()].count(Outcome.TOO_SMALL) == sum(
        one.row.outcome is Outcome.TOO_SMALL for fetched in found.values() for one in fetched
    )


def test_test_comes_before_validation_before_train_then_the_least_id() -> None:
    found: Tables = {
        TRAIN: [line("n1", "a")],
        VALIDATION: [line("n3", "a"), line("n2", "a")],
        TEST: [line("n9", "a")],
        OTHER: [],
    }
    result = marked(found)
    assert [r.outcome for r in result[TEST]] == [Outcome.OK]
    assert {r.duplicate_of for r in result[TRAIN] + result[VALIDATION]} == {"n9 http://a.com/"}
    found[TEST].clear()
    result = marked(found)
    assert [r.outcome for r in result[VALIDATION]] == [Outcome.DUPLICATE_IMAGE, Outcome.OK]
    found[VALIDATION].clear()
    found[OTHER] = [line("n0", "a")]
    result = marked(found)
    assert [r.outcome for r in result[TRAIN] + result[OTHER]] == ["duplicate_image", "ok"]


def test_a_near_one_is_dropped_and_names_the_best_that_is_near() -> None:
    found: Tables = {
        TEST: [line("n5", "a", hash_with(1, 70))],
        TRAIN: [line("n1", "b", hash_with()), line("n2", "c", hash_with(*range(64, 80)))],
    }
    assert duplicates_of(every(marked(found))) == {
        "n5": None,
        "n1": "n5 http://a.com/",
        "n2": "n5 http://a.com/",
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_bands_is_named(seed: int) -> None:
    # n4 shares one band with n2, another with n3, which share none; n5 has the content of n4.
    found: Tables = {
        TRAIN: [line("n2", "a", hash_with(0, 46)), line("n3", "b", hash_with(1, 23))],
        OTHER: [line("n4", "c", hash_with()), line("n5", "c", hash_with())],
    }
    assert duplicates_of(every(marked(found, seed))) == {
        "n2": None,
        "n3": None,
        "n4": "n2 http://a.com/",
        "n5": "n2 http://a.com/",
    }


def test_further_than_the_limit_is_another_picture() -> None:
    first, last = (
        {TRAIN: [line("n1", "a", hash_with()), line("n2", "b", hash_with(*range(64, 64 + bits)))]}
        for bits in (MAX_DISTANCE, MAX_DISTANCE + 1)
    )
    assert duplicates_of(marked(first)[TRAIN]) == {"n1": None, "n2": "n1 http://a.com/"}
    assert duplicates_of(marked(last)[TRAIN]) == {"n1": None, "n2": None}


def test_one_near_a_dropped_one_is_dropped() -> None:
    found = [line(f"n{n}", f"{n}", hash_with(*range(64, 64 + n * MAX_DISTANCE))) for n in range(3)]
    assert duplicates_of(marked({TRAIN: found})[TRAIN]) == {
        "n0": None,
        "n1": "n0 http://a.com/",
        "n2": "n1 http://a.com/",
    }


def test_flat_pictures_match_by_content_alone() -> None:
    found: Tables = {TRAIN: [line("n1", "a"), line("n2", "b")], OTHER: [line("n3", "b")]}
    assert duplicates_of(every(marked(found))) == {
        "n1": None,
        "n2": None,
        "n3": "n2 http://a.com/",
    }


def test_a_content_is_four_rows_a_shard_however_often_the_list_has_it() -> None:
    fetched = [line(f"n{n}", "a", url=f"http://{n}.com/") for n in range(1000)]
    (copy,) = best_copies(TRAIN, fetched)
    assert len(copy.families) == PLACEHOLDER_FAMILIES
    assert len(copy.keys) == 1
    keys = copy._replace(phash=hash_with()).keys
    assert len(set(keys)) == 4


@pytest.mark.parametrize("spread", [1, 3])
def test_one_content_of_many_unrelated_hosts_is_a_placeholder(spread: int) -> None:
    def found(families: int) -> Tables:
        """Each shard has the content from some hosts, of each family twice."""
        result: Tables = {shard: [] for shard in SHARDS}
        for number in range(2 * families):
            url = f"http://www{number}.site{number // 2}.com/"
            fetched = line(f"n{number}", "a", hash_with(), url=url)
            result[SHARDS[number // 2 % spread]].append(fetched)
        result[OTHER].append(line("n99", "b", hash_with(3)))
        return result

    rows = every(marked(found(PLACEHOLDER_FAMILIES)))
    assert {row.outcome for row in rows[:-1]} == {Outcome.PLACEHOLDER}
    assert {row.detail for row in rows[:-1]} == {
        "the same bytes from " + ", ".join(f"site{n}.com" for n in range(PLACEHOLDER_FAMILIES))
    }
    # It is no picture that another could be a copy of.
    assert rows[-1].outcome is Outcome.OK
    rows = every(marked(found(PLACEHOLDER_FAMILIES - 1)))
    assert [row.outcome for row in rows].count(Outcome.OK) == 1


def test_pictures_of_a_folder_have_no_hosts() -> None:
    fetched = [line(f"n{n}", "a", url=f"dogs/{n}.jpg") for n in range(3 * PLACEHOLDER_FAMILIES)]
    assert best_copies(TRAIN, fetched)[0].families == ("",)
    assert [row.outcome for row in marked({TRAIN: fetched})[TRAIN]].count(Outcome.OK) == 1


def test_a_large_bucket_is_compared_by_whole_hashes_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # All share a band; the first two share all of the hash, the third is near them.
    hashes = [hash_with(), hash_with(), hash_with(70), hash_with(*range(64, 96))]
    found = {TRAIN: [line(f"n{n}", f"{n}", phash) for n, phash in enumerate(hashes)]}
    assert [row.outcome for row in marked(found)[TRAIN]] == ["ok", *["duplicate_image"] * 2, "ok"]
    monkeypatch.setattr(duplicates, "LARGE_BUCKET", 2)
    assert [row.outcome for row in marked(found)[TRAIN]] == ["ok", "duplicate_image", "ok", "ok"]
    assert "has over 2 looks: not compared" in caplog.text


def test_an_attempt_made_twice_drops_nothing() -> None:
    (copy,) = best_copies(TRAIN, [line("n1", "a", hash_with())])
    for part, copies in in_parts([copy, copy._replace(families=("b.com",))]):
        assert list(settle(part, [copies])) == []


def test_what_only_another_attempt_fetched_changes_nothing() -> None:
    (better,) = best_copies(TEST, [line("n0", "b")])
    (row,) = mark_duplicates(TRAIN, [line("n1", "a")], [("b", better)])
    assert row.outcome is Outcome.OK
