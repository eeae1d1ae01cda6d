"""The whole build against img2dataset, on loopback, in one run: CPU a URL, wall time, memory.

    python benchmarks/crawl.py --photos DIR --peer PYTHON [--pictures 24000] [--runs 3]

``--photos`` holds some hundred real photographs; the pictures served are crops and mirrors of
them, moved round their edges, so that hardly one is known for a copy. ``--peer`` is the
interpreter of an environment of its own that has img2dataset (pip install img2dataset). Needs
nginx on PATH.

good: every URL is alive. Ours does all of a build (plan, originals, HR and three LRs, outcomes),
the peer downloads and resizes. dead: 8,000 URLs of 800 hosts, 25 % good, 45 % 404, 15 % refused,
10 % hanging until the time limit of 10 s, 5 % without an address. gone: 24,000 URLs of which all
but one end as 404, of 4 and of 2,400 hosts; and 40 such URLs, which take what start-up takes.

CPU is that of all processes of a command, taken by the kernel; the server's is not in it.
"""

import argparse
import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

_PR_SET_CHILD_SUBREAPER = 36
_TIMEOUT_S = 10
_DEAD_URLS, _DEAD_HOSTS = 8_000, 800


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Of all its processes together."""


def make_pictures(photos: Path, folder: Path, count: int) -> None:
    """Fills a folder with ``count`` different JPEGs made from photographs, once."""
    if len(list(folder.glob("*.jpg"))) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sources = [path for path in sorted(photos.glob("*.jpg")) if _is_usable(path)]
    shares = [(sources[i % len(sources)], folder / f"{i:06}.jpg", i) for i in range(count)]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_make_picture, *zip(*shares, strict=True), chunksize=100):
            pass


def _is_usable(path: Path) -> bool:
    with Image.open(path) as image:
        return min(image.size) >= 300 and image.mode == "RGB"


def _make_picture(source: Path, target: Path, number: int) -> None:
    choice = random.Random(number)
    with Image.open(source) as image:
        left, top = (choice.randrange(1 + side // 10) for side in image.size)
        picture = image.crop((left, top, image.width, image.height))
        picture = ImageOps.mirror(picture) if choice.random() < 0.5 else picture
        picture = ImageChops.offset(picture, *(choice.randrange(side) for side in picture.size))
        picture.save(target, quality=choice.randrange(88, 96))


@contextlib.contextmanager
def nginx(folder: Path, port: int, locations: str = "") -> Iterator[None]:
    """Serves a folder on all loopback addresses, with more of its configuration if wanted."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "nginx.conf")
        config.write_text(
            f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log crit;\n"
            "user root; events { worker_connections 4096; }\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 100000;\n"
            f"types {{ image/jpeg jpg; }}\n"
            f"server {{ listen 0.0.0.0:{port} backlog=4096; root {folder}; {locations} }} }}\n"
        )
        server = subprocess.Popen(["nginx", "-c", str(config), "-e", f"{home}/error.log"])
        try:
            _wait_for(port)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise SystemExit("nginx does not answer")


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def measure(command: Sequence[str]) -> Cost:
    """Runs a command and waits for it and for whatever it leaves behind."""
    before, others = _children_cpu_s(), set(_children(os.getpid()))
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = _watch_memory(process)
        wall = time.monotonic() - start
        if process.returncode:
            log.seek(0)
            raise SystemExit(log.read()[-3000:].decode(errors="replace"))
    for orphan in set(_children(os.getpid())) - others:
        os.waitpid(orphan, 0)
    return Cost(wall, _children_cpu_s() - before, peak)


def _watch_memory(process: subprocess.Popen[bytes]) -> float:
    """Waits for a process; the greatest sum of the resident sets of its tree, in MB."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_resident_mb(pid) for pid in tree(process.pid)))
        time.sleep(0.2)
    return peak


def tree(pid: int) -> Iterator[int]:
    """A process and all that come from it."""
    yield pid
    for child in _children(pid):
        yield from tree(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    return 0.0


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(urls: Sequence[str], output: Path, hosts: Sequence[str]) -> list[str]:
    """The command of a whole build."""
    listed = output.with_suffix(".tsv")
    listed.write_text("".join(f"n00000001_{i}\t{url}\n" for i, url in enumerate(urls)))
    allowed = [part for host in hosts for part in ("--allow-host", host)]
    return [
        *(sys.executable, "-m", "pipelines", "--urls", str(listed), "--output", str(output)),
        *("--timeout", str(_TIMEOUT_S), "--requests-per-host", "100000", *allowed),
    ]


def peer(python: str, urls: Sequence[str], output: Path, threads: int) -> list[str]:
    """img2dataset's command: download, 256 pixels with a border, WebDataset."""
    listed = output.with_suffix(".txt")
    listed.write_text("".join(f"{url}\n" for url in urls))
    return [
        *(str(Path(python).parent / "img2dataset"), f"--url_list={listed}", "--input_format=txt"),
        *(f"--output_folder={output}", "--output_format=webdataset", "--image_size=256"),
        *("--resize_mode=border", "--processes_count=2", f"--thread_count={threads}"),
        *(f"--timeout={_TIMEOUT_S}", "--number_sample_per_shard=1000"),
    ]


