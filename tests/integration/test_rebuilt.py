"""Datasets rebuilt from what an earlier build has fetched, with and without fetching more."""

import asyncio
import dataclasses
import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from pipelines.build.build import build
from pipelines.build.engine import EMBEDDED, Engine, reach_stores
from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.stored import Stored, StoredBody
from pipelines.crawl.writer import ShardWriter
from pipelines.dataset.attempt_table import read_table
from pipelines.dataset.examples import Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions, Degradation
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.tfrecord import Span, frame_record
from pipelines.lists.list_file import Source
from pipelines.lists.originals import Originals
from pipelines.lists.plan import AnySource
from pipelines.lists.url_list import Entry
from pipelines.pictures.decoder import Decoded
from tests.support.build import Build
from tests.support.site import LoopbackServer, Site, answer, png

pytestmark = pytest.mark.slow

OPTIONS = DatasetOptions(
    crop_size=32,
    scales=(2, 3),
    num_shards=3,
    splits={"train": 0.5, "validation": 0.25, "test": 0.25},
    allow_hosts=("127.0.0.1", "localhost"),
)
GONE = ("/gone", "/0.png?%E9")
RETRY = (Outcome.HTTP_CLIENT_ERROR, Outcome.OPTED_OUT)


class HealingSite(Site):
    """Pictures, copies and failures of many kinds; some of them heal."""

    def __init__(self, server: LoopbackServer, directory: Path) -> None:
        photo = Image.fromarray(skimage.data.chelsea())
        bodies = {f"/{n}.png": png(photo.crop((8 * n, 0, 8 * n + 64, 64))) for n in range(16)}
        for copy in ("/16.png", "/17.png"):
            bodies[copy] = bodies["/0.png"]
        bodies["/small.png"] = png(photo.resize((24, 24)))
        bodies["/page.jpg"] = b"<html>gone</html>"
        super().__init__(server, bodies)
        server.routes["/broken"] = answer(b"", "500 Oops")
        hosts = "127.0.0.1", "localhost"
        lines = [
            f"n01440764_{n}\t{server.url(name, hosts[n % 2])}".encode()
            for n, name in enumerate([*bodies, "/broken", "/away", "/shy", "/gone"])
        ]
        self.repeated = lines[3].replace(b"n01440764_3\t", b"n09999999_1\t")
        lines += [self.repeated, lines[3], b"n01440764_30\tftp://a.com/\xe9x.jpg  "]
        lines += [b"n01440764_\xff\t" + server.url("/0.png?\xe9").encode("latin-1")]
        lines += [b"n01440764_31\thttp://10.0.0.1/x.jpg", b"no\tline\tat all", b"\xfe", b""]
        self.list = directory / "list.txt"
        self.list.write_bytes(b"\n".join(lines) + b"\n")

    def answer_well(self) -> None:
        super().answer_well()
        self.server.routes.pop("/away", None)
        self.server.routes["/shy"] = answer(b"x", headers={"X-Robots-Tag": "noai"})

    def heal(self) -> None:
        """What was away, and what did not want to be taken."""
        photo = Image.fromarray(skimage.data.coffee())
        self.server.routes["/away"] = answer(png(photo.crop((0, 0, 64, 64))))
        self.server.routes["/shy"] = answer(png(photo.crop((200, 100, 264, 164))))


