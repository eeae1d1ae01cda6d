"""Folders and archives of pictures as the source, instead of the web."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import unquote_to_bytes

from pipelines.command.cli import WorkError
from pipelines.command.machine import is_machines
from pipelines.command.stores import is_store_error, store_errors
from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome
from pipelines.lists.archives import Place, TooLarge, read_member
from pipelines.lists.url_list import Entry


class Folder:
    """Reads what pictures.picture_lines tells of these folders and archives."""

    def __init__(self, names: Sequence[str], max_bytes: int, concurrency: int) -> None:
        self._names, self._max_bytes = names, max_bytes
        self._slots = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def fetch(self, entry: Entry) -> AsyncIterator[Body | Failure]:
        """As answer.Fetch has it: the file's bytes, or why they cannot be read."""
        async with self._slots:
            yield await asyncio.to_thread(self._read, entry)

    def _read(self, entry: Entry) -> Body | Failure:
        try:
            data = self._data(entry)
        except TooLarge:
            return Failure(Outcome.TOO_MANY_BYTES, f"more than {self._max_bytes:,}")
        except NotImplementedError as error:
            return Failure(Outcome.UNSUPPORTED_FORMAT, str(error))
        except Exception as error:
            if is_machines(error) or not (
                isinstance(error, OSError | ValueError) or is_store_error(error)
            ):
                raise
            return Failure(Outcome.CORRUPT, f"cannot be read: {error}"[:200])
        return Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def _data(self, entry: Entry) -> bytes:
        number, *place = map(int, (entry.place or "0").split(","))
        name = self._names[number]
        folder = DatasetFolder(name)
        if place:
            return read_member(partial(_range, folder), Place(*place), self._max_bytes)
        path = entry.request_url
        if entry.place:  # it begins with the folder's own name
            path = path.partition("/")[2]
        file = folder.path(unquote_to_bytes(path).decode(errors="surrogateescape"))
        data = folder.read_range(file, 0, self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise TooLarge
        return data


def _range(archive: DatasetFolder, offset: int, num_bytes: int) -> bytes:
    """Of an archive, which is no one picture's fault. Raises WorkError where it is gone."""
    try:
        with store_errors(WorkError):
            return archive.read_range(archive.root, offset, num_bytes)
    except OSError as error:
        if is_machines(error):
            raise
        raise WorkError(f"the archive {archive.root} cannot be read: {error}") from None
