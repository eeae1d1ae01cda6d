"""python -m pipelines as a user runs it: whole, killed, interrupted, with more crawlers."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.outcome_table import read_table

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = [
    "--crop-size",
    "32",
    "--scales",
    "2,3",
    "--num-shards",
    "4",
    "--splits",
    "train=0.5,validation=0.25,test=0.25",
    "--requests-per-host",
    "100000",
    "--concurrency",
    "16",
    "--timeout",
    "30",
    "--allow-host",
    "127.0.0.1",
]
TOTALS = {
    "ok": 16,
    "duplicate_image": 2,
    "duplicate_url": 1,
    "too_small": 1,
    "not_an_image": 1,
    "http_client_error": 2,
    "blocked_address": 1,
    "malformed_line": 1,
    "unsupported_url": 1,
}
LINES = sum(TOTALS.values())


class Site:
    """A web site of small photos with the list of them; holds answers back on demand."""

    def __init__(self, server: Any, answer: Callable[..., bytes], directory: Path) -> None:
        self.server = server
        self.held: set[str] = set()
        server.before = self._hold
        photo = Image.fromarray(skimage.data.chelsea())
        for number in range(18):
            file = io.BytesIO()
            left = 8 * number if number < 16 else 0  # the last two are copies of the first
            photo.crop((left, 0, left + 64, 64)).save(file, "PNG")
            server.routes[f"/{number}.png"] = answer(file.getvalue())
        file = io.BytesIO()
        photo.resize((20, 20)).save(file, "PNG")
        server.routes["/small.png"] = answer(file.getvalue())
        server.routes["/page.jpg"] = answer(b"<html>gone</html>")
        names = [*(f"{number}.png" for number in range(18)), "small.png", "page.jpg", "a", "b"]
        lines = [f"n01440764_{n}\t{server.url(f'/{name}')}" for n, name in enumerate(names)]
        lines += [lines[3].replace("_3\t", "_999\t"), "n01440764_30\tftp://a.com/x.jpg"]
        lines += ["n01440764_31\thttp://10.0.0.1/x.jpg", "no line"]
        self.list = directory / "list.txt"
        self.list.write_text("\n".join(lines) + "\n")

    async def _hold(self, path: str) -> None:
        while path in self.held:  # noqa: ASYNC110  set from another thread
            await asyncio.sleep(0.02)

    @property
    def pictures_asked(self) -> Counter[str]:
        return Counter({p: n for p, n in self.server.requests.items() if p != "/robots.txt"})


@pytest.fixture(scope="module")
def site(
    module_server: Any,
    http_answer: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    return Site(module_server, http_answer, tmp_path_factory.mktemp("site"))


def command(source: Path, output: Path, *more: str, option: str = "--urls") -> list[str]:
    arguments = [option, str(source), "--output", str(output), *OPTIONS, *more]
    return [sys.executable, "-m", "pipelines", *arguments]


def run(source: Path, output: Path, *more: str, **how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(source, output, *more, **how),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def examples(output: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "examples").iterdir())
    }


def shards_fetched(output: Path) -> set[str]:
    return set(DatasetFolder(str(output)).attempts())


def check_finished(result: subprocess.CompletedProcess[str] | None, output: Path) -> None:
    """A finished folder has everything and nothing else."""
    if result is not None:
        assert result.returncode == 0, result.stderr
    manifest = json.loads((output / "dataset.json").read_text())
    assert manifest["outcomes"] == TOTALS
    names = {path.name for path in output.iterdir()}
    assert names == {"build.json", "plan", "fetched", "examples", "outcomes", "dataset.json"}
    assert not [path for path in output.rglob("*") if "tmp" in path.name]
    rows = []
    for path in (output / "outcomes").iterdir():
        with path.open("rb") as file:
            rows += read_table(file)
    assert Counter(row.outcome for row in rows) == TOTALS
    assert len(rows) == LINES
    examples_said = {
        f"{name}.tfrecord": shard["sha256"]
        for split in manifest["splits"].values()
        for name, shard in split["shards"].items()
    }
    assert examples(output) == examples_said


@pytest.fixture(scope="module")
def built(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "set"
    check_finished(run(site.list, output, "--crawlers", "1"), output)
    assert site.pictures_asked["/3.png"] == 1
    return output


@dataclass
class Started:
    """A running build."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> str:
        """What it wrote to standard error, once it has ended."""
        self.process.wait(60)
        return self.log.read_text()


