"""A build whose network is gone for a while: packets vanish, in both directions."""

import io
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from pipelines.dataset.manifest import Manifest
from tests.support import REPOSITORY
from tests.support.build import command
from tests.support.site import answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8, and its backlog"),
]
HOSTS = [f"127.0.7.{number}" for number in range(1, 41)]
URLS_A_HOST = 10
MISSING = answer(status="404 Not Found")


def picture_of(host: str) -> bytes:
    """An answer with a picture like no other host's."""
    number = int(host.rpartition(".")[2])
    file = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).rotate(9 * number).save(file, "JPEG")
    return answer(file.getvalue())


class Web:
    """One server for all hosts. Without ``there`` their connections are not even refused."""

    def __init__(self, gone_after: int) -> None:
        self._left = gone_after
        self._pictures = {host: picture_of(host) for host in HOSTS}
        self.there = threading.Event()
        self.there.set()
        self._listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._left -= 1
            if self._left == 0:
                self.there.clear()
                self._listener.listen(0)  # a full queue drops what comes
                self.there.wait()
                self._listener.listen(1024)
            try:
                with connection:
                    connection.settimeout(5)
                    head = connection.recv(65_536)
                    picture = self._pictures[connection.getsockname()[0]]
                    connection.sendall(picture if b"GET /0.jpg" in head else MISSING)
            except OSError:  # the client gave up
                pass


def test_an_outage_is_waited_out_and_leaves_no_trace(tmp_path: Path) -> None:
    web = Web(gone_after=100)
    urls = [f"{host}:{web.port}/{n}.jpg" for n in range(URLS_A_HOST) for host in HOSTS]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"n01440764_{n}\thttp://{url}\n" for n, url in enumerate(urls)))
    options = [
        # A second crawler, begun later, would know of no host that has answered.
        *("--crawlers", "1", "--num-shards", "1", "--timeout", "18"),
        *("--requests-per-host", "10000"),
        *(part for host in HOSTS for part in ("--allow-host", host)),
    ]
    given = command(listed, tmp_path / "set", *options)
    with subprocess.Popen(given, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        said = []
        for line in build.stderr:
            said.append(line)
            if "the network seems to be gone: waiting" in line:
                assert not web.there.is_set()
                web.there.set()
    text = "".join(said)
    assert build.returncode == 0, text
    # The progress, logged every 30 s, may tell of it as well.
    told = [line for line in said if "WARNING pipelines.build." in line]
    assert len(told) == 2, text
    assert "the network seems to be gone" in told[0]
    assert "the network is back" in told[1]
    outcomes = Manifest.load(str(tmp_path / "set")).outcomes
    assert outcomes.keys() <= {"ok", "duplicate_image", "http_client_error"}
    assert outcomes["http_client_error"] == len(HOSTS) * (URLS_A_HOST - 1)
