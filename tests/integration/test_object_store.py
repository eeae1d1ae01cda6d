"""The whole way on a real S3 server: list to results; refused, cut off, gone."""

import asyncio
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation import results
from evaluation.benchmark import made_of
from evaluation.pictures import dataset_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.results import Result
from evaluation.rows import evaluate
from evaluation.upscalers import load_upscalers
from pipelines.__main__ import main
from pipelines.build.engine import reach_stores
from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset import folder as storage
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import Lease
from tests.support import build
from tests.support.build import examples

StartBuild = Callable[..., Any]
trains_on_s3 = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is None,
    reason="this Python has no tensorflow-io, without which trainer and evaluation have no s3://",
)


def run(store: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return build.run(sys.executable, "-m", *arguments, env=store.environment())


def check_same(store: Any, embedded: Path) -> None:
    folder = store.bucket / "set"
    assert examples(folder) == examples(embedded)
    assert (folder / "dataset.json").exists()
    assert not [path for path in folder.rglob("*") if path.is_file() and not path.stat().st_size]
    for left in ("tmp", "progress"):
        assert not [path for path in (folder / left).rglob("*") if path.is_file()]


@pytest.mark.slow
@trains_on_s3
def test_list_dataset_training_and_results_are_in_the_store(
    store: Any, photo_site: Any, start_build: StartBuild, embedded: Path
) -> None:
    store.put("list.txt", photo_site.list)
    options = ["--crawlers", "1"]
    started = start_build(
        "s3://bucket/list.txt", "s3://bucket/set", *options, environment=store.environment()
    )
    started.finish()
    check_same(store, embedded)

    verified = run(store, "pipelines.verify", "s3://bucket/set")
    assert verified.returncode == 0, verified.stderr

    recipe = ["--config", "srcnn", "--steps", "2", "--batch-size", "2", "--patch-size", "40"]
    training = ["trainer", *recipe, "--data", "s3://bucket/set", "--output", "s3://bucket/run"]
    trained = run(store, *training)
    assert trained.returncode == 0, trained.stderr  # tensorflow-io alone would make it 134
    assert (store.bucket / "run" / "checkpoints" / "step-00000002.npz").stat().st_size > 10_000
    assert (store.bucket / "run" / "model" / "model.json").exists()
    again = run(store, *training)
    assert again.returncode == 0, again.stderr
    assert "already trained" in again.stderr
    check_evaluation(store)


def check_evaluation(store: Any) -> None:
    """Of the run in the store on the dataset there; a rerun takes over what the results hold."""
    scored = ["--data", "s3://bucket/set", "--models", "s3://bucket/run", "--scales", "2"]
    evaluated = run(store, "evaluation", *scored, "--output", "s3://bucket/rerun/history.csv")
    assert evaluated.returncode == 0, evaluated.stderr
    history = store.bucket / "rerun" / "history.csv"
    (first,) = history.iterdir()
    rows = results.read(str(first), Result)
    pictures = dataset_pictures(str(store.bucket / "set"), "test")
    upscalers = load_upscalers([str(store.bucket / "run")])
    expected = evaluate(pictures, PROTOCOLS["article"], upscalers, [2]).rows
    for row, same in zip(rows, expected, strict=True):
        assert made_of(row) == made_of(same)
        assert row.psnr_db == pytest.approx(same.psnr_db, rel=1e-5)

    scored += ["--protocols", "article", "paper-rgb"]
    rerun = run(store, "evaluation.benchmark", *scored, "--reuse", "--output", "s3://bucket/rerun")
    assert rerun.returncode == 0, rerun.stderr
    assert sorted(history.iterdir())[0] == first
    rows = results.read(str(history), Result)
    assert [(row.protocol, row.model) for row in rows] == [
        (protocol, model) for protocol in ("article", "paper-rgb") for model in ("bicubic", "run")
    ]
    assert len(list(history.iterdir())) == 2
    assert (store.bucket / "rerun" / "report.html").stat().st_size > 10_000
    assert not (store.bucket / "rerun" / "unfinished").exists()


@pytest.mark.parametrize(
    ("output", "changes", "said"),
    [
        ("s3://bucket/set", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "Forbidden"),
        ("s3://no-bucket/set", {}, "bucket does not exist"),
    ],
)
def test_what_the_store_refuses_is_a_usage_error(
    store: Any,
    photo_site: Any,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    changes: dict[str, str],
    said: str,
) -> None:
    for name, value in (store.environment() | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        main(["--urls", str(photo_site.list), "--output", output])


ONE_PROCESS = """
import json, logging, sys
from evaluation.__main__ import main
from pipelines.command import cli
def leave(status):
    sys.stderr.write(f"status {status}\\n")
    raise KeyError
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        cli.run(main, leave=leave)
    except KeyError:
        pass
"""


@pytest.mark.slow
@trains_on_s3
@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            [(["--data", "s3://bucket/set"], "permission denied")],
        ),
        (
            {},
            [
                (["--data", "s3://bucket/set"], "is it a finished dataset?"),
                (["--images", "{photos}", "--output", "s3://no-bucket/r"], "there is no bucket"),
                (["--images", "{photos}", "--models", "s3://bucket/run"], "is no run folder"),
            ],
        ),
    ],
)
def test_what_the_store_refuses_an_evaluation_is_one_line_and_status_2(
    store: Any,
    shared_data: Path,
    tmp_path: Path,
    changes: dict[str, str],
    refused: list[tuple[list[str], str]],
) -> None:
    output = ["--output", str(tmp_path / "results.csv")]
    photos = str(shared_data / "benchmarks" / "set5")
    given = [
        [*output, *(text.format(photos=photos) for text in arguments)] for arguments, _ in refused
    ]
    command = [sys.executable, "-c", ONE_PROCESS, json.dumps(given)]
    result = build.run(*command, env=store.environment() | changes)
    answers = result.stderr.split("status 2\n")
    for (_, said), lines in zip(refused, answers[:-1], strict=True):
        assert lines.splitlines()[-1].startswith("error: ")
        assert said in lines.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results.csv").exists()


