"""One shard in the making: pictures go to disk in any order and are published sorted, whole."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.decoder import Decoded, Picture
from pipelines.examples import Crop, Original
from pipelines.http_client import Body
from pipelines.outcome_table import write_table
from pipelines.outcomes import Outcome, Row
from pipelines.storage import Attempt
from pipelines.tfrecord import frame_record
from pipelines.url_list import Entry

# A picture that is too small for these crops may do for others.
_ORIGINAL_KEPT = frozenset({Outcome.OK, Outcome.TOO_SMALL})


class ShardSpool:
    """Collects what becomes of a shard's lines, in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals = (folder / "originals").open("w+b", buffering=0)
        self._candidates = folder / "candidates"
        self._pictures: list[tuple[str, str, Picture]] = []
        self._records: list[tuple[str, str, Crop, int, int]] = []
        self.rows: list[Row] = []

    def store(self, entry: Entry, body: Body) -> Picture:
        """Stores a picture's bytes, to be decoded from where they lie."""
        offset = self._originals.tell()
        self._originals.write(body.read())
        return Picture(
            entry=entry,
            sha256=body.sha256,
            originals=self._originals.name,
            offset=offset,
            num_bytes=body.num_bytes,
            candidates=str(self._candidates),
        )

    def add(self, row: Row) -> None:
        """Adds the row of a line that brought no picture."""
        self.rows.append(row)

    def add_picture(self, picture: Picture, decoded: Decoded) -> Row:
        """Adds a stored picture with what became of it; gives its row."""
        entry = picture.entry
        width, height = decoded.size or (None, None)
        row = Row(
            decoded.outcome,
            entry.image_id,
            entry.url,
            detail=decoded.detail,
            sha256=picture.sha256,
            num_bytes=picture.num_bytes,
            width=width,
            height=height,
        )
        self.rows.append(row)
        if decoded.outcome in _ORIGINAL_KEPT:
            self._pictures.append((entry.image_id, entry.url, picture))
        for crop, offset, num_bytes in decoded.records:
            self._records.append((entry.image_id, entry.url, crop, offset, num_bytes))
        return row

    def publish(self, attempt: Attempt) -> None:
        """Publishes the attempt's files, the table last."""
        self._publish(self._original_records(), attempt, attempt.originals)
        self._publish(self._candidate_records(), attempt, attempt.candidates)
        table = self._folder / "table"
        with table.open("wb") as out:
            write_table(out, self.rows)
        attempt.folder.publish(table, attempt.table)

    def close(self) -> None:
        """Closes what is open; the files go with their folder."""
        self._originals.close()

    def _original_records(self) -> Iterator[bytes]:
        for image_id, url, picture in sorted(self._pictures, key=lambda entry: entry[:2]):
            data = os.pread(self._originals.fileno(), picture.num_bytes, picture.offset)
            yield frame_record(Original(image_id, url, picture.sha256, data).to_bytes())

    def _candidate_records(self) -> Iterator[bytes]:
        if not self._records:
            return
        with self._candidates.open("rb", buffering=0) as file:
            for *_, offset, num_bytes in sorted(self._records):
                yield os.pread(file.fileno(), num_bytes, offset)

    def _publish(self, records: Iterable[bytes], attempt: Attempt, path: str) -> None:
        ordered = self._folder / "ordered"
        with ordered.open("wb") as out:
            out.writelines(records)
        # An object store may refuse an empty object, so that there is none for no records.
        if ordered.stat().st_size:
            attempt.folder.publish(ordered, path)