@contextlib.contextmanager
def started(site: Site, output: Path, *more: str) -> Iterator[Started]:
    """A build that has fetched all shards but the one of a held picture."""
    site.held.add("/5.png")
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        arguments = command(site.list, output, *more)
        process = subprocess.Popen(arguments, cwd=REPOSITORY, stderr=file)
    try:
        build = Started(process, log)
        plan = output / "plan" / "shards.json"
        build.wait_for(plan.exists)
        shards = json.loads(plan.read_text())["shards"]
        build.wait_for(lambda: len(shards_fetched(output)) == len(shards) - 1)
        yield build
    finally:
        site.held.clear()
        process.kill()
        process.wait()


def check_goes_on(site: Site, output: Path, built: Path) -> None:
    """The same command finishes with the same bytes, and fetches no finished shard again."""
    done = shards_fetched(output)
    fetched = b"".join((output / "plan" / f"{shard}.tsv").read_bytes() for shard in done)
    before = site.pictures_asked
    check_finished(run(site.list, output, "--crawlers", "1"), output)
    assert examples(output) == examples(built)
    again = site.pictures_asked - before
    assert again["/5.png"] == 1
    assert not [path for path in again if f"{path}\n".encode() in fetched]


def test_three_crawlers_give_the_same_bytes_as_one(site: Site, built: Path, tmp_path: Path) -> None:
    check_finished(run(site.list, tmp_path / "set", "--crawlers", "3"), tmp_path / "set")
    assert examples(tmp_path / "set") == examples(built)


def test_a_proxy_of_the_environment_is_in_nobodys_way(
    site: Site, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scheme in ("http", "https", "all"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    check_finished(run(site.list, tmp_path / "set", "--crawlers", "2"), tmp_path / "set")
    assert examples(tmp_path / "set") == examples(built)


def test_a_finished_build_is_already_complete(site: Site, built: Path) -> None:
    asked = site.server.requests.copy()
    result = run(site.list, built)
    check_finished(result, built)
    assert "is already complete" in result.stderr
    assert site.server.requests == asked


def test_killed_the_same_command_goes_on(site: Site, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    with started(site, output, "--crawlers", "2") as build:
        build.process.kill()
        build.end()
    assert (output / "lease.json").exists()
    check_goes_on(site, output, built)


@pytest.mark.parametrize(("number", "crawlers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_interrupted_the_same_command_goes_on(
    site: Site, built: Path, tmp_path: Path, number: signal.Signals, crawlers: str
) -> None:
    output = tmp_path / "set"
    with started(site, output, "--crawlers", crawlers) as build:
        build.process.send_signal(number)
        errors = build.end()
    assert build.process.returncode == 3, errors
    assert errors.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert "Traceback" not in errors
    assert not (output / "lease.json").exists()
    check_goes_on(site, output, built)


@pytest.mark.skipif(not Path("/proc/1").is_dir(), reason="finds the worker in /proc")
def test_a_worker_killed_alone_does_not_end_the_build(
    site: Site, built: Path, tmp_path: Path
) -> None:
    output = tmp_path / "set"
    with started(site, output, "--crawlers", "2") as build:
        workers = [
            int(status.parts[2])
            for status in Path("/proc").glob("[0-9]*/status")
            if f"\nPPid:\t{build.process.pid}\n" in read(status)
            and "pipelines.build.worker" in read(status.with_name("cmdline"))
        ]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        site.held.clear()
        errors = build.end()
    assert build.process.returncode == 0, errors
    assert "is started again" in errors
    assert "Exception in thread" not in errors
    check_finished(None, output)
    assert examples(output) == examples(built)


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_list_whose_every_url_fails_is_a_failure(site: Site, tmp_path: Path) -> None:
    listed = tmp_path / "dead.txt"
    listed.write_text("".join(f"n01440764_{n}\t{site.server.url(f'/x{n}')}\n" for n in range(5)))
    result = run(listed, tmp_path / "set")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "failed: not one picture became an example: http_client_error 5"
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_a_folder_of_pictures_needs_no_network(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number in range(8):
        path = pictures / f"n0144076{number % 2}" / f"{number} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage.data.coffee()).crop((number, 0, number + 64, 64)).save(path)
    output = tmp_path / "set"
    result = run(pictures, output, "--wnids", "n01440760", option="--images")
    assert result.returncode == 0, result.stderr
    assert json.loads((output / "dataset.json").read_text())["outcomes"] == {Outcome.OK: 4}
