"""One shard in the making: pictures go to disk in any order and are published sorted, whole."""

import threading
from pathlib import Path
from typing import BinaryIO

from pipelines.examples import Crop, Example, Original
from pipelines.outcomes import Row, write_table
from pipelines.storage import Attempt
from pipelines.tfrecord import write_record

_SortKey = tuple[str, str, Crop]
_WHOLE = Crop(0, 0, 0, 0)


class _RecordSpool:
    """Records on disk with an index in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._index: list[tuple[_SortKey, int, int]] = []

    def add(self, key: _SortKey, data: bytes) -> None:
        offset = self._file.tell()
        self._index.append((key, offset, write_record(self._file, data)))

    def copy_sorted(self, out: BinaryIO) -> None:
        for _, offset, num_bytes in sorted(self._index):
            self._file.seek(offset)
            out.write(self._file.read(num_bytes))

    def close(self) -> None:
        self._file.close()


class ShardSpool:
    """Collects what becomes of a shard's lines. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals = _RecordSpool(folder / "originals")
        self._candidates = _RecordSpool(folder / "candidates")
        self._lock = threading.Lock()
        self.rows: list[Row] = []

    def add(self, row: Row, original: Original | None = None, *examples: Example) -> None:
        """Adds a line's row, its picture as it came and its examples."""
        records = [
            ((example.image_id, example.url, example.crop), example.to_bytes())
            for example in examples
        ]
        original_bytes = original.to_bytes() if original else b""
        with self._lock:
            self.rows.append(row)
            if original:
                self._originals.add((original.image_id, original.url, _WHOLE), original_bytes)
            for key, data in records:
                self._candidates.add(key, data)

    def publish(self, attempt: Attempt) -> None:
        """Publishes the attempt's files, the table last, and closes the spool."""
        for spool, path in (
            (self._originals, attempt.originals),
            (self._candidates, attempt.candidates),
        ):
            sorted_path = self._folder / "sorted"
            with sorted_path.open("wb") as out:
                spool.copy_sorted(out)
            spool.close()
            _publish(attempt, sorted_path, path)
        table = self._folder / "table"
        with table.open("wb") as out:
            write_table(out, self.rows)
        attempt.folder.publish(table, attempt.table)


def _publish(attempt: Attempt, spooled: Path, path: str) -> None:
    # An object store may refuse an empty object, so that there is none for no records.
    if spooled.stat().st_size:
        attempt.folder.publish(spooled, path)
