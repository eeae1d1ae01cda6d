"""Progress of long work: a bar on a terminal or in a notebook, else a log line every 30 s."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from tqdm import tqdm

LOG_INTERVAL_S = 30.0

_logger = logging.getLogger(__name__)


class Progress:
    """Counts work done out of a total and shows its rate and the time left.

    Without a total it shows for how long the work has gone on. Usable as a context manager.
    ``clock`` is a parameter for tests.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "",
        initial: int = 0,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._initial = self._done = initial
        self._note = ""
        self._clock = clock
        self._started = self._logged = clock()
        in_notebook = "ipykernel" in sys.modules
        terminal = sys.stderr.isatty() or in_notebook if terminal is None else terminal
        self._bar: tqdm[Any] | None = None
        if terminal:
            bar = notebook_bar() if in_notebook else tqdm
            self._bar = bar(
                total=total,
                initial=initial,
                desc=title,
                unit=f" {unit}",
                bar_format=None if total is not None else "{desc}: {elapsed}",
                dynamic_ncols=True,
            )
            # A line of its own, because there is no room beside a bar.
            self._below = bar(bar_format="{desc}", position=1, leave=False, dynamic_ncols=True)

    def update(self, done: int, note: str = "") -> None:
        """Sets the work done so far, and what else to show of it."""
        step, self._done, self._note = done - self._done, done, note
        if self._bar is not None:
            self._bar.update(step)
            self._below.set_description_str(note)
        elif self._clock() - self._logged >= LOG_INTERVAL_S:
            self._logged = self._clock()
            _logger.info("%s", self)

    def __str__(self) -> str:
        """'crawl: 1,200 of 5,000 URLs (24 %), 310.5 URLs/s, 0:00:12 left, ok 280'."""
        elapsed = max(self._clock() - self._started, 1e-9)
        if self._total is None:
            text = f"{self._title}: for {format_duration(elapsed)}"
            return f"{text}, {self._note}" if self._note else text
        rate = (self._done - self._initial) / elapsed
        rest = self._total - self._done
        left = format_duration(rest / rate if rest else 0) if rate or not rest else "unknown time"
        percent = 100 * self._done / max(self._total, 1)
        text = (
            f"{self._title}: {self._done:,} of {self._total:,} {self._unit} ({percent:.0f} %), "
            f"{rate:.1f} {self._unit}/s, {left} left"
        )
        return f"{text}, {self._note}" if self._note else text

    def close(self) -> None:
        """Ends the bar; elsewhere one last line, where there is a total."""
        if self._bar is not None:
            self._below.close()
            self._bar.close()
        elif self._total is not None:
            _logger.info("%s", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def notebook_bar() -> Any:
    """tqdm's bar of a notebook; without ipywidgets that of a terminal."""
    from tqdm.auto import tqdm

    return tqdm


def format_duration(seconds: float) -> str:
    """'2 d 03:04:05', without days where there are none."""
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
