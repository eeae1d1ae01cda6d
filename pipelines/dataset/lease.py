"""One build at a time in a dataset folder."""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.folder import DatasetFolder, store_errors

_logger = logging.getLogger(__name__)

LEASE_S = 60.0
_RENEW_S = 10.0
_GIVE_UP_S = 10.0


class Lease:
    """One build at a time: a file that names the job, renewed by a thread of the driver.

    Another job may take it over only after it ran out and no crawler reports progress any more,
    or when the job was one of this host and boot whose process is gone and took its workers with
    it. ``outlives_driver``: it does not, but runs on a cluster to its end, dataset.json. Two jobs
    at once would write the same bytes; the lease keeps hosts from being asked twice as fast.
    """

    def __init__(self, folder: DatasetFolder, *, outlives_driver: bool = False) -> None:
        self._folder, self._outlives_driver = folder, outlives_driver
        self._path = folder.path("lease.json")
        self._job = uuid.uuid4().hex
        self._made: list[Path] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        root = Path(self._folder.root)
        if self._folder.is_local:
            self._made = [path for path in (root, *root.parents) if not path.exists()]
        try:
            with store_errors(WorkError):
                self._take()
        except WorkError as error:  # before any work
            raise UsageError(str(error)) from error
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

    def _release(self) -> None:
        if self._is_ours():
            self._folder.delete([self._path])

    def _take(self) -> None:
        if self._folder.exists(self._path):
            holder = self._folder.read_json(self._path)
            expires = holder["expires"]
            is_complete = self._folder.exists(self._folder.manifest)
            if not is_complete:
                expires = max(expires, self._folder.last_change("progress") + LEASE_S)
            is_gone = _is_dead(holder) and (is_complete or not holder["outlives_driver"])
            if expires > time.time() and not is_gone:
                raise UsageError(
                    f"{self._folder.root} is being built by process {holder['pid']} on "
                    f"{holder['host']} (job {holder['job']}); if that job is gone, the folder is "
                    f"free in {expires - time.time():.0f} s"
                )
        self._write()
        if not self._is_ours():
            raise UsageError(f"another job has just begun to build {self._folder.root}")

    def _write(self) -> None:
        lease = {
            "job": self._job,
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": os.getpid(),
            "outlives_driver": self._outlives_driver,
            "expires": time.time() + LEASE_S,
        }
        self._folder.publish_json(self._path, lease)

    def _is_ours(self) -> bool:
        if not self._folder.exists(self._path):
            return False
        return bool(self._folder.read_json(self._path)["job"] == self._job)

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_S):
            try:
                if not self._is_ours():
                    _logger.error("the lease of %s was taken by another job", self._folder.root)
                    return
                self._write()
            except Exception as error:  # a store may fail for a moment; the next turn is soon
                _logger.warning("the lease of %s was not renewed: %s", self._folder.root, error)


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