def compare(
    title: str, options: argparse.Namespace, urls: Sequence[str], hosts: Sequence[str]
) -> None:
    """Runs both in turn and prints the medians, and those of their ratios."""
    costs: dict[str, list[Cost]] = {}
    for run in range(options.runs):
        jobs = {"ours": lambda path: ours(urls, path, hosts)}
        for threads in options.threads:
            name = f"img2dataset x {threads}"
            jobs[name] = lambda path, n=threads: peer(options.peer, urls, path, n)
        for name, command in jobs.items():
            output = options.folder / "output"
            shutil.rmtree(output, ignore_errors=True)
            cost = measure(command(output))
            costs.setdefault(name, []).append(cost)
            print(f"  {title} {run + 1}/{options.runs} {name}: {cost}", file=sys.stderr)
    best = min(
        (name for name in costs if name != "ours"),
        key=lambda name: statistics.median(cost.wall_s for cost in costs[name]),
        default="ours",
    )
    print(f"\n{title}, {len(urls):,} URLs, median of {options.runs}, ratios within a run")
    print(f"{'':22}{'wall s':>9}{'CPU ms/URL':>12}{'peak MB':>9}{'wall':>8}{'CPU':>7}")
    for name in costs:
        wall, cpu, peak = _medians((cost.wall_s, cost.cpu_s, cost.peak_mb) for cost in costs[name])
        # A busy host slows down both of a run: only their ratio says something.
        wall_ratio, cpu_ratio = _medians(
            (cost.wall_s / base.wall_s, cost.cpu_s / base.cpu_s)
            for cost, base in zip(costs[name], costs[best], strict=True)
        )
        print(
            f"{name:22}{wall:9.1f}{1e3 * cpu / len(urls):12.2f}{peak:9.0f}"
            f"{wall_ratio:8.2f}{cpu_ratio:7.2f}"
        )


def _medians(rows: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """Of each column."""
    return tuple(map(statistics.median, zip(*rows, strict=True)))


def dead_urls(pictures: int, port: int, hole: int) -> tuple[list[str], list[str]]:
    """The URLs of the workload dead, and their hosts."""
    choice = random.Random(0)
    hosts = [f"127.0.{i // 200 + 1}.{i % 200 + 1}" for i in range(_DEAD_HOSTS)]
    urls = []
    for number in range(_DEAD_URLS):
        host, kind = hosts[number % _DEAD_HOSTS], choice.random()
        if kind < 0.25:
            urls.append(f"http://{host}:{port}/{number % pictures:06}.jpg")
        elif kind < 0.70:
            urls.append(f"http://{host}:{port}/gone/{number}.jpg")
        elif kind < 0.85:
            urls.append(f"http://{host}:9/{number}.jpg")
        elif kind < 0.95:
            urls.append(f"http://{host}:{hole}/{number}.jpg")
        else:
            urls.append(f"http://host-{number % _DEAD_HOSTS}.invalid/{number}.jpg")
    return urls, hosts


def gone_urls(count: int, host_count: int, port: int) -> tuple[list[str], list[str]]:
    """One URL of a picture, without which a build fails, and else those of 404s; their hosts."""
    hosts = [f"127.1.{i // 200 + 1}.{i % 200 + 1}" for i in range(host_count)]
    gone = [f"http://{hosts[i % host_count]}:{port}/gone/{i}.jpg" for i in range(1, count)]
    return [f"http://{hosts[0]}:{port}/000000.jpg", *gone], hosts


def main() -> None:
    """Runs the workloads and prints a table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="real photographs, *.jpg")
    parser.add_argument("--peer", help="interpreter of the environment with img2dataset")
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[8], help="of the peer")
    parser.add_argument("--workload", choices=("good", "dead", "both", "gone"), default="both")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-crawl"))
    parser.add_argument("--port", type=int, default=8912)
    options = parser.parse_args()
    options.threads = options.threads if options.peer else []
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pictures = options.folder / "pictures"
    make_pictures(options.photos, pictures, options.pictures)
    with nginx(pictures, options.port), black_hole() as hole:
        address = f"http://127.0.0.1:{options.port}"
        urls = [f"{address}/{number:06}.jpg" for number in range(options.pictures)]
        if options.workload == "gone":
            for count, host_count in ((40, 4), (24_000, 4), (24_000, 2_400)):
                title = f"gone, {host_count:,} hosts"
                compare(title, options, *gone_urls(count, host_count, options.port))
            return
        if options.workload != "dead":
            compare("good", options, urls, ["127.0.0.1"])
        if options.workload != "good":
            compare("dead", options, *dead_urls(options.pictures, options.port, hole))


if __name__ == "__main__":
    main()
