import asyncio
import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.build.dry_run import describe
from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.stored import Stored, StoredBody
from pipelines.crawl.writer import ShardWriter
from pipelines.dataset.attempt_table import read_table
from pipelines.dataset.examples import Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import RETRYABLE, Outcome, Row
from pipelines.dataset.tfrecord import Span, frame_record
from pipelines.lists.list_file import Source
from pipelines.lists.originals import Originals, parse_original_line
from pipelines.lists.plan import load, prepare
from pipelines.lists.sharding import Sharding
from pipelines.lists.url_list import Entry, Parser, Rejected, parse_line, parse_path_line
from pipelines.pictures.decoder import Decoded

OPTIONS = DatasetOptions(num_shards=2)
LINES = [
    *(f"n01440764_{n}\thttp://h{n}.org/{n}.jpg" for n in range(12)),
    "n09999999_1\thttp://h3.org/3.jpg",
    "no line",
    "n01440764_99\tftp://a.org/",
]
PICTURES = {f"http://h{n}.org/{n}.jpg": bytes([n]) * (100 + n) for n in range(8)}


def earlier_build(home: Path, lines: list[str] = LINES) -> DatasetFolder:
    """Fetched whole: URLs 0 to 7 are pictures, 8 and 9 timed out, 10 and 11 are gone."""
    home.mkdir()
    (home / "list.txt").write_text("\n".join(lines))
    folder = DatasetFolder(str(home / "set"))
    source = Source(str(home / "list.txt"))
    for shard in prepare(folder, OPTIONS, source).shards:
        attempt = folder.new_attempt(shard)
        with folder.spool() as directory, closing(ShardWriter(directory, attempt)) as writer:
            kept: dict[str, Entry] = {}
            for line in Path(folder.plan(shard)).read_bytes().split(b"\n")[:-1]:
                try:
                    entry = parse_line(line)
                except Rejected as reason:
                    writer.add(reason.row)
                    continue
                number = int(entry.url[8 : entry.url.index(".")])
                first = kept.setdefault(entry.url, entry)
                if first is not entry:
                    name = f"{first.image_id} {first.url}"
                    row = Row(Outcome.DUPLICATE_URL, entry.image_id, entry.url, duplicate_of=name)
                    writer.add(row)
                elif data := PICTURES.get(entry.url):
                    body = Body(io.BytesIO(data), len(data), f"{number:064}")
                    picture = writer.store(entry, body)
                    writer.add_picture(entry, body, picture, Decoded(Outcome.CORRUPT))
                elif number < 10:
                    writer.add(Row(Outcome.TIMED_OUT, entry.image_id, entry.url))
                else:
                    detail = "gone\tfor\never é"
                    row = Row(Outcome.HTTP_CLIENT_ERROR, entry.image_id, entry.url)
                    writer.add(Row(**vars(row) | {"http_status": 404, "detail": detail}))
            writer.publish()
    folder.clean_up()
    return folder


@pytest.fixture
def earlier(tmp_path: Path) -> DatasetFolder:
    return earlier_build(tmp_path / "earlier")


def finished(folder: DatasetFolder) -> DatasetFolder:
    """With what in_place asks of a dataset.json."""
    counts = dict.fromkeys(("timed_out", "http_client_error"), 2)
    values = {"format": 1, "options": OPTIONS.to_json(), "source": {}, "splits": {}}
    folder.publish_json(folder.manifest, {**values, "outcomes": counts})
    return folder


def entries(lines: list[bytes]) -> dict[str, Entry]:
    found = {}
    for line in lines:
        try:
            entry = parse_original_line(line, parse_line)
        except Rejected:
            continue
        found[entry.image_id] = entry
    return found


def answer_at(location: str, folder: DatasetFolder, max_bytes: int = 100) -> Body | Failure:
    """What a build in a folder gets from there."""

    def web(entry: Entry) -> Any:
        pytest.fail(f"{entry} is asked for")

    async def fetch() -> Body | Failure:
        source = Stored(folder, max_bytes, 1, web)
        async with source.fetch(Entry("n1", "", "", "", location)) as answer:
            return answer

    return asyncio.run(fetch())


def test_lines_are_those_of_the_list_with_what_became_of_them(
    earlier: DatasetFolder, tmp_path: Path
) -> None:
    lines = list(Originals(earlier).lines())
    assert sorted(line.rpartition(b"\t")[0].decode() for line in lines) == sorted(LINES)
    new = DatasetFolder(str(tmp_path / "new"))
    found = entries(lines)
    for number in range(12):
        entry = found[f"n01440764_{number}"]
        answer = answer_at(entry.original, new, 10_000)
        if isinstance(answer, Body):
            assert answer.read() == PICTURES[entry.url]
            assert answer.sha256 == f"{number:064}"
        elif number < 10:
            assert answer == Failure(Outcome.TIMED_OUT)
        else:
            assert answer == Failure(Outcome.HTTP_CLIENT_ERROR, "gone\tfor\never é", 404)
    # Another selection may have the repeated line alone.
    assert found["n09999999_1"].original == found["n01440764_3"].original


