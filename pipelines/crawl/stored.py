"""Pictures that an earlier build has fetched, instead of the web."""

import asyncio
import io
import json
from dataclasses import dataclass

from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.examples import Original
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.tfrecord import Span, unframe_record
from pipelines.lists.originals import find


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


class OriginalsClient:
    """Answers locations as the web answered once."""

    def __init__(self, folder: DatasetFolder, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._paths: dict[str, str] = {}

    async def get(self, location: str) -> Body | Failure:
        """The body, or the failure. Raises WorkError where an original is gone or broken."""
        where = json.loads(location)
        if isinstance(where, dict):
            return await asyncio.to_thread(self._read, where.pop("file"), Span(**where))
        outcome, detail, http_status = where
        return Failure(Outcome(outcome), detail, http_status)

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
