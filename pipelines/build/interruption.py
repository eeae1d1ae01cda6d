"""Ends the driver's wait for a job that will not end by itself."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Self

import grpc

WORKER = "pipelines.build.worker"
"""The module that a worker process runs."""
_WORKER_THREAD = "run_worker"
_NOTICED_BY_ITSELF_S = 5.0


class Interruption:
    """While its block runs, other threads can raise an exception in the main thread.

    It does so itself when a worker process of the embedded runner dies. The runner notices that
    only if it had reached the worker. For one that dies while it starts, and at times for another,
    it would wait forever.
    """

    def __init__(self) -> None:
        self.deaths: list[RuntimeError] = []
        """Of worker processes."""
        # Plain values: a signal's handler must wait for no lock.
        self._is_running = False
        self._reason: Exception | None = None

    def __enter__(self) -> Self:
        # For good: a late signal must not end the process.
        signal.signal(signal.SIGUSR1, self._raise)
        self._previous_hook = threading.excepthook
        threading.excepthook = self._note_death
        self._is_running = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_running = False
        threading.excepthook = self._previous_hook

    def interrupt(self, reason: Exception) -> None:
        """Raises the exception in the main thread, if the block still runs there."""
        if self._is_running:
            self._reason = self._reason or reason
            # A true signal: no other thing ends the main thread's wait for a lock.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            _end_workers()

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        if self._is_running and self._reason:
            self._is_running = False
            raise self._reason

    def _note_death(self, arguments: threading.ExceptHookArgs) -> None:
        """Stands for threading.excepthook: the runner has a thread for each worker process."""
        if isinstance(arguments.exc_value, grpc.RpcError):
            pass  # a channel to a worker that died
        elif arguments.thread is None or arguments.thread.name != _WORKER_THREAD:
            self._previous_hook(arguments)
        elif self._is_running:
            self.deaths.append(RuntimeError(f"a worker process died: {arguments.exc_value}"))
            timer = threading.Timer(_NOTICED_BY_ITSELF_S, self.interrupt, [self.deaths[-1]])
            timer.daemon = True
            timer.start()


def _end_workers() -> None:
    """Kills the worker processes: Beam waits for the end of each, of a hanging one forever.

    Only Linux can list them.
    """
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with suppress(OSError):  # it has just ended
                if WORKER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