def test_lines_to_retry_are_on_the_web(earlier: DatasetFolder) -> None:
    found = entries(list(Originals(earlier, retry=(Outcome.TIMED_OUT,)).lines()))
    web = {name for name, entry in found.items() if not entry.original}
    assert web == {"n01440764_8", "n01440764_9"}


@given(st.binary(max_size=40).filter(lambda line: b"\n" not in line), st.booleans())
def test_a_line_made_of_its_row_is_the_same_line(tail: bytes, plain: bool) -> None:
    line = b"n01440764_1\thttp://a.org/" + tail if plain else tail
    parse: Parser = parse_line
    try:
        entry = parse(line)
    except Rejected as reason:
        row = reason.row
    else:
        row = Row(Outcome.OK, entry.image_id, entry.url)
    again = f"{row.image_id}\t{row.url}".encode() if row.line is None else row.line
    located = again + b'\t{"file":"x"}'
    sharding = Sharding(OPTIONS, [], 1, parse)
    rebuilt = Sharding(OPTIONS, [], 1, partial(parse_original_line, parse=parse))
    assert sharding.shard_of(line) == rebuilt.shard_of(located)
    try:
        entry = parse(line)
    except Rejected as reason:
        with pytest.raises(Rejected) as caught:
            parse_original_line(located, parse)
        assert caught.value.row == reason.row
    else:
        assert parse_original_line(located, parse) == entry._replace(original='{"file":"x"}')


def test_the_line_of_a_folder_of_pictures_has_a_location_too() -> None:
    line = b'a/1\ta/1.png\t["corrupt",null,null]'
    entry = parse_original_line(line, parse_path_line)
    assert entry == Entry("a/1", "a/1.png", "a/1.png", "", '["corrupt",null,null]')


def stored(folder: DatasetFolder, name: str = "x.originals.tfrecord") -> tuple[str, bytes]:
    """A location, and the data that lies there."""
    record = frame_record(Original("n1", "http://a.org/", "ab", b"picture").to_bytes())
    folder.publish_bytes(folder.path("fetched", name), b"before" + record)
    where = {"file": name, "offset": 6, "num_bytes": len(record)}
    return json.dumps(where), record


def test_an_original_is_read_of_this_folder_or_another(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path / "set"))
    location, record = stored(folder)
    body = answer_at(location, folder)
    assert isinstance(body, StoredBody)
    assert (body.image_id, body.url, body.sha256) == ("n1", "http://a.org/", "ab")
    assert body.read() == b"picture"
    assert body.original == Span(6, len(record))
    elsewhere = location.replace("x.orig", f"{folder.root}/x.orig")
    answer = answer_at(elsewhere, DatasetFolder(str(tmp_path / "other")), 6)
    assert answer == Failure(Outcome.TOO_MANY_BYTES, "more than 6", http_status=200)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), r"is gone: .* was built with --originals none"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-3]),
            r"at byte 6 of .*tfrecord is broken",
        ),
        (lambda path: path.write_bytes(bytes(500)), r"at byte 6 of .*tfrecord is broken"),
    ],
)
def test_an_original_that_is_gone_or_broken_is_named(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    folder = DatasetFolder(str(tmp_path / "set"))
    location, _ = stored(folder)
    harm(Path(folder.path("fetched", "x.originals.tfrecord")))
    with pytest.raises(WorkError, match=message):
        answer_at(location, folder)


def test_an_original_stays_where_it_lies(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path / "set"))
    location, _ = stored(folder)
    body = answer_at(location, folder)
    assert isinstance(body, StoredBody)
    attempt = DatasetFolder(str(tmp_path / "new")).new_attempt("train-00000-of-00001")
    mine = Entry("n1", "http://a.org/", "http://a.org/", "a.org", location)
    other = mine._replace(image_id="n2")
    with attempt.folder.spool() as directory, closing(ShardWriter(directory, attempt)) as writer:
        for entry in (mine, other):
            picture = writer.store(entry, body)
            writer.add_picture(entry, body, picture, Decoded(Outcome.CORRUPT))
        writer.publish()
    with attempt.folder.open(attempt.table) as file:
        first, second = read_table(file)
    assert (first.original_file, first.original) == ("x.originals.tfrecord", body.original)
    # Its record names another line, and so it has one of its own.
    assert second.original_file is None
    assert second.original
    record = Path(attempt.originals).read_bytes()
    assert record == frame_record(Original("n2", "http://a.org/", "ab", b"picture").to_bytes())


