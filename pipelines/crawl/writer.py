"""One shard in the making: pictures go to disk as they come and are published whole."""

from pathlib import Path

from pipelines.crawl.answer import Body
from pipelines.crawl.stored import StoredBody
from pipelines.dataset.attempt_table import Fetched, write_table
from pipelines.dataset.examples import Original
from pipelines.dataset.folder import Attempt
from pipelines.dataset.outcome import Row
from pipelines.dataset.tfrecord import Span, frame_record
from pipelines.lists.url_list import Entry
from pipelines.pictures.decoder import Decoded, Picture


class ShardWriter:
    """Collects what becomes of a shard's lines, in a local folder.

    Records lie in the order of arrival, and the table knows where: a picture's bytes are written
    once, and its examples once more, sorted, when all shards are known. An earlier build's
    originals stay where they lie.
    """

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self._folder, self._attempt = folder, attempt
        self._originals = folder / "originals"
        self._candidates = folder / "candidates"
        # To be decoded from, where originals lie on an object store.
        self._copies = folder / "copies"
        self._originals_file = self._originals.open("wb")
        self._copies_file = self._copies.open("wb")
        self.fetched: list[Fetched] = []

    def store(self, entry: Entry, body: Body) -> Picture:
        """Stores a body, picture or not, to be decoded from where it lies."""
        path, file = self._originals, self._originals_file
        if stored := _stored(entry, body):
            if stored.is_local:
                return Picture(stored.path, stored.original, str(self._candidates))
            path, file = self._copies, self._copies_file
        original = Original(entry.image_id, entry.url, body.sha256, body.read())
        record = frame_record(original.to_bytes())
        span = Span(file.tell(), len(record))
        file.write(record)
        file.flush()
        return Picture(str(path), span, str(self._candidates))

    def add(self, row: Row, checksum: str = "") -> None:
        """Adds the row of a line that brought no picture; ``checksum`` as its entry has it."""
        self.fetched.append(Fetched(row, checksum=checksum or None))

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
        original, file = picture.original, None
        if stored := _stored(entry, body):
            original, file = stored.original, stored.original_file
        checksum = entry.checksum or None
        self.fetched.append(Fetched(row, original, decoded.phash, decoded.examples, file, checksum))
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
        self._copies_file.close()


def _stored(entry: Entry, body: Body) -> StoredBody | None:
    """The body as an earlier build's record, unless that names another line with the URL."""
    if isinstance(body, StoredBody) and (body.image_id, body.url) == (entry.image_id, entry.url):
        return body
    return None
