"""The same list, options and answers give the same bytes, whatever happens on the way."""

import asyncio
import contextlib
import hashlib
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.build.build import build
from pipelines.build.engine import EMBEDDED, Engine
from pipelines.build.transforms import Job, crawl_shards
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import prepare

pytestmark = pytest.mark.slow

PICTURES = 60
REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = DatasetOptions(
    crop_size=32,
    scales=(2, 3),
    num_shards=4,
    crops_per_image=2,
    splits={"train": 0.5, "validation": 0.25, "test": 0.25},
    allow_hosts=("127.0.0.1",),
)
COMMAND = [
    *("--crop-size", "32", "--scales", "2,3", "--num-shards", "4", "--crops-per-image", "2"),
    *("--splits", "train=0.5,validation=0.25,test=0.25", "--allow-host", "127.0.0.1"),
    *("--requests-per-host", "100000"),
]


class Site:
    """Photos, copies of some, and URLs that bring none; each way to build sets how it answers."""

    def __init__(self, server: Any, answer: Callable[..., bytes], home: Path) -> None:
        self.server, self.answer = server, answer
        self.bodies = {f"/{number}.png": body for number, body in enumerate(photos(PICTURES))}
        for copy, of in ((60, 3), (61, 3), (62, 17)):
            self.bodies[f"/{copy}.png"] = self.bodies[f"/{of}.png"]
        self.bodies["/page.png"] = b"<html>gone</html>"
        self.answer_well()
        paths = [*self.bodies, "/missing.png", "/3.png"]
        lines = [f"n01440764_{n}\t{server.url(path)}" for n, path in enumerate(paths)]
        self.list = home / "list.txt"
        self.list.write_text("\n".join([*lines, "no line"]) + "\n")

    def answer_well(self) -> None:
        self.server.before = None
        self.server.routes.update({path: self.answer(body) for path, body in self.bodies.items()})

    def answer_late(self) -> None:
        """In another order each time."""

        async def wait(_: str) -> None:
            await asyncio.sleep(random.uniform(0, 0.1))

        self.server.before = wait

    def fail_first(self) -> None:
        """The first request of every URL is refused, fails, or is cut off."""
        for number, (path, body) in enumerate(self.bodies.items()):
            faults = [self.answer(body[:100], length=len(body))]
            faults += [self.answer(status="500 Internal Server Error")]
            if number in (0, 30):  # each holds its whole host back for a second
                faults = [self.answer(status="503 Service Unavailable")]
            self.server.routes[path] = [faults[number % len(faults)], self.answer(body)]


def photos(count: int) -> Iterator[bytes]:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    sources = [Image.fromarray(getattr(skimage.data, name)()) for name in names]
    places = np.random.default_rng(0)
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(places.integers(side - 64)) for side in source.size)
        file = io.BytesIO()
        source.crop((left, top, left + 64, top + 64)).save(file, "PNG")
        yield file.getvalue()


@pytest.fixture(scope="module")
def site(
    module_server: Any,
    http_answer: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    return Site(module_server, http_answer, tmp_path_factory.mktemp("site"))


def run(site: Site, output: Path, crawlers: int = 1) -> None:
    crawl = CrawlOptions(crawlers=crawlers, requests_per_host=100_000, concurrency=32)
    source = Source(str(site.list))
    build(DatasetFolder(str(output)), OPTIONS, crawl, source, Engine.of(EMBEDDED))


def content(output: Path) -> dict[str, Any]:
    """sha256 of every shard, and dataset.json without its versions."""
    shards = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "examples").iterdir())
    }
    manifest = json.loads((output / "dataset.json").read_text())
    return {**shards, "dataset.json": manifest | {"versions": None}}


@pytest.fixture(scope="module")
def expected(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("expected") / "set"
    run(site, output)
    found = content(output)
    totals = found["dataset.json"]["outcomes"]
    assert sum(totals.values()) == len(site.list.read_text().splitlines())
    assert totals["ok"] + totals["duplicate_image"] == len(site.bodies) - 1
    assert totals["duplicate_image"] >= 3
    assert len(found) > 5
    return found


@pytest.fixture(autouse=True)
def answering_well(site: Site) -> Iterator[None]:
    yield
    site.answer_well()


@pytest.mark.parametrize("crawlers", [1, 2, 4])
def test_any_number_of_crawlers(
    site: Site, expected: dict[str, Any], tmp_path: Path, crawlers: int
) -> None:
    run(site, tmp_path / "set", crawlers)
    assert content(tmp_path / "set") == expected


def test_answers_in_random_order(site: Site, expected: dict[str, Any], tmp_path: Path) -> None:
    site.answer_late()
    run(site, tmp_path / "set")
    assert content(tmp_path / "set") == expected


def test_retries(site: Site, expected: dict[str, Any], tmp_path: Path) -> None:
    site.fail_first()
    before = site.server.requests.copy()
    run(site, tmp_path / "set")
    assert content(tmp_path / "set") == expected
    asked = site.server.requests - before
    assert all(asked[path] == 2 for path in site.bodies if path != "/page.png")


def test_after_an_interruption(site: Site, expected: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "set"
    site.answer_late()
    command = [sys.executable, "-m", "pipelines", "--urls", str(site.list), *COMMAND]
    process = subprocess.Popen(
        [*command, "--output", str(output), "--crawlers", "1", "--concurrency", "2"],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not DatasetFolder(str(output)).attempts():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (output / "dataset.json").exists()
    run(site, output)
    assert content(output) == expected


def attempt_all(site: Site, output: Path) -> None:
    """One attempt at every shard, as a crawler makes it, whatever was attempted before."""
    folder, source = DatasetFolder(str(output)), Source(str(site.list))
    plan = prepare(folder, OPTIONS, source)
    crawl = CrawlOptions(requests_per_host=100_000, concurrency=16)
    job = Job(folder, plan, crawl, source)

    async def crawl_all() -> None:
        async with contextlib.aclosing(crawl_shards(job, 0, sorted(plan.shards))) as crawled:
            async for _ in crawled:
                pass

    asyncio.run(crawl_all())


def test_every_shard_attempted_twice_at_once(
    site: Site, expected: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "set"
    prepare(DatasetFolder(str(output)), OPTIONS, Source(str(site.list)))
    site.answer_late()
    threads = [threading.Thread(target=attempt_all, args=(site, output)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attempts = DatasetFolder(str(output)).attempts()
    assert [len(found) for found in attempts.values()] == [2] * len(attempts)
    asked = site.server.requests.copy()
    run(site, output)
    assert content(output) == expected
    assert site.server.requests == asked
    assert {len(found) for found in DatasetFolder(str(output)).attempts().values()} == {1}
