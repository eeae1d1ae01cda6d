"""A folder of pictures instead of the web: the same answers, no network."""

import asyncio
import hashlib
import io
from pathlib import Path
from urllib.parse import unquote_to_bytes

from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.outcome import Outcome


class FolderClient:
    """Reads the percent-encoded relative paths that list_file.picture_lines gives."""

    def __init__(self, directory: str, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes

    async def get(
        self, url: str, *, redirects: int = 0, first_bytes: int | None = None
    ) -> Body | Failure:
        """The file's bytes, or why they cannot be read."""
        return await asyncio.to_thread(self._read, url)

    async def reaches(self, url: str) -> bool:
        """There is no network to be gone."""
        return True

    def _read(self, url: str) -> Body | Failure:
        path = Path(self._directory, unquote_to_bytes(url).decode(errors="surrogateescape"))
        try:
            with path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            return Failure(Outcome.CORRUPT, f"cannot be read: {error}"[:200])
        if len(data) > self._max_bytes:
            return Failure(Outcome.TOO_MANY_BYTES, f"more than {self._max_bytes:,}")
        return Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())
