"""A folder of pictures as the source, instead of the web."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from pipelines.command.machine import is_machines
from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry


class Folder:
    """Reads the percent-encoded relative paths that list_file.picture_lines gives."""

    def __init__(self, directory: str, max_bytes: int, concurrency: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._slots = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def fetch(self, entry: Entry) -> AsyncIterator[Body | Failure]:
        """As answer.Fetch has it: the file's bytes, or why they cannot be read."""
        async with self._slots:
            yield await asyncio.to_thread(self._read, entry.request_url)

    def _read(self, url: str) -> Body | Failure:
        path = Path(self._directory, unquote_to_bytes(url).decode(errors="surrogateescape"))
        try:
            with path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            if is_machines(error):
                raise
            return Failure(Outcome.CORRUPT, f"cannot be read: {error}"[:200])
        if len(data) > self._max_bytes:
            return Failure(Outcome.TOO_MANY_BYTES, f"more than {self._max_bytes:,}")
        return Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())
