"""Builds killed at random moments: what each repeats, and that it ends with the same bytes.

    python -m benchmarks.kill_build [--moments 30] [--seed 0] [--pictures 240] [--folder DIR]

Serves crops of shipped photographs on loopback, some of them answered late, and builds them once
undisturbed. Then, for each moment: the same command is begun in a new folder, the driver, one of
its processes or all of them are killed by SIGKILL at a random moment, and the same command is given
again until the dataset is complete. Each build has to end with the bytes of the undisturbed one,
must not ask again for a picture of a shard that was fetched before the kill, and must leave nothing
that is not the dataset's. Ends with status 1 where one does not. Linux only: reads /proc.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import skimage.data
from PIL import Image

from benchmarks.crawl import tree
from pipelines.dataset.folder import DatasetFolder

_REPOSITORY = Path(__file__).resolve().parents[1]
_KINDS = ("driver", "worker", "everything")
_MOST_RUNS = 5
_ROOT = {"build.json", "plan", "fetched", "examples", "outcomes", "dataset.json"}


class Site:
    """Pictures on loopback, each answered after up to ``delay_s``; counts what is asked."""

    def __init__(self, pictures: int, delay_s: float = 0.3) -> None:
        self.requests: Counter[str] = Counter()
        bodies = {f"/{number}.png": body for number, body in enumerate(_crops(pictures))}
        delays = random.Random(1)
        delay = {path: delays.uniform(0, delay_s) for path in bodies}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = bodies.get(self.path)
                site.requests[self.path] += 1
                time.sleep(delay.get(self.path, 0))
                with contextlib.suppress(ConnectionError):
                    self.send_response(200 if body else 404)
                    self.send_header("Content-Length", str(len(body or b"")))
                    self.end_headers()
                    self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        self.lines = [f"n01440764_{number}\t{address}{path}" for number, path in enumerate(bodies)]

    def asked(self) -> Counter[str]:
        """How often each picture was asked for."""
        return Counter({path: n for path, n in self.requests.items() if path != "/robots.txt"})

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


def _crops(count: int) -> Iterator[bytes]:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in names]
    choice = random.Random(2)
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = (choice.randrange(side - 64) for side in photo.size)
        file = io.BytesIO()
        photo.crop((left, top, left + 64, top + 64)).save(file, "PNG")
        yield file.getvalue()


@dataclass(frozen=True)
class Moment:
    """What one kill led to."""

    at_s: float
    kind: str
    fetched: int
    """Shards that were fetched by then."""
    asked: int
    """Pictures asked for by then."""
    repeated: int
    """Requests beyond one a picture, in the end."""
    runs: int
    """Of the command, the killed one among them."""
    fault: str
    """Empty where all is well."""


def command(listed: Path, output: Path, *, crawlers: int) -> list[str]:
    """What is killed."""
    return [
        *(sys.executable, "-m", "pipelines", "--urls", str(listed), "--output", str(output)),
        *("--crop-size", "32", "--scales", "2,3", "--num-shards", "12"),
        *("--splits", "train=0.6,validation=0.2,test=0.2", "--concurrency", "8"),
        *("--requests-per-host", "100000", "--allow-host", "127.0.0.1"),
        *("--crawlers", str(crawlers)),
    ]


class Trial:
    """Undisturbed and killed builds of one list."""

    def __init__(self, site: Site, home: Path) -> None:
        self._site, self._home = site, home
        self.list = home / "list.txt"
        self.list.write_text("\n".join(site.lines) + "\n")
        undisturbed = home / "undisturbed"
        self._start(undisturbed).wait()
        self.expected = content(undisturbed)
        if fault := leftovers(undisturbed):
            raise SystemExit(f"the undisturbed build failed: {fault}\n{self._log(undisturbed)}")

    def _start(self, output: Path) -> subprocess.Popen[bytes]:
        with output.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                command(self.list, output, crawlers=2),
                cwd=_REPOSITORY,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, output: Path) -> str:
        return output.with_suffix(".log").read_text(errors="replace")[-3000:]

    def kill(self, kind: str, choice: random.Random) -> Moment:
        """Begins a build, kills it at a random moment, and ends it by the same command."""
        output = Path(tempfile.mkdtemp(dir=self._home)) / "set"
        before = self._site.asked()
        begun = time.monotonic()
        process = self._start(output)
        self._wait(process, before.total(), choice)
        at_s = time.monotonic() - begun
        _kill(process, kind, choice)
        if kind != "worker":
            process.wait()
        # In this order: beside a dead worker the build goes on.
        finished = _paths_of_fetched(output)
        fetched = len(DatasetFolder(str(output)).attempts())
        asked = self._site.asked() - before
        runs = 1
        while process.wait() and runs < _MOST_RUNS:
            process = self._start(output)
            runs += 1
        every = self._site.asked() - before
        fault = leftovers(output)
        if process.returncode:
            fault = f"status {process.returncode}: {self._log(output)}"
        elif content(output) != self.expected:
            fault = "other bytes"
        elif again := [path for path in finished if every[path] > asked[path]]:
            fault = f"{len(again)} pictures of fetched shards were asked for again"
        elif kind == "worker" and runs > 1:
            fault = "the driver did not go on by itself"
        if not fault:
            shutil.rmtree(output.parent)
        repeated = sum(count - 1 for count in every.values())
        return Moment(at_s, kind, fetched, asked.total(), repeated, runs, fault)

    def _wait(self, process: subprocess.Popen[bytes], before: int, choice: random.Random) -> None:
        """Until a random part of the pictures is asked for; seldom only starts, or all are."""
        part = choice.uniform(-0.15, 1.15)
        wanted = before + min(max(part, 0), 1) * len(self._site.lines)
        while part > 0 and self._site.asked().total() < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(choice.uniform(0, 0.3 if 0 < part < 1 else 3))


def _kill(process: subprocess.Popen[bytes], kind: str, choice: random.Random) -> None:
    if kind == "everything":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    victims = [process.pid]
    while kind == "worker" and (victims := sorted({*tree(process.pid)} - {process.pid})) == []:
        if process.poll() is not None:
            return
        time.sleep(0.02)  # it has not started one yet
    with contextlib.suppress(ProcessLookupError):
        os.kill(choice.choice(victims), signal.SIGKILL)


def _paths_of_fetched(output: Path) -> list[str]:
    """The paths of all pictures in shards whose fetching is committed."""
    folder = DatasetFolder(str(output))
    lines = [Path(folder.plan(shard)).read_text().split() for shard in folder.attempts()]
    return [f"/{url.rpartition('/')[2]}" for parts in lines for url in parts[1::2]]


def content(output: Path) -> dict[str, object]:
    """sha256 of every file of examples/, and dataset.json without its versions."""
    if not (output / "dataset.json").exists():
        return {}
    found: dict[str, object] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "examples").iterdir())
    }
    manifest = json.loads((output / "dataset.json").read_text())
    return found | {"dataset.json": manifest | {"versions": None}}


def leftovers(output: Path) -> str:
    """What does not belong into a finished folder, in words; empty where nothing is."""
    if not output.is_dir():
        return "no folder"
    names = {path.name for path in output.iterdir()}
    if names != _ROOT:
        return f"in the folder: {sorted(names ^ _ROOT)} too many or missing"
    folder = DatasetFolder(str(output))
    attempts = folder.attempts()
    kept = {
        Path(path).name
        for first, *_ in attempts.values()
        for path in (first.originals, first.table)
    }
    plan = {f"{shard}.tsv" for shard in attempts} | {"shards.json"}
    foreign = (set(folder.names("fetched")) - kept) | (set(folder.names("plan")) ^ plan)
    if len(foreign) or any(len(every) > 1 for every in attempts.values()):
        return f"in fetched/ or plan/: {sorted(foreign)}"
    return ""


def run(moments: int, seed: int, pictures: int, home: Path) -> Iterator[Moment]:
    """The moments, one after another, each kind in turn."""
    site = Site(pictures)
    choice = random.Random(seed)
    try:
        trial = Trial(site, home)
        for number in range(moments):
            yield trial.kill(_KINDS[number % len(_KINDS)], choice)
    finally:
        site.close()


def main() -> None:
    """Prints a line a moment, and what went wrong last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument(
        "--folder", type=Path, help="where the datasets go; without: a temporary one"
    )
    options = parser.parse_args()
    faults = []
    with contextlib.ExitStack() as stack:
        home = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        print("moment   at s  killed       shards fetched  pictures asked  repeated  runs  result")
        moments = run(options.moments, options.seed, options.pictures, home)
        for number, moment in enumerate(moments, 1):
            print(
                f"{number:6} {moment.at_s:6.2f}  {moment.kind:11}{moment.fetched:16}"
                f"{moment.asked:16}{moment.repeated:10}{moment.runs:6}  "
                f"{moment.fault.splitlines()[0] if moment.fault else 'same bytes'}",
                flush=True,
            )
            if moment.fault:
                faults.append(f"moment {number}: {moment.fault}")
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
