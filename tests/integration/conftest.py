"""Real services on this machine: a portable Beam cluster, an S3 server, a site of photos."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataset import s3
from tests.support import REPOSITORY
from tests.support.build import Build, command, wait_for
from tests.support.services import Cluster, Store
from tests.support.site import LoopbackServer, Site

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagenet-superres"
OPTIONS = [
    *("--num-shards", "4", "--splits", "train=0.5,validation=0.25,test=0.25"),
    *("--requests-per-host", "100000", "--timeout", "300", "--allow-host", "127.0.0.1"),
]


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips the test where no network namespace can be made."""
    if os.getuid() == 0 and shutil.which("ip"):
        name = f"sr-probe-{os.getpid()}"
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        if made.returncode == 0:
            return
    pytest.skip("no network namespaces: needs root and iproute2")


@pytest.fixture(scope="module")
def worker_python() -> Iterator[Path]:
    """The Python of an environment that has what a Beam worker needs and nothing else.

    It is kept between runs, and locked for the module: a job installs its package there.
    """
    key = hashlib.sha256((REPOSITORY / "setup.py").read_bytes() + sys.version.encode()).hexdigest()
    directory = CACHE / f"worker-{key[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    python, ready = directory / "env" / "bin" / "python", directory / "ready"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory / "env"], check=True)
            base = [
                requirement.partition(";")[0].strip()
                for requirement in requires("imagenet-superres") or ()
                if "extra ==" not in requirement or 'extra == "aws"' in requirement
            ]
            # As in Beam's images: boot installs the staged package without looking for more.
            tools = ["setuptools>=77", "build"]
            # uv has all of it from the environment that runs this, where that is uv's too.
            has_uv = not subprocess.run("uv --version", shell=True, capture_output=True).returncode
            pip = ["uv", "pip"] if has_uv else [python, "-m", "pip"]
            install = [*pip, "install", "--quiet", *base, *tools]
            environment = os.environ | {"VIRTUAL_ENV": str(directory / "env")}  # of uv
            subprocess.run(install, env=environment, check=True)
            ready.touch()
        yield python


@pytest.fixture(scope="module")
def running_cluster(
    worker_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("cluster"), worker_python)
    yield running
    running.close()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, without a worker of an earlier job."""
    yield running_cluster
    wait_for(lambda: not running_cluster.workers(), lambda: "a worker goes on")


class PhotoSite(Site):
    """Real photos with a list of them."""

    def __init__(self, server: LoopbackServer, photos: Sequence[Path], directory: Path) -> None:
        bodies = {f"/{number}.jpg": photo.read_bytes() for number, photo in enumerate(photos)}
        super().__init__(server, bodies)
        self.paths = list(bodies)
        self.num_bytes = sum(map(len, bodies.values()))
        paths = [*self.paths, self.paths[0], "/gone.jpg"]
        self.list = self.write_list(directory / "list.txt", paths, ["no line"])


@pytest.fixture(scope="session")
def photo_site(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhotoSite]:
    photos = sorted((shared_data / "imagenet" / "photos").glob("*.jpg"))
    photos = sorted(photos, key=lambda photo: -photo.stat().st_size)[:24]
    server = LoopbackServer()
    yield PhotoSite(server, photos, tmp_path_factory.mktemp("site"))
    server.close()


@pytest.fixture
def start_build(tmp_path: Path) -> Iterator[Callable[..., Build]]:
    """build(list, output, *options) -> Build; what still runs is killed in the end."""
    started: list[Build] = []

    def start(source: str | Path, output: str | Path, *more: str, **how: Any) -> Build:
        log = tmp_path / f"build-{len(started)}.log"
        started.append(Build(log, command(source, output, *OPTIONS, *more), **how))
        return started[-1]

    yield start
    for build in started:
        build.kill()


@pytest.fixture(scope="session")
def embedded(photo_site: PhotoSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo site's dataset as the embedded runner builds it."""
    directory = tmp_path_factory.mktemp("embedded")
    output = directory / "set"
    Build(directory / "log", command(photo_site.list, output, *OPTIONS, "--crawlers", "1")).finish()
    return output


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    running = Store(tmp_path)
    yield running
    running.service.kill()
    s3.client.cache_clear()  # this process may have asked it
