"""The last step of a shard: its candidates less the dropped ones under their final names."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.build.duplicates import Verdict, mark_duplicates
from pipelines.command.cli import WorkError
from pipelines.dataset import attempt_table
from pipelines.dataset.examples import Crop
from pipelines.dataset.folder import Attempt
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.outcome_table import write_table
from pipelines.dataset.tfrecord import CorruptRecord, Span, unframe_record

# What a record is sorted by, then where it lies.
_Kept = tuple[str, str, Crop, Span]


@dataclass(frozen=True)
class FinishedShard:
    """What dataset.json says of a shard."""

    name: str
    examples: int
    sha256: str
    num_bytes: int
    outcomes: dict[str, int]


def finish_shard(attempt: Attempt, verdicts: Iterable[Verdict]) -> FinishedShard:
    """Writes examples/ and outcomes/ of a shard: a pure function of its inputs.

    ``verdicts`` are on those of its contents that all shards together decide about.
    """
    folder, shard = attempt.folder, attempt.shard
    with folder.open(attempt.table) as file:
        fetched = attempt_table.read_table(file)
    rows = mark_duplicates(shard, fetched, verdicts)
    kept: list[_Kept] = [
        (row.image_id or "", row.url or "", crop, span)
        for row, line in zip(rows, fetched, strict=True)
        if row.outcome is Outcome.OK
        for crop, span in line.examples
    ]
    with folder.spool() as spool:
        digest, num_bytes = "", 0
        if kept:
            records = spool / "examples"
            digest = _copy_sorted(attempt, kept, records)
            num_bytes = records.stat().st_size
            folder.publish(records, folder.examples(shard))
        else:
            # A build with other contents elsewhere may have left one.
            folder.delete([folder.examples(shard)])
        table = spool / "outcomes"
        with table.open("wb") as out:
            write_table(out, rows)
        folder.publish(table, folder.outcomes(shard))
    outcomes: Counter[str] = Counter(row.outcome for row in rows)
    return FinishedShard(shard, len(kept), digest, num_bytes, dict(outcomes))


def _copy_sorted(attempt: Attempt, kept: Sequence[_Kept], path: Path) -> str:
    """Writes the records in the order of the dataset; gives the file's sha256."""
    digest = hashlib.sha256()
    candidates = attempt.folder.local_file(attempt.candidates, path.parent)
    with candidates.open("rb", buffering=0) as source, path.open("wb") as out:
        for *_, span in sorted(kept):
            record = os.pread(source.fileno(), span.num_bytes, span.offset)
            try:
                unframe_record(record)
            except CorruptRecord:
                raise WorkError(
                    f"a record of {candidates} is corrupt; without the shard's files under "
                    f"fetched/ the same command fetches {attempt.shard} again"
                ) from None
            out.write(record)
            digest.update(record)
    return digest.hexdigest()
