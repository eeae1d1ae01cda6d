"""The plan of the full list: minutes on one core and peak memory of --dry-run and of the plan.

    python benchmarks/plan.py --list fall11_urls_100k.txt.gz [--lines 14197122]
    python benchmarks/plan.py --list fall11_urls_100k.txt.gz --lines 9000000 --forms tgz csv parquet

The list of so many lines is made from a real part of it, with ids, URLs and (but for the largest
family) hosts that differ, about a million host families, and packed like the official download;
csv and parquet have the columns of Open Images, checksums included.
"""

import argparse
import gzip
import hashlib
import itertools
import os
import re
import subprocess
import sys
import tarfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from multiprocessing import Process
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import prepare
from pipelines.lists.url_list import host_family

_LINE = re.compile(rb"(\S+)_(\d+)\t(https?://)([a-z0-9.-]+)/(.*)")
_LICENSE = "https://creativecommons.org/licenses/by/2.0/"
_OPEN_IMAGES = pa.schema(
    [
        (name, pa.string())
        for name in (
            *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License"),
            *("AuthorProfileURL", "Author", "Title", "OriginalSize", "OriginalMD5"),
            *("Thumbnail300KURL", "Rotation"),
        )
    ]
)
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


def list_name(part: Path, count: int, form: str) -> str:
    """Of the list that is made of this part: another part's has another name."""
    return f"{count}-of-{hashlib.sha256(part.read_bytes()).hexdigest()[:12]}.{form}"


def make_list(part: Path, count: int, path: Path) -> None:
    """Writes the list in the form of its name, once and whole."""
    if path.exists():
        return
    making = path.with_name(f"making-{path.name}")
    with gzip.open(part) as file:
        real = [line.rstrip(b"\r\n") for line in file]
    if path.suffix == ".tgz":
        _pack(lines(real, count), making)
    else:
        form = pa.csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
        with form(making, _OPEN_IMAGES) as writer:
            for table in tables(lines(real, count)):
                writer.write_table(table)
    making.rename(path)


def tables(listed: Iterator[bytes]) -> Iterator[pa.Table]:
    """The lines as rows of Open Images' list, 100,000 at a time."""
    while chunk := list(itertools.islice(listed, 100_000)):
        columns: list[list[str]] = [[] for _ in _OPEN_IMAGES]
        for line in chunk:
            name, _, url = line.decode("latin-1").partition("\t")
            digest = b64encode(hashlib.md5(line).digest()).decode()
            row = (name, "train", url, f"{url}/", _LICENSE, f"{_LICENSE}{name}", 'A "B", C', name)
            row += ("1532310", digest, f"{url}.thumbnail", "0.0")
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        yield pa.table(columns, _OPEN_IMAGES)


def _pack(listed: Iterator[bytes], path: Path) -> None:
    text = path.with_suffix(".txt")
    with text.open("wb") as file:
        file.writelines(line + b"\n" for line in listed)
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
    parser.add_argument("--forms", nargs="+", choices=["tgz", "csv", "parquet"], default=["tgz"])
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
    for form in options.forms:
        made = options.folder / list_name(options.list, options.lines, form)
        # In a process of its own, or the measured ones would begin with its peak.
        maker = Process(target=make_list, args=(options.list, options.lines, made))
        maker.start()
        maker.join()
        output = options.folder / f"plan-{time.time_ns()}"
        build = [sys.executable, "-m", "pipelines", "--urls", str(made), "--output", str(output)]
        measure(f"{form} --dry-run", [*build, "--dry-run"])
        plan = [sys.executable, __file__, "--list", str(made), "--plan", str(output)]
        measure(f"{form} plan", plan)


if __name__ == "__main__":
    main()
