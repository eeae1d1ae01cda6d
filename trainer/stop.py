"""Ctrl-C and SIGTERM in a training: noted, and answered at a safe point."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Work that leaves nothing behind was broken off."""


class StopRequest:
    """Notes the first Ctrl-C or SIGTERM; a second one acts as if this were not there.

    So does the first one before ``arm``. The handler does no more than that: it may interrupt a
    line of the log as well as a write.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def arm(self) -> None:
        """From now on there is something to lose."""
        if not self._previous:
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def check(self) -> None:
        """Raises Stopped where a stop is requested."""
        if self.requested:
            raise Stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            self._restore()
            signal.raise_signal(signum)
        self.requested = True

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
