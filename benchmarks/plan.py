"""The plan of the full list: minutes on one core and peak memory of --dry-run and of the plan.

    python benchmarks/plan.py --list fall11_urls_100k.txt.gz [--lines 14197122]

The list of so many lines is made from a real part of it, with ids, URLs and (but for the largest
family) hosts that differ, about a million host families, and packed like the official download.
"""

import argparse
import gzip
import itertools
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import prepare
from pipelines.lists.url_list import host_family

_LINE = re.compile(rb"(\S+)_(\d+)\t(https?://)([a-z0-9.-]+)/(.*)")
_LARGEST = "flickr.com"
# So many times as many families as the real part has; longer lists meet ever fewer new hosts.
_FAMILIES = 40


def lines(part: Sequence[bytes], count: int) -> Iterator[bytes]:
    """The real lines again and again, each time others."""
    copies = (_copy(line, number) for number in itertools.count() for line in part)
    return itertools.islice(copies, count)


def _copy(line: bytes, number: int) -> bytes:
    match = _LINE.fullmatch(line)
    if not number or not match:
        return line if not number else b"%d_%s" % (number, line)
    name, index, scheme, host, path = match.groups()
    family = host_family(host.decode())
    if family != _LARGEST and number % _FAMILIES and len(family) < 50:
        label, dot, suffix = family.partition(".")
        other = f"{label}-{number % _FAMILIES}{dot}{suffix}"
        host = host.removesuffix(family.encode()) + other.encode()
    return b"%s_%d\t%s%s/%d/%s" % (
        name,
        int(index) + number * 1_000_000,
        scheme,
        host,
        number,
        path,
    )


def make_list(part: Path, count: int, path: Path) -> None:
    """Writes the list as a .tgz, once."""
    if path.exists():
        return
    with gzip.open(part) as file:
        real = [line.rstrip(b"\r\n") for line in file]
    text = path.with_suffix(".txt")
    with text.open("wb") as file:
        file.writelines(line + b"\n" for line in lines(real, count))
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        archive.add(text, text.name)
    text.unlink()


def measure(title: str, command: Sequence[str]) -> None:
    """Runs a command on one core and prints what it took."""
    start = time.monotonic()
    process = subprocess.Popen(["taskset", "-c", "0", *command])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{title}: status {os.waitstatus_to_exitcode(status)}")
    print(
        f"{title}: {(time.monotonic() - start) / 60:.2f} min, "
        f"{(used.ru_utime + used.ru_stime) / 60:.2f} min of CPU, "
        f"peak {used.ru_maxrss / 1024:,.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Makes the list and prints one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, required=True, help="a real part of the list, .gz")
    parser.add_argument("--lines", type=int, default=14_197_122)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/benchmark-plan"))
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan = prepare(
            DatasetFolder(str(options.plan)), DatasetOptions(), Source(str(options.list))
        )
        print(f"{plan.source['lines']:,} lines in {len(plan.shards):,} shards")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    made = options.folder / f"{options.lines}.tgz"
    make_list(options.list, options.lines, made)
    output = options.folder / f"plan-{time.time_ns()}"
    build = [sys.executable, "-m", "pipelines", "--urls", str(made), "--output", str(output)]
    measure("--dry-run", [*build, "--dry-run"])
    measure("plan", [sys.executable, __file__, "--list", str(made), "--plan", str(output)])


if __name__ == "__main__":
    main()
