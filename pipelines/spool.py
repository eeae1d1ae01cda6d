"""One shard in the making: pictures go to disk as they come and are published whole."""

from pathlib import Path

from pipelines.attempt_table import Fetched, Span, write_table
from pipelines.decoder import Decoded, Picture
from pipelines.examples import Original
from pipelines.http_client import Body
from pipelines.outcomes import Row
from pipelines.storage import Attempt
from pipelines.tfrecord import frame_record
from pipelines.url_list import Entry


class ShardSpool:
    """Collects what becomes of a shard's lines, in a local folder.

    Records lie in the order of arrival, and the table knows where: a picture's bytes are written
    once, and its examples once more, sorted, when all shards are known.
    """

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self._folder, self._attempt = folder, attempt
        self._originals = folder / "originals"
        self._candidates = folder / "candidates"
        self._originals_file = self._originals.open("wb")
        self.fetched: list[Fetched] = []

    def store(self, entry: Entry, body: Body) -> Picture:
        """Stores a body, picture or not, to be decoded from where it lies."""
        original = Original(entry.image_id, entry.url, body.sha256, body.read())
        record = frame_record(original.to_bytes())
        span = Span(self._originals_file.tell(), len(record))
        self._originals_file.write(record)
        self._originals_file.flush()
        return Picture(str(self._originals), span, str(self._candidates))

    def add(self, row: Row) -> None:
        """Adds the row of a line that brought no picture."""
        self.fetched.append(Fetched(row))

    def add_picture(self, entry: Entry, body: Body, picture: Picture, decoded: Decoded) -> Row:
        """Adds a stored picture with what became of it; gives its row."""
        width, height = decoded.size or (None, None)
        row = Row(
            decoded.outcome,
            entry.image_id,
            entry.url,
            detail=decoded.detail,
            sha256=body.sha256,
            num_bytes=body.num_bytes,
            width=width,
            height=height,
        )
        name = self._attempt.name
        self.fetched.append(Fetched(row, name, picture.original, decoded.phash, decoded.examples))
        return row

    def publish(self) -> None:
        """Publishes the attempt's files, the table last."""
        for path, final in (
            (self._originals, self._attempt.originals),
            (self._candidates, self._attempt.candidates),
        ):
            # An object store may refuse an empty object, so that there is none for no records.
            if path.exists() and path.stat().st_size:
                self._attempt.folder.publish(path, final)
        table = self._folder / "table"
        with table.open("wb") as out:
            write_table(out, self.fetched)
        self._attempt.folder.publish(table, self._attempt.table)

    def close(self) -> None:
        """Closes what is open; the files go with their folder."""
        self._originals_file.close()
