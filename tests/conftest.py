"""What several packages' tests share: the data beside the repository, a loopback web server."""

import asyncio
import datetime
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

GIVEN_ENVIRONMENT = dict(os.environ)
# As the trainer sets them for itself, but before a test's own import wakes TensorFlow: the order of
# sums, and so a run's last bits, depend on them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

# Time is measured in benchmarks/: a busy machine fails no test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED_DATA = Path(
    os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(
    body: bytes = b"",
    status: str = "200 OK",
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
) -> bytes:
    """A whole HTTP answer; ``length`` is what it claims of its body where it lies."""
    fields = {"Content-Length": str(len(body) if length is None else length), **(headers or {})}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


class LoopbackServer:
    """Answers each path with given bytes, or lets a coroutine talk; counts what was asked.

    ``routes`` maps a path, or a host's name and a path, to bytes, to several (one for each
    request, the last for ever) or to a coroutine function of the writer. An unknown path is 404.
    ``before`` is awaited first.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, bytes | list[bytes] | Talk] = {}
        self.requests: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.before: Callable[[str], Awaitable[None]] | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(context, started), daemon=True)
        self._thread.start()
        started.wait()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self, context: ssl.SSLContext | None, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # clients may leave at any time
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(context, started))

    async def _serve(self, context: ssl.SSLContext | None, started: threading.Event) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.requests[path] += 1
            self.heads.append(head)
            if self.before:
                await self.before(path)
            host = head.lower().partition(b"\r\nhost: ")[2].partition(b"\r\n")[0].decode()
            here = host.partition(":")[0] + path
            missing = answer(status="404 Not Found")
            route = self.routes.get(here, self.routes.get(path, missing))
            if isinstance(route, list):
                route = route.pop(0) if len(route) > 1 else route[0]
            if isinstance(route, bytes):
                writer.write(route)
            else:
                await route(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """What pytest was given, for processes that set TensorFlow up by themselves."""
    return GIVEN_ENVIRONMENT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no test data at {SHARED_DATA}: set SHARED_DATA to its folder")
    return SHARED_DATA


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A LoopbackServer of its own for a test."""
    running = LoopbackServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def http_answer() -> Callable[..., bytes]:
    """answer(body, status, headers, length=...)."""
    return answer


@pytest.fixture(scope="session")
def make_server() -> Callable[[], LoopbackServer]:
    """LoopbackServer, for fixtures that live longer than a test; to be closed."""
    return LoopbackServer


@pytest.fixture(scope="module")
def module_server() -> Iterator[LoopbackServer]:
    """A LoopbackServer for all tests of a module."""
    running = LoopbackServer()
    yield running
    running.close()


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., tuple[str, list[str]]]:
    """browse(page, *options): the page's document and what it logged on its console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium: install it by apt-get install chromium")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    # No name resolves: whatever the page would fetch is an error on its console.
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]

    def browse(page: Path, *options: str) -> tuple[str, list[str]]:
        result = subprocess.run(
            [*command, *options, f"file://{page}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return result.stdout, re.findall(r"CONSOLE.*", result.stderr)

    return browse


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[LoopbackServer]:
    """A LoopbackServer whose certificate nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "pem"))
    running = LoopbackServer(context)
    yield running
    running.close()


def self_signed(path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
