"""What several packages' tests share: the data beside the repository, a loopback web server."""

import datetime
import gc
import ipaddress
import logging
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pipelines.command.cli import COLLECTED_AFTER
from tests.support import REPOSITORY, SHARED_DATA
from tests.support.site import LoopbackServer, answer

# Until all tests are collected: it would walk through the modules of TensorFlow and Beam again and
# again, for two fifths of the time that collecting takes.
gc.disable()

COVERED = pytest.StashKey[dict[str, float]]()
# What `make test ARGS=…` was given is not for a make that a test starts.
for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS"):
    os.environ.pop(name, None)
GIVEN_ENVIRONMENT = dict(os.environ)
# As the commands set them for themselves, but before a test's own import wakes TensorFlow: the
# order of sums, and so a run's last bits, depend on the first two.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# A shell has what it runs in the background ignore Ctrl-C, and all that comes of it: tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Time is measured in benchmarks/: a busy machine fails no test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


# The modules that take longest, from half a minute up, by their place in tests/; and, for
# make test-quick, those that take longest without their slow tests.
LONGEST = (
    "trainer/test_main.py",
    "trainer/test_networks.py",
    "integration/test_portable.py",
    "integration/test_reproducible.py",
    "integration/test_object_store.py",
    "test_tour.py",
    "integration/test_two_workers.py",
    "evaluation/test_published_networks.py",
    "trainer/test_export_to.py",
    "trainer/test_workers.py",
    "integration/test_copies.py",
    "integration/test_loop.py",
    "evaluation/test_main.py",
    "trainer/test_models.py",
    "trainer/test_input.py",
    "trainer/test_step.py",
    "pipelines/crawl/test_http_client.py",
    "pipelines/crawl/test_web.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins, so that with pytest -n all processes end at about one time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(places)), item.path not in slow))


def pytest_collection_finish() -> None:
    """From here on garbage is collected, as in a command, and what is there by now is none."""
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER)
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "with --cov: fail where less than PERCENT of a package's lines have run"
    parser.addoption("--cov-lines", type=float, metavar="PERCENT", help=told)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """--cov-lines; pytest-cov's --cov-fail-under is about lines and branches of all packages."""
    result = yield
    measuring = session.config.pluginmanager.getplugin("_cov")
    least = session.config.getoption("cov_lines")
    if measuring and least and not hasattr(session.config, "workerinput"):
        covered = lines_covered(measuring.cov_controller.cov)
        session.config.stash[COVERED] = covered
        session.testsfailed += sum(percent < least for percent in covered.values())
    return result


def lines_covered(coverage: Any) -> dict[str, float]:
    """Per cent of each package's lines that have run, of a coverage.Coverage."""
    lines: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for path in coverage.get_data().measured_files():
        package = Path(path).relative_to(REPOSITORY).parts[0]
        _, statements, _, missing, _ = coverage.analysis2(path)
        lines[package] += len(statements)
        missed[package] += len(missing)
    return {package: 100 * (1 - missed[package] / lines[package]) for package in sorted(lines)}


@pytest.hookimpl(trylast=True)  # below the table
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    least = terminalreporter.config.getoption("cov_lines")
    for package, percent in terminalreporter.config.stash.get(COVERED, {}).items():
        said = f"{package}: {percent:.1f} % of its lines were run"
        if percent < least:
            said = f"ERROR: {said}, {least:g} % at least are wanted"
        terminalreporter.write_line(said, red=percent < least)


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


@pytest.fixture
def keep_logging_and_signals() -> Iterator[None]:
    """For tests of what sets up a whole process: afterwards both are as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


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
    """A LoopbackServer whose certificate, ``tmp_path / "pem"``, nobody vouches for."""
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
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("photos.example"),
                    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