def test_an_unfinished_build_is_no_source(tmp_path: Path, earlier: DatasetFolder) -> None:
    new = DatasetFolder(str(tmp_path / "new"))
    earlier.delete([earlier.attempts()[min(earlier.attempts())][0].table])
    with pytest.raises(UsageError, match="finish it first"):
        prepare(new, OPTIONS, Originals(earlier))
    with pytest.raises(UsageError, match=r"is no dataset folder: it has no build\.json"):
        prepare(new, OPTIONS, Originals(DatasetFolder(str(tmp_path))))
    assert not Path(new.root).exists()


def test_what_a_folder_was_rebuilt_from_is_remembered(
    tmp_path: Path, earlier: DatasetFolder
) -> None:
    new = DatasetFolder(str(tmp_path / "new"))
    plan = prepare(new, OPTIONS, Originals(earlier))
    assert plan.source == load(earlier).source
    assert prepare(new, OPTIONS, Originals(earlier)) == plan
    other = earlier_build(tmp_path / "other")
    retry = (Outcome.TIMED_OUT,)
    for source in (Originals(other), Originals(earlier, retry=retry), Originals(new, True, retry)):
        with pytest.raises(UsageError) as caught:
            prepare(new, OPTIONS, source)
        assert f"begun with --originals {earlier.root}" in str(caught.value)
    with pytest.raises(UsageError, match="not with a list or pictures: finish that first"):
        prepare(new, OPTIONS, Source(str(tmp_path / "earlier" / "list.txt")))
    with pytest.raises(UsageError, match=r"begun with a list or pictures.*not with --retry time"):
        prepare(earlier, OPTIONS, Originals(earlier, True, retry))


def test_a_limit_counts_in_the_order_of_the_shards(tmp_path: Path, earlier: DatasetFolder) -> None:
    options = DatasetOptions(num_shards=2, limit=4)
    new = DatasetFolder(str(tmp_path / "new"))
    shards = prepare(new, options, Originals(earlier)).shards
    found = b"".join(Path(new.plan(shard)).read_bytes() for shard in shards)
    assert sorted(found.splitlines()) == sorted(list(Originals(earlier).lines())[:4])


def snapshot(folder: DatasetFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder.path("fetched")).iterdir()}


def test_beginning_again_from_its_own_originals_can_be_cut_off_anywhere(
    tmp_path: Path, earlier: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = snapshot(finished(earlier))
    wanted: list[bytes] = []
    cuts = [0]  # the first is not cut off
    for cut in cuts:
        folder = DatasetFolder(str(tmp_path / f"cut-{cut}"))
        shutil.copytree(earlier.root, folder.root)
        source = Originals(folder, in_place=True, retry=(Outcome.TIMED_OUT,))
        changes = 0

        def change(function: Callable[..., None], *arguments: Any, **named: Any) -> None:
            nonlocal changes
            changes += 1
            if changes == cut:  # noqa: B023  called before the next turn
                raise KeyboardInterrupt
            function(*arguments, **named)

        with monkeypatch.context() as patched:
            for name in ("rename", "replace", "unlink"):
                patched.setattr(os, name, partial(change, getattr(os, name)))
            try:
                prepare(folder, OPTIONS, source)
            except KeyboardInterrupt:
                assert cut
            else:
                cuts += range(1, changes + 1)
            assert snapshot(folder) == fetched
        plan = prepare(folder, OPTIONS, source)
        assert plan.generation == 2
        assert snapshot(folder) == fetched
        assert folder.build_of(2).attempts() == {}
        assert not folder.exists(folder.manifest)
        lines = [Path(folder.plan(shard)).read_bytes() for shard in plan.shards]
        wanted = wanted or lines
        assert lines == wanted
    assert len(cuts) > 5
    assert sum(data.count(b"\t\n") for data in wanted) == 2


def test_a_dry_run_tells_what_is_at_hand(earlier: DatasetFolder) -> None:
    text = describe(Originals(earlier), OPTIONS, CrawlOptions())
    assert "originals at hand         8\nURLs to fetch             0\n" in text
    assert "busiest host" not in text
    retry = Originals(earlier, retry=(Outcome.TIMED_OUT,))
    rows = describe(retry, OPTIONS, CrawlOptions()).splitlines()
    assert "URLs to fetch             2" in rows
    assert any(row.startswith("busiest host") for row in rows)


def test_what_is_retried_came_without_a_picture() -> None:
    assert Outcome.TIMED_OUT in RETRYABLE
    kinds = {Outcome.OK, Outcome.DUPLICATE_URL, Outcome.DUPLICATE_IMAGE, Outcome.CORRUPT}
    assert not kinds & set(RETRYABLE)
