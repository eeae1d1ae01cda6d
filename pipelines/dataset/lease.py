"""One build at a time in a dataset folder."""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.command.cli import Interrupted, UsageError, WorkError
from pipelines.command.stores import store_errors
from pipelines.dataset.folder import DatasetFolder

_logger = logging.getLogger(__name__)

LEASE_S = 60.0
_RENEW_S = 10.0
_GIVE_UP_S = 10.0
_SETTLE_S = 2.0


def holder_of(folder: DatasetFolder) -> str:
    """Who builds in a folder, as far as its lease tells: 'process 71 on a-host', or nobody, ''."""
    path = folder.path("lease.json")
    if not folder.exists(path):
        return ""
    holder = folder.read_json(path)
    if _is_dead(holder) and not holder["outlives_driver"]:
        return ""
    return _named(holder) if _expires(folder, holder) > time.time() else ""


class Lease:
    """One build at a time: a file that names the job, renewed by a thread of the driver.

    A lease is free when it has expired and no crawler reports progress, or when its driver died on
    this machine. ``outlives_driver`` says that the job runs on a cluster, where it goes on without
    its driver: then only expiry counts, or what the cluster says. Two jobs at once would write the
    same bytes. The lease keeps them from asking hosts twice as fast.

    ``still_runs`` is asked about the job that a lease remembers, and gives what there is to say of
    one that is seen to run, nothing of one that is seen to have ended, None where nobody can tell.

    A driver that finds another job's name in its lease stops: the block ends with Interrupted.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        *,
        outlives_driver: bool = False,
        still_runs: Callable[[Any], str | None] = lambda record: None,
    ) -> None:
        self._folder, self._outlives_driver = folder, outlives_driver
        self._still_runs = still_runs
        self._remembered: Mapping[str, str] | None = None
        self._path = folder.path("lease.json")
        self._job = uuid.uuid4().hex
        self._made: list[Path] = []
        self._stop = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        root = Path(self._folder.root)
        if self._folder.is_local:
            self._made = [path for path in (root, *root.parents) if not path.exists()]
        try:
            with store_errors(WorkError), self._alone():
                self._take()
        except WorkError as error:  # before any work
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"{root} cannot be written: {error.strerror or error}") from None
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_GIVE_UP_S)
        with contextlib.suppress(Exception):  # the store's, or no answer: then it runs out
            self._folder.within(_GIVE_UP_S, self._release)
        for folder in self._made:  # nothing else was written: refused input leaves no trace
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self._is_lost:
            # No WorkError: a command that a signal ends tells of nothing else but an Interrupted.
            raise Interrupted(
                f"another job has taken over {self._folder.root}, and this one has stopped"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other drivers on this file system from looking at the lease and taking it as well.

        An object store has no lock.
        """
        if not self._folder.is_local:
            yield
            return
        Path(self._folder.root).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder.root, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # NFS locks no folder
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def remember(self, job: Mapping[str, str] | None) -> None:
        """Names the job of a cluster in the lease; None once that is seen to have ended.

        Left with a job that is not, the lease stays, for the next driver to ask about it.
        """
        self._remembered = job
        if job:
            self._write()

    def _release(self) -> None:
        if self._holder() == self._job:
            if self._remembered:
                self._write(lasts_s=0.0)
            else:
                self._folder.delete([self._path])

    def _take(self) -> None:
        if self._folder.exists(self._path):
            self._refuse_held(self._folder.read_json(self._path))
        self._write()
        if not self._folder.is_local:
            # Others may have seen it free as well. The last one to write has it.
            time.sleep(_SETTLE_S)
        if self._holder() != self._job:
            raise UsageError(f"another job has just begun to build {self._folder.root}")

    def _refuse_held(self, holder: dict[str, Any]) -> None:
        """Raises UsageError where the job of a lease goes on."""
        root, is_dead = self._folder.root, _is_dead(holder)
        is_complete = self._folder.is_complete
        if is_dead and (is_complete or not holder["outlives_driver"]):
            return
        expires = holder["expires"]
        if not is_complete:
            remembered = holder.get("remembered")
            if remembered and (is_dead or expires <= time.time()):
                seen = self._still_runs(remembered)
                if seen:
                    raise UsageError(f"{root}: {seen}")
                if seen is not None:
                    return
            expires = _expires(self._folder, holder)
        if expires > time.time():
            raise UsageError(
                f"{root} is being built by {_named(holder)} (job {holder['job']}); if that job is "
                f"gone, the folder is free in {expires - time.time():.0f} s"
            )

    def _write(self, lasts_s: float = LEASE_S) -> None:
        lease = {
            "job": self._job,
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": os.getpid(),
            "outlives_driver": self._outlives_driver,
            "expires": time.time() + lasts_s,
            "remembered": self._remembered,
        }
        self._folder.publish_json(self._path, lease)

    def _holder(self) -> str | None:
        """The job that the lease names."""
        if not self._folder.exists(self._path):
            return None
        return str(self._folder.read_json(self._path)["job"])

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_S):
            try:
                if self._holder() not in (self._job, None):
                    self._is_lost = True
                    # As Ctrl-C does it: whatever the main thread waits for ends.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                self._write()
            except Exception as error:  # a store may fail for a moment; the next turn is soon
                _logger.warning("the lease of %s was not renewed: %s", self._folder.root, error)


def _named(holder: Mapping[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}"


def _expires(folder: DatasetFolder, holder: Mapping[str, Any]) -> float:
    """When an unfinished folder's lease runs out: crawlers that report may go on without it."""
    return max(float(holder["expires"]), folder.last_change("progress") + LEASE_S)


def _is_dead(holder: dict[str, Any]) -> bool:
    if (holder["host"], holder["boot"]) != (socket.gethostname(), _boot_id()):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
