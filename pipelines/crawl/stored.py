"""What an earlier build has fetched as the source, instead of the web."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.answer import Body, Failure, Fetch
from pipelines.dataset.examples import Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.tfrecord import Span, unframe_record
from pipelines.lists.originals import find
from pipelines.lists.url_list import Entry


@dataclass(frozen=True)
class StoredBody(Body):
    """An original of an earlier build."""

    image_id: str
    url: str
    """Of the line that it was fetched for, as its record has them."""
    path: str
    """Of the file that holds it."""
    original_file: str
    """As an attempt's table names it."""
    original: Span

    @property
    def is_local(self) -> bool:
        """Whether it can be read from its file as from one in the spool."""
        return "://" not in self.path


class Stored:
    """Answers an entry as the web answered once; ``fetch`` is for those without such an answer."""

    def __init__(
        self, folder: DatasetFolder, max_bytes: int, concurrency: int, fetch: Fetch
    ) -> None:
        self._folder, self._max_bytes, self._fetch = folder, max_bytes, fetch
        self._slots = asyncio.Semaphore(concurrency)
        self._paths: dict[str, str] = {}

    def fetch(self, entry: Entry) -> AbstractAsyncContextManager[Body | Failure]:
        """As answer.Fetch has it. Raises WorkError where an original is gone or broken."""
        return self._answer(entry.original) if entry.original else self._fetch(entry)

    @asynccontextmanager
    async def _answer(self, location: str) -> AsyncIterator[Body | Failure]:
        where = json.loads(location)
        async with self._slots:
            if isinstance(where, dict):
                yield await asyncio.to_thread(self._read, where.pop("file"), Span(**where))
            else:
                outcome, detail, http_status = where
                yield Failure(Outcome(outcome), detail, http_status)

    def _read(self, file: str, span: Span) -> Body | Failure:
        try:
            path = self._paths.get(file) or self._paths.setdefault(file, find(file, self._folder))
        except UsageError as error:
            raise WorkError(str(error)) from None
        data = self._folder.read_range(path, span.offset, span.num_bytes)
        try:
            original = Original.from_bytes(unframe_record(data))
        except ValueError:
            raise WorkError(
                f"the original at byte {span.offset} of {path} is broken: bring the file back from "
                "a copy"
            ) from None
        num_bytes = len(original.data)
        if num_bytes > self._max_bytes:
            return Failure(Outcome.TOO_MANY_BYTES, f"more than {self._max_bytes:,}", 200)
        return StoredBody(
            io.BytesIO(original.data),
            num_bytes,
            original.sha256,
            original.image_id,
            original.url,
            path,
            file,
            span,
        )