@pytest.fixture(scope="module")
def web(module_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> HealingSite:
    return HealingSite(module_server, tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(web: HealingSite) -> Iterator[HealingSite]:
    yield web
    web.answer_well()


@pytest.fixture(scope="module")
def built(web: HealingSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's dataset before it heals. Not to be written to."""
    folder = run(tmp_path_factory.mktemp("built") / "set", web.list)
    assert (totals(folder)["ok"], totals(folder)["opted_out"]) == (16, 1)
    assert totals(folder)["http_client_error"] == 3
    return Path(folder.root)


@pytest.fixture
def first(site: HealingSite, built: Path, tmp_path: Path) -> DatasetFolder:
    """A copy of it, in the folder ``first``."""
    return DatasetFolder(str(shutil.copytree(built, tmp_path / "first")))


@pytest.fixture(scope="module")
def healed(web: HealingSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The dataset of the site once it has healed, as one build makes it."""
    web.heal()
    try:
        return content(run(tmp_path_factory.mktemp("healed") / "set", web.list))
    finally:
        web.answer_well()


def run(
    output: Path, source: AnySource | Path, options: DatasetOptions = OPTIONS, **how: Any
) -> DatasetFolder:
    folder = DatasetFolder(str(output))
    lines = Source(str(source)) if isinstance(source, Path) else source
    crawl = CrawlOptions(requests_per_host=100_000)
    build(folder, options, crawl, lines, Engine.of(EMBEDDED), **how)
    return folder


def content(folder: DatasetFolder) -> dict[str, bytes]:
    """All that a dataset is, by file."""
    root = Path(folder.root)
    paths = [*root.glob("examples/*"), *root.glob("outcomes/*"), root / "dataset.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def totals(folder: DatasetFolder) -> dict[str, int]:
    found: dict[str, int] = json.loads(Path(folder.manifest).read_text())["outcomes"]
    return found


def originals(folder: DatasetFolder) -> dict[str, bytes]:
    paths = Path(folder.root).glob("*/*.originals.tfrecord")
    return {path.name: path.read_bytes() for path in paths}


CHANGES: list[dict[str, Any]] = [
    {"seed": 7},
    {"crop_size": 16, "crops_per_image": 3},
    {"crop_size": 48, "crop_margin": 0.0, "scales": (2,), "num_shards": 1},
    {"degradation": Degradation.BICUBIC, "splits": {"train": 1.0, "validation": 0.0, "test": 0.0}},
]


def test_other_options_give_a_fresh_crawls_bytes_without_a_request(
    site: HealingSite, first: DatasetFolder, tmp_path: Path
) -> None:
    before = originals(first)
    for number, change in enumerate(CHANGES):
        options = dataclasses.replace(OPTIONS, **change)
        fresh = run(tmp_path / f"fresh-{number}", site.list, options)
        asked = site.server.requests.copy()
        rebuilt = run(tmp_path / f"rebuilt-{number}", Originals(first), options)
        assert site.server.requests == asked
        assert content(rebuilt) == content(fresh)
        assert originals(rebuilt) == {}
        again = run(tmp_path / f"again-{number}", Originals(rebuilt))
        assert site.server.requests == asked
        assert content(again) == content(first)
    assert originals(first) == before


def test_a_selection_may_leave_out_the_line_that_a_url_was_fetched_for(
    site: HealingSite, first: DatasetFolder, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, wnids=("n09999999",))
    fresh = run(tmp_path / "fresh", site.list, options)
    asked = site.server.requests.copy()
    rebuilt = run(tmp_path / "rebuilt", Originals(first), options)
    assert site.server.requests == asked
    assert totals(rebuilt) == {"ok": 1}
    found, wanted = content(rebuilt), content(fresh)
    for name in ("examples", "outcomes"):
        assert {n: found[n] for n in found if name in n} == {
            n: wanted[n] for n in wanted if name in n
        }
    # Its record is of its own line now.
    again = run(tmp_path / "again", Originals(rebuilt), options)
    assert content(again) == found
    assert site.server.requests == asked


def test_a_smaller_limit_of_bytes_holds_for_originals_as_well(
    site: HealingSite, first: DatasetFolder, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, max_bytes=6_000)
    rebuilt = run(tmp_path / "rebuilt", Originals(first), options)
    fresh = run(tmp_path / "fresh", site.list, options)
    found, wanted = content(rebuilt), content(fresh)
    names = [name for name in wanted if "outcomes" not in name]  # the numbers are told differently
    assert {name: found[name] for name in names} == {name: wanted[name] for name in names}
    assert 0 < totals(rebuilt)["too_many_bytes"] < 16


@pytest.mark.parametrize("in_place", [False, True])
def test_a_retry_fetches_the_lines_of_these_outcomes_alone(
    site: HealingSite,
    first: DatasetFolder,
    healed: dict[str, bytes],
    tmp_path: Path,
    in_place: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = originals(first)
    site.heal()
    asked = site.asked()
    output = tmp_path / ("first" if in_place else "second")
    retried = run(output, Originals(first, in_place, RETRY))
    assert site.asked() - asked == Counter(["/away", "/shy", *GONE])
    assert content(retried) == healed
    assert originals(first).items() >= before.items()
    files = {path.name for path in output.iterdir()}
    expected = {"build.json", "plan", "fetched", "examples", "outcomes", "dataset.json"}
    assert files == expected

    # The same command again: what is still away is asked for once more, or it is complete.
    asked = site.asked()
    run(output, Originals(first, in_place, RETRY))
    assert site.asked() - asked == Counter(GONE if in_place else [])
    # It is the list's dataset, and complete for who asks with the list.
    before_asked = site.server.requests.copy()
    run(output, site.list)
    assert site.server.requests == before_asked
    if in_place:
        caplog.set_level(logging.INFO)
        run(output, Originals(first, True, (Outcome.OPTED_OUT,)))
        assert site.server.requests == before_asked
        assert "ended with opted_out" in caplog.text
    # What was retried is an earlier build as any other.
    options = dataclasses.replace(OPTIONS, seed=3)
    third = run(tmp_path / "third", Originals(retried), options)
    assert site.server.requests == before_asked
    assert content(third) == content(run(tmp_path / "fresh-3", site.list, options))


@pytest.mark.parametrize("part", [0.05, 0.3, 0.5, 0.9])
def test_an_interrupted_retry_is_gone_on_with(
    site: HealingSite,
    first: DatasetFolder,
    healed: dict[str, bytes],
    tmp_path: Path,
    part: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off after this part of all changes to files that it makes."""
    before = originals(first)
    site.heal()
    retry = Originals(first, True, RETRY)
    copy = DatasetFolder(str(tmp_path / "copy"))
    shutil.copytree(first.root, copy.root)
    with cut_after(monkeypatch, None) as changes:
        run(tmp_path / "copy", Originals(copy, True, RETRY))
    with (
        cut_after(monkeypatch, int(part * len(changes))),
        pytest.raises((Cut, WorkError)),
    ):
        run(tmp_path / "first", retry)
    assert originals(first).items() >= before.items()
    if not first.exists(first.manifest):
        for other in (site.list, Originals(first, True, RETRY[:1])):
            with pytest.raises(UsageError, match="begun with --retry http_client_error,opted_out"):
                run(tmp_path / "first", other)
        if part < 0.5:  # later all of it may be fetched
            with pytest.raises(UsageError, match="finish it first"):
                run(tmp_path / "second", Originals(first))
    run(tmp_path / "first", retry)
    assert content(first) == content(copy) == healed
    assert originals(first).items() >= before.items()


class Cut(Exception):
    """The end of a process, but for what asyncio and Beam do at an interruption."""


@contextmanager
def cut_after(monkeypatch: pytest.MonkeyPatch, count: int | None) -> Iterator[list[str]]:
    """Interrupts every change to the dataset's files after so many; gives the changes so far."""
    changes: list[str] = []

    def change(function: Callable[..., None], *arguments: Any, **named: Any) -> None:
        path = str(arguments[-1])
        if "lease.json" not in path and not named:  # those are given back, and so is the spool
            if count is not None and len(changes) >= count:
                raise Cut
            changes.append(path)
        function(*arguments, **named)

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink"):
            patched.setattr(os, name, partial(change, getattr(os, name)))
        yield changes


def test_a_killed_retry_is_gone_on_with(
    site: HealingSite, first: DatasetFolder, healed: dict[str, bytes], tmp_path: Path
) -> None:
    site.heal()
    site.held.add("/away")
    asked = site.asked()
    retry = ["--retry", ",".join(RETRY), "--output", first.root, "--requests-per-host", "100000"]
    retry += ["--crawlers", "1"]
    retrying = Build(tmp_path / "log", [sys.executable, "-m", "pipelines", *retry])
    retrying.wait_for(lambda: (site.asked() - asked)["/away"])
    retrying.kill()
    assert not first.exists(first.manifest)
    site.held.clear()
    run(tmp_path / "first", Originals(first, True, RETRY))
    assert content(first) == healed


def test_a_dataset_can_be_its_own_source_with_other_options(
    site: HealingSite, first: DatasetFolder, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, crop_size=24, seed=5)
    fresh = run(tmp_path / "fresh", site.list, options)
    copy = tmp_path / "second"
    shutil.copytree(first.root, copy)
    asked = site.server.requests.copy()
    folder = run(copy, Originals(DatasetFolder(str(copy)), True), options, overwrite=True)
    assert content(folder) == content(fresh)
    fewer = dataclasses.replace(OPTIONS, limit=5)
    with pytest.raises(UsageError, match="only 5 of the 32 lines"):
        run(copy, Originals(DatasetFolder(str(copy)), True), fewer, overwrite=True)
    assert content(folder) == content(fresh)
    assert site.server.requests == asked


def test_originals_that_are_not_kept_are_missed_in_one_line(
    site: HealingSite, tmp_path: Path
) -> None:
    first = run(tmp_path / "first", site.list, keep_originals=False)
    assert originals(first) == {}
    before = content(first)
    for source, output in (
        (Originals(first), "second"),
        (Originals(first, True, RETRY), "first"),
    ):
        with pytest.raises(UsageError, match=r"is gone: .* built with --originals none"):
            run(tmp_path / output, source)
    assert content(first) == before
    assert not (tmp_path / "second").exists()
    run(tmp_path / "first", site.list)  # is still complete


def test_a_broken_original_is_named_in_one_line(first: DatasetFolder, tmp_path: Path) -> None:
    path = max(
        Path(first.root).glob("fetched/*.originals.tfrecord"), key=lambda p: p.stat().st_size
    )
    with path.open("r+b") as file:
        file.seek(500)
        file.write(b"broken")
    with pytest.raises(WorkError, match=rf"^the original at byte \d+ of {path} is broken"):
        run(tmp_path / "second", Originals(first))


def test_an_original_in_an_object_store_is_read_alone_and_stays_there(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    reach_stores([])
    record = frame_record(Original("n1", "http://a.org/", "ab", b"picture").to_bytes())
    file = tmp_path / "file"
    file.write_bytes(b"before" + record + b"after")
    store.put("set/fetched/x.originals.tfrecord", file)
    where = {"file": "s3://bucket/set/x.originals.tfrecord", "offset": 6, "num_bytes": len(record)}
    folder = DatasetFolder(str(tmp_path / "set"))
    entry = Entry("n1", "http://a.org/", "http://a.org/", "a.org", json.dumps(where))

    async def fetch() -> Any:
        async with Stored(folder, 100, 1, fetch=pytest.fail).fetch(entry) as body:
            return body

    body = asyncio.run(fetch())
    assert isinstance(body, StoredBody)
    assert body.read() == b"picture"
    attempt = folder.new_attempt("train-00000-of-00001")
    with folder.spool() as directory, closing(ShardWriter(directory, attempt)) as writer:
        picture = writer.store(entry, body)
        copied = Path(picture.originals).read_bytes()[picture.original.offset :]
        assert copied == record
        writer.add_picture(entry, body, picture, Decoded(Outcome.CORRUPT))
        writer.publish()
    assert folder.names("fetched") == [Path(attempt.table).name]
    with folder.open(attempt.table) as table:
        (line,) = read_table(table)
    assert (line.original_file, line.original) == (where["file"], Span(6, len(record)))
