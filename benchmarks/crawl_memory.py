"""Peak memory of a crawler and of its decoder, by the number of URLs in one shard.

    python -m benchmarks.crawl_memory [--urls 1500 3000]

Every URL is a JPEG of 2 MB, 256 are in flight; each run keeps its originals on disk until it ends
(6 GB for 3,000). That the figures do not grow with the shard is what counts. Needs nginx on PATH.
"""

import argparse
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.crawl import nginx, tree

_PICTURE_BYTES = 2_000_000
# Every path is the one picture.
_LOCATIONS = "location = /robots.txt { return 404; } location / { rewrite ^ /picture.jpg break; }"
_HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]


def picture() -> bytes:
    """Noise as a JPEG of about 2 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (1_200, 1_200, 3), np.uint8)
    for quality in range(95, 0, -1):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=quality)
        if file.tell() <= _PICTURE_BYTES:
            break
    return file.getvalue()


def peaks_mb(home: Path, urls: int, port: int) -> dict[str, float]:
    """Builds a dataset of one shard; the peak resident set of each kind of process."""
    listed, output = home / "list.tsv", home / "output"
    listed.write_text(
        "".join(f"n00000001_{n}\thttp://{_HOSTS[n % 8]}:{port}/{n}.jpg\n" for n in range(urls))
    )
    allowed = [part for host in _HOSTS for part in ("--allow-host", host)]
    command = [
        *(sys.executable, "-m", "pipelines", "--urls", str(listed), "--output", str(output)),
        *("--num-shards", "1", "--splits", "train=1", "--crawlers", "1", "--concurrency", "256"),
        *("--requests-per-host", "100000", *allowed),
    ]
    found: dict[str, float] = {}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
        while process.poll() is None:
            for pid in tree(process.pid):
                with contextlib.suppress(OSError, IndexError):
                    name = Path(f"/proc/{pid}/cmdline").read_text()
                    status = Path(f"/proc/{pid}/status").read_text()
                    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                    kind = "decoder" if "decoder" in name else "crawler"
                    found[kind] = max(peak, found.get(kind, 0.0))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit((home / "log").read_text()[-3000:])
    shutil.rmtree(output)
    return found


def main() -> None:
    """Prints one line a shard size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--urls", type=int, nargs="*", default=[1_500, 3_000])
    parser.add_argument("--folder", type=Path, help="for the datasets, by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "picture.jpg").write_bytes(picture())
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        with nginx(home, port, _LOCATIONS):
            for urls in options.urls:
                start = time.monotonic()
                found = peaks_mb(home, urls, port)
                figures = ", ".join(f"{kind} {mb:.0f} MiB" for kind, mb in sorted(found.items()))
                print(f"{urls:,} URLs: {figures}, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
