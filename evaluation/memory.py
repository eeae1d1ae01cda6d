"""What an unfinished evaluation has scored: from there the same command goes on."""

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Self

from pipelines.command.cli import UsageError
from pipelines.command.files import open_locked
from trainer import files

# An object is written again as a whole, with what came since.
_WRITE_EVERY_S = 30.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """Of one picture."""

    picture: str
    psnr_db: float
    """Infinite where the result equals the reference."""
    ssim: float
    seconds: float = 0.0
    """From LR in memory to the 8-bit result; a batch's time is divided by its pictures."""


Scored = dict[int, Score]
"""By the number of the picture in its set."""


class Memory:
    """A file of scores, a line a batch: what is scored, then the score of each picture.

    A local file is locked, and gone with ``forget``. On a store nothing keeps two processes apart:
    the last to write is remembered. Raises UsageError where another process has the file. Where it
    cannot be written, nothing is remembered, and a line says so.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._waiting: list[bytes] = []
        self._written_at = time.monotonic()
        data = self._open_local() if files.is_local(path) else self._read_remote()
        self._scored: dict[str, Scored] = {}
        for line in data.splitlines():
            if parsed := _parse(line):
                what, scores = parsed
                self._scored.setdefault(what, {}).update(scores)

    def _open_local(self) -> bytes:
        try:
            self._file = open_locked(Path(self._path), wait=False)
            self._file.seek(0)
            return self._file.read()
        except BlockingIOError:
            raise UsageError(
                f"{self._path} is in use, another process does the same: wait for it, or use "
                "another --output"
            ) from None
        except OSError as error:
            self._give_up(error)
            return b""

    def _read_remote(self) -> bytes:
        data = files.read(self._path) if files.exists(self._path) else b""
        self._waiting.append(data)
        return data

    def recall(self, what: str) -> Scored:
        """The scores of what was scored before."""
        return dict(self._scored.get(what, {}))

    def add(self, what: str, scores: Mapping[int, Score]) -> None:
        """Writes scores down."""
        rows = [[number, *astuple(score)] for number, score in scores.items()]
        # A line that an interruption or a full disk broke off must not spoil the next.
        line = b"\n" + json.dumps([what, rows]).encode() + b"\n"
        if not files.is_local(self._path):
            self._waiting.append(line)
            if time.monotonic() - self._written_at > _WRITE_EVERY_S:
                self._write_remote()
        elif self._file is not None:
            try:
                self._file.write(line)
            except OSError as error:
                self._give_up(error)

    def _write_remote(self) -> None:
        files.write(self._path, b"".join(self._waiting))
        self._written_at = time.monotonic()

    def _give_up(self, error: OSError) -> None:
        self._close()
        _logger.warning(
            "%s cannot be written (%s): an interruption would lose what is scored",
            self._path, error.strerror,
        )  # fmt: skip

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def forget(self) -> None:
        """Once the results are kept elsewhere."""
        self._waiting.clear()
        files.remove(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if any(self._waiting):
            self._write_remote()
        if self._file is not None and not os.fstat(self._file.fileno()).st_size:
            Path(self._path).unlink(missing_ok=True)
        self._close()


def _parse(line: bytes) -> tuple[str, Scored] | None:
    """None for a line that is broken off."""
    try:
        what, rows = json.loads(line)
        return str(what), {
            int(number): Score(str(picture), float(psnr_db), float(ssim), float(seconds))
            for number, picture, psnr_db, ssim, seconds in rows
        }
    except (ValueError, TypeError):
        return None