class Proxy:
    """Passes bytes on to a port, slowly; cuts its first connections after some of them."""

    def __init__(self, port: int, cuts: int, after: int) -> None:
        self.cuts, self._after, self._target = cuts, after, port
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.create_task(self._pass(reader, questions)),
            asyncio.create_task(self._pass(answers, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (questions, writer):
                end.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await source.read(8192):
            passed += len(data)
            if passed > self._after and self.cuts > 0:
                self.cuts -= 1
                return
            await asyncio.sleep(0.002)
            sink.write(data)
            await sink.drain()


@pytest.mark.slow
def test_cut_connections_and_a_slow_store_change_no_byte(
    store: Any, photo_site: Any, start_build: StartBuild, embedded: Path
) -> None:
    proxy = Proxy(store.port, cuts=4, after=100_000)
    with contextlib.closing(proxy):
        environment = store.environment(proxy.port)
        started = start_build(
            photo_site.list, "s3://bucket/set", "--crawlers", "1", environment=environment
        )
        started.finish()
    assert proxy.cuts == 0
    check_same(store, embedded)


@pytest.mark.slow
def test_a_store_that_is_gone_is_a_clear_failure_and_the_same_command_completes(
    store: Any,
    photo_site: Any,
    start_build: StartBuild,
    embedded: Path,
) -> None:
    photo_site.held.add(photo_site.paths[5])
    arguments = [photo_site.list, "s3://bucket/set", "--crawlers", "1"]
    started = start_build(*arguments, environment=store.environment())
    tables = store.bucket / "set" / "fetched"
    started.wait_for(lambda: list(tables.glob("*.table.parquet")))
    store.service.kill()
    photo_site.held.clear()
    errors = started.end()
    assert started.process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("failed: ")
    assert "Could not connect" in last
    assert "lease" not in last
    assert "while running" not in last
    store.start()
    start_build(*arguments, environment=store.environment()).finish()
    check_same(store, embedded)


class BrokenSource(io.BytesIO):
    """A file that cannot be read to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("the disk is broken")
        return super().read(1 << 20)


@pytest.fixture
def bucket_folder(store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetFolder]:
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    reach_stores([])
    yield DatasetFolder("s3://bucket/set")


@pytest.mark.usefixtures("bucket_folder")
def test_any_folder_name_will_do() -> None:
    for name in ("x", "x[1]", "x?", "x*"):
        folder = DatasetFolder(f"s3://bucket/{name}")
        folder.publish_bytes(folder.path("plan", name), b"1")
        assert folder.names("plan") == [name]
        assert folder.sizes("plan") == {name: 1}


def test_a_range_of_an_object_is_that_of_a_file(
    store: Any, bucket_folder: DatasetFolder, tmp_path: Path
) -> None:
    for name, data in (("some", bytes(range(100))), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        store.put(f"set/{name}", tmp_path / name)
        for offset, num_bytes in ((0, 9), (95, 9), (50, 0), (100, 9)):
            read = bucket_folder.read_range(bucket_folder.path(name), offset, num_bytes)
            assert read == data[offset : offset + num_bytes]


def test_of_two_drivers_that_take_a_lease_at_once_one_gets_it(bucket_folder: DatasetFolder) -> None:
    free, end = threading.Barrier(2), threading.Barrier(2)
    refused: list[str] = []

    class Slow(Lease):
        """Both have seen that the folder is free before either says that it has it."""

        delay_s = 0.0

        def _write(self) -> None:
            free.wait()
            time.sleep(self.delay_s)
            super()._write()

    def drive(delay_s: float) -> None:
        lease = Slow(bucket_folder)
        lease.delay_s = delay_s
        try:
            with lease:
                end.wait()
        except UsageError as error:
            refused.append(str(error))
            end.wait()

    drivers = [threading.Thread(target=drive, args=[delay_s]) for delay_s in (0, 0.5)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert refused == [f"another job has just begun to build {bucket_folder.root}"]
    assert bucket_folder.names() == []


def test_a_file_that_breaks_off_never_gets_its_name(
    store: Any, bucket_folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_UPLOAD_PAUSES_S", ())
    broken: Any = SimpleNamespace(open=lambda mode: BrokenSource(bytes(20 << 20)))
    with pytest.raises(WorkError, match="cannot be written: the disk is broken"):
        bucket_folder.publish(broken, bucket_folder.examples("train-0"))
    assert bucket_folder.names("examples") == []
    bucket_folder.publish_bytes(bucket_folder.examples("train-0"), b"whole")
    assert (store.bucket / "set" / "examples" / "train-0.tfrecord").read_bytes() == b"whole"
    assert bucket_folder.names("examples") == ["train-0.tfrecord"]
    assert bucket_folder.names("tmp") == []
