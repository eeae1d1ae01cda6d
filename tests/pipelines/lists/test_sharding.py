from collections import Counter
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.cli import UsageError
from pipelines.dataset.options import DatasetOptions
from pipelines.lists import sharding
from pipelines.lists.sharding import Points, Sharding, select, shard_names, survey
from pipelines.lists.url_list import parse_line

THREE = {"train": 0.6, "validation": 0.2, "test": 0.2}
LINES = [
    *(f"n01440764_{n}\thttp://farm{n % 4}.static.flickr.com/{n}.jpg".encode() for n in range(600)),
    *(f"n01530575_{n}\thttp://www.site{n % 300}.org/{n}.jpg".encode() for n in range(600)),
    b"not a line",
    b"n01530575_9999\tftp://www.site1.org/1.jpg",
]


def test_survey_counts_what_the_plan_needs() -> None:
    found = survey(LINES, parse_line, count_duplicates=True)
    assert (found.lines, found.rejected) == (1202, {"malformed_line": 1, "unsupported_url": 1})
    assert found.families["flickr.com"] == 600
    assert found.families["site7.org"] == 2
    assert found.large_families[0] == "flickr.com"
    assert [*found.families][:2] == ["flickr.com", "site0.org"]
    assert "" not in found.families
    assert found.busiest == ("flickr.com", 600)
    assert found.duplicates == 0
    assert survey([*LINES, LINES[0]], parse_line, count_duplicates=True).duplicates == 1
    assert survey(reversed(LINES), parse_line).sha256 != found.sha256


def test_a_line_with_a_newline_in_it_is_one() -> None:
    odd = [*LINES[:3], b"n1\n_1\thttp://a.com/x", b"n1_1\thttp://b.com/x\n", *LINES[3:]]
    found = survey(odd, parse_line)
    assert (found.lines, found.families["b.com"]) == (1204, 1)
    assert found.rejected == {"malformed_line": 2, "unsupported_url": 1}


def test_a_large_family_is_spread_and_a_small_one_stays_together() -> None:
    dealt = Sharding(DatasetOptions(), ["flickr.com"], len(LINES), parse_line)
    shards: dict[str, set[str]] = {}
    for line in LINES[:1200]:
        host = parse_line(line).host
        shards.setdefault(host, set()).add(dealt.shard_of(line))
    assert len(shards["farm1.static.flickr.com"]) > 10
    assert all(len(found) == 1 for host, found in shards.items() if host.startswith("www.site"))
    small = {shard for host, found in shards.items() if "site" in host for shard in found}
    assert len(small) > 10


def test_the_same_url_meets_in_one_shard_however_it_is_written() -> None:
    dealt = Sharding(DatasetOptions(), ["flickr.com"], len(LINES), parse_line)
    spellings = [b"http://www.flickr.com/a/../b c", b"http:\\\\WWW.flickr.com/b%20c#x"]
    assert len({dealt.shard_of(b"n1_1\t" + url) for url in spellings}) == 1


def test_the_seed_moves_lines_and_nothing_else_does() -> None:
    def shards(**options: int) -> list[str]:
        dealt = Sharding(DatasetOptions(**options), [], len(LINES), parse_line)  # type: ignore[arg-type]
        return [dealt.shard_of(line) for line in LINES]

    assert shards() == shards(crop_size=96)
    assert shards() != shards(seed=1)
    assert shards(seed=-1) != shards(seed=1)


def test_all_lines_at_once_get_the_shards_that_each_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_BLOCK", 500)
    options = DatasetOptions(splits=THREE, seed=3)
    with closing(Points(options.seed)) as points:
        found = survey(LINES, parse_line, points=points)
        sharding_ = Sharding(options, ["flickr.com"], found.lines, parse_line)
        dealt: dict[str, list[bytes]] = {}
        for shard, lines in sharding_.deal(LINES, points):
            dealt.setdefault(shard, []).extend(lines)
    alone: dict[str, list[bytes]] = {}
    for line in LINES:
        alone.setdefault(sharding_.shard_of(line), []).append(line)
    assert dealt == alone


@pytest.mark.parametrize("lines", [LINES[:-1], [*LINES, LINES[0]]])
def test_a_list_that_changes_between_the_passes_is_refused(lines: list[bytes]) -> None:
    options = DatasetOptions()
    with closing(Points(options.seed)) as points:
        survey(LINES, parse_line, points=points)
        with pytest.raises(UsageError, match="changed"):
            list(Sharding(options, [], len(LINES), parse_line).deal(lines, points))


def test_splits_get_their_part_of_the_lines() -> None:
    options = DatasetOptions(splits=THREE)
    lines = [f"n1_{n}\thttp://h{n}.org/".encode() for n in range(6000)]
    dealt = Sharding(options, [], len(lines), parse_line)
    counts = Counter(dealt.shard_of(line).partition("-")[0] for line in lines)
    for split, part in THREE.items():
        assert abs(counts[split] / len(lines) - part) < 0.03


@given(st.binary(max_size=60), st.integers(1, 40))
def test_every_line_has_a_shard_that_exists(line: bytes, shards: int) -> None:
    options = DatasetOptions(num_shards=shards, splits=THREE)
    names = {name for names in shard_names(options, 1).values() for name in names}
    assert Sharding(options, [], 1, parse_line).shard_of(line) in names


def test_number_of_shards() -> None:
    assert {s: len(n) for s, n in shard_names(DatasetOptions(), 10).items()} == {
        "train": 16,
        "validation": 1,
        "test": 1,
    }
    assert len(shard_names(DatasetOptions(), 14_197_122)["train"]) == 2840
    assert len(shard_names(DatasetOptions(num_shards=1000), 10)["test"]) == 10
    only_test = DatasetOptions(splits={"train": 0.0, "validation": 0.0, "test": 1.0})
    names = shard_names(only_test, 10)
    assert (len(names["train"]), names["test"][0]) == (0, "test-00000-of-00016")


def test_wnids_and_limit_select_lines() -> None:
    assert len(list(select(LINES, DatasetOptions(wnids=("n01530575",))))) == 601
    assert list(select(LINES, DatasetOptions(limit=3))) == LINES[:3]
    limited = DatasetOptions(wnids=("n01530575",), limit=2)
    assert list(select(LINES, limited)) == LINES[600:602]
    longer = [b"n015305750_1\thttp://a.com/", b"n01530575/x\tn01530575/x.jpg"]
    assert list(select(longer, limited)) == longer[1:]
