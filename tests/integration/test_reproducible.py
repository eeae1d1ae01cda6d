"""The same list, options and answers give the same bytes, whatever happens on the way."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import kill_build
from pipelines.__main__ import main
from pipelines.arguments import dataset_options, parser
from pipelines.build.transforms import Job, crawl_shards
from pipelines.command.cli import UsageError
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.lists.list_file import Source
from pipelines.lists.plan import prepare
from tests.support.build import Build, command, content, examples, rows, run
from tests.support.site import LoopbackServer, Site, crops, png

pytestmark = pytest.mark.slow

PICTURES = 60
OPTIONS = [
    *("--crop-size", "32", "--scales", "2,3", "--num-shards", "6", "--crops-per-image", "2"),
    *("--splits", "train=0.5,validation=0.25,test=0.25", "--concurrency", "16"),
    *("--requests-per-host", "100000", "--timeout", "100", "--allow-host", "127.0.0.1"),
]
OPTIONS_READ = dataset_options(parser().parse_args(["--urls", "-", "--output", "-", *OPTIONS]))
HELD = "/5.png"
TOTALS = {
    "ok": 60,
    "duplicate_image": 3,
    "duplicate_url": 1,
    "too_small": 1,
    "not_an_image": 1,
    "http_client_error": 2,
    "blocked_address": 1,
    "malformed_line": 1,
    "unsupported_url": 1,
}


class MixedSite(Site):
    """Pictures, copies of some, and lines that bring none."""

    def __init__(self, server: LoopbackServer, home: Path) -> None:
        bodies = {f"/{number}.png": png(crop) for number, crop in enumerate(crops(PICTURES))}
        for copy, of in ((60, 3), (61, 3), (62, 17)):
            bodies[f"/{copy}.png"] = bodies[f"/{of}.png"]
        bodies["/small.png"] = png(next(crops(1)).resize((20, 20)))
        bodies["/page.jpg"] = b"<html>gone</html>"
        super().__init__(server, bodies)
        repeated = f"n01440764_999\t{server.url('/3.png')}"
        more = ["n01440764_30\tftp://a.com/x.jpg", "n01440764_31\thttp://10.0.0.1/x.jpg", "no line"]
        self.list = self.write_list(
            home / "list.txt", [*bodies, "/gone.png", "/away.png"], [repeated, *more]
        )


@pytest.fixture(scope="module")
def web(module_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> MixedSite:
    return MixedSite(module_server, tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(web: MixedSite) -> Iterator[MixedSite]:
    yield web
    web.answer_well()


def build(site: MixedSite, output: Path, crawlers: int = 1) -> None:
    """A build in this process."""
    given = ["--urls", str(site.list), "--output", str(output), "--crawlers", str(crawlers)]
    main([*given, *OPTIONS])


def build_command(site: MixedSite, output: Path, crawlers: int = 1) -> list[str]:
    return command(site.list, output, *OPTIONS, "--crawlers", str(crawlers))


@pytest.fixture(scope="module")
def undisturbed(web: MixedSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "set"
    build(web, output)
    assert web.asked()["/3.png"] == 1
    check_finished(output)
    return output


def check_finished(output: Path) -> None:
    """A finished folder has everything and nothing else."""
    manifest = json.loads((output / "dataset.json").read_text())
    assert manifest["outcomes"] == TOTALS
    assert kill_build.leftovers(output) == ""
    assert not [path for path in output.rglob("*") if "tmp" in path.name]
    assert Counter(row.outcome for row in rows(output)) == TOTALS
    said = {
        f"{name}.tfrecord": shard["sha256"]
        for split in manifest["splits"].values()
        for name, shard in split["shards"].items()
    }
    assert examples(output) == said


@contextlib.contextmanager
def begun(site: MixedSite, output: Path, crawlers: int) -> Iterator[Build]:
    """A build that has fetched all shards but the one of a held picture."""
    site.held.add(HELD)
    started = Build(output.with_suffix(".log"), build_command(site, output, crawlers))
    try:
        plan = output / "plan" / "shards.json"
        started.wait_for(plan.exists)
        shards = json.loads(plan.read_text())["shards"]
        started.wait_for(lambda: len(DatasetFolder(str(output)).attempts()) == len(shards) - 1)
        yield started
    finally:
        started.kill()
        site.held.clear()


@contextlib.contextmanager
def no_shard_is_fetched_again(site: MixedSite, output: Path) -> Iterator[None]:
    """Pictures of the shards fetched by now are not asked for again."""
    folder = DatasetFolder(str(output))
    fetched = "".join(Path(folder.plan(shard)).read_text() for shard in folder.attempts())
    assert fetched
    before = site.asked()
    yield
    assert not [path for path in site.asked() - before if f"{path}\n" in fetched]


def the_environment_names_a_proxy(site: MixedSite, output: Path) -> None:
    proxies = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    environment = {name: value for name, value in os.environ.items() if name != "no_proxy"}
    result = run(*build_command(site, output, crawlers=2), env=environment | proxies)
    assert result.returncode == 0, result.stderr
    assert "fetched without the proxy of http_proxy and https_proxy and all_proxy" in result.stderr


def three_crawlers_and_answers_in_another_order(site: MixedSite, output: Path) -> None:
    site.answer_late()
    build(site, output, crawlers=3)


def every_first_answer_is_a_fault(site: MixedSite, output: Path) -> None:
    before = site.asked()
    site.fail_first()
    build(site, output)
    asked = site.asked() - before
    assert {asked[path] for path in site.bodies if path != "/page.jpg"} == {2}


def every_shard_is_attempted_twice_at_once(site: MixedSite, output: Path) -> None:
    folder, source = DatasetFolder(str(output)), Source(str(site.list))
    plan = prepare(folder, OPTIONS_READ, source)
    job = Job(folder, plan, CrawlOptions(requests_per_host=100_000, concurrency=16), source)

    async def crawl_all() -> None:
        async with contextlib.aclosing(crawl_shards(job, 0, sorted(plan.shards))) as crawled:
            async for _ in crawled:
                pass

    site.answer_late()
    threads = [threading.Thread(target=asyncio.run, args=(crawl_all(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attempts = folder.attempts()
    assert [len(found) for found in attempts.values()] == [2] * len(attempts)
    asked = site.asked()
    build(site, output)
    assert site.asked() == asked


def killed(site: MixedSite, output: Path) -> None:
    with begun(site, output, crawlers=1) as started:
        started.kill()
    assert (output / "lease.json").exists()
    with no_shard_is_fetched_again(site, output):
        build(site, output)


def interrupted(number: signal.Signals, site: MixedSite, output: Path, crawlers: int) -> None:
    with begun(site, output, crawlers) as started:
        started.process.send_signal(number)
        errors = started.end()
    assert started.process.returncode == 3, errors
    assert errors.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert "Traceback" not in errors
    assert not (output / "lease.json").exists()
    with no_shard_is_fetched_again(site, output):
        build(site, output)


def interrupted_by_ctrl_c(site: MixedSite, output: Path) -> None:
    interrupted(signal.SIGINT, site, output, crawlers=1)


def two_crawlers_interrupted_by_sigterm(site: MixedSite, output: Path) -> None:
    interrupted(signal.SIGTERM, site, output, crawlers=2)


def one_of_two_workers_killed(site: MixedSite, output: Path) -> None:
    if not Path("/proc/1").is_dir():
        pytest.skip("finds the worker in /proc")
    with begun(site, output, crawlers=2) as started:
        workers = [
            int(status.parts[2])
            for status in Path("/proc").glob("[0-9]*/status")
            if f"\nPPid:\t{started.process.pid}\n" in read(status)
            and "pipelines.build.worker" in read(status.with_name("cmdline"))
        ]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        site.held.clear()
        errors = started.finish()
    assert "is started again" in errors
    assert "Exception in thread" not in errors


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def another_build_of_the_folder_meanwhile(site: MixedSite, output: Path) -> None:
    with begun(site, output, crawlers=1) as first:
        process = f"process {first.process.pid} on {os.uname().nodename} "
        with pytest.raises(UsageError, match=f"^{output} is being built by {process}"):
            build(site, output)
        site.held.clear()
        first.finish()


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at ``path``."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def the_disk_is_full(site: MixedSite, output: Path, crawlers: int) -> None:
    disk = output.with_name("disk")
    with small_disk(disk, "600k"):
        first = run(*build_command(site, disk / "set", crawlers))
        assert first.returncode == 1, first.stderr
        assert "Traceback" not in first.stderr
        assert first.stderr.splitlines()[-1] == (
            f"failed: no space is left for {disk / 'set'}; what is fetched is kept: make room, and "
            "the same command goes on from there"
        )
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        with no_shard_is_fetched_again(site, disk / "set"):
            build(site, disk / "set")
        shutil.copytree(disk / "set", output)


def the_disk_is_full_for_one_crawler(site: MixedSite, output: Path) -> None:
    the_disk_is_full(site, output, crawlers=1)


def the_disk_is_full_for_two_crawlers(site: MixedSite, output: Path) -> None:
    the_disk_is_full(site, output, crawlers=2)


@pytest.mark.parametrize(
    "happens",
    [
        the_environment_names_a_proxy,
        three_crawlers_and_answers_in_another_order,
        every_first_answer_is_a_fault,
        every_shard_is_attempted_twice_at_once,
        killed,
        interrupted_by_ctrl_c,
        two_crawlers_interrupted_by_sigterm,
        one_of_two_workers_killed,
        another_build_of_the_folder_meanwhile,
        the_disk_is_full_for_one_crawler,
        the_disk_is_full_for_two_crawlers,
    ],
    ids=lambda happens: happens.__name__,
)
def test_the_same_bytes_whatever_happens(
    happens: Callable[[MixedSite, Path], None], site: MixedSite, undisturbed: Path, tmp_path: Path
) -> None:
    happens(site, tmp_path / "set")
    check_finished(tmp_path / "set")
    assert content(tmp_path / "set") == content(undisturbed)


def test_a_finished_build_is_already_complete(
    site: MixedSite, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = site.server.requests.copy()
    build(site, undisturbed)
    assert "is already complete" in caplog.text
    assert site.server.requests == asked
    check_finished(undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_at_random_moments_a_build_ends_with_the_same_bytes(tmp_path: Path) -> None:
    moments = list(kill_build.run(moments=3, seed=1, pictures=60, home=tmp_path))
    assert [moment.kind for moment in moments] == ["driver", "worker", "everything"]
    assert [moment.fault for moment in moments] == ["", "", ""]
