"""The last step of a shard: its candidates less the dropped ones under their final names."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.duplicates import Copy, mark_duplicates
from pipelines.examples import Example
from pipelines.outcome_table import read_table, write_table
from pipelines.outcomes import Outcome
from pipelines.storage import Attempt, DatasetFolder
from pipelines.tfrecord import frame_record, read_records


@dataclass(frozen=True)
class FinishedShard:
    """What dataset.json says of a shard."""

    name: str
    examples: int
    sha256: str
    num_bytes: int
    outcomes: dict[str, int]


def finish_shard(attempt: Attempt, settled: Iterable[tuple[str, Copy]]) -> FinishedShard:
    """Writes examples/ and outcomes/ of a shard: a pure function of its inputs.

    ``settled`` has the kept copy of each content that other shards have as well.
    """
    folder, shard = attempt.folder, attempt.shard
    with folder.open(attempt.table) as file:
        rows = mark_duplicates(shard, read_table(file), settled)
    kept = {(row.image_id, row.url) for row in rows if row.outcome is Outcome.OK}
    with folder.spool() as spool:
        count, digest, num_bytes = 0, "", 0
        if kept:
            records = spool / "examples"
            count, digest = _copy_kept(attempt, kept, records)
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
    return FinishedShard(shard, count, digest, num_bytes, dict(outcomes))


def _copy_kept(
    attempt: Attempt, kept: set[tuple[str | None, str | None]], path: Path
) -> tuple[int, str]:
    count = 0
    with attempt.folder.open(attempt.candidates) as source, path.open("w+b") as out:
        for record in read_records(source):
            example = Example.from_bytes(record)
            if (example.image_id, example.url) in kept:
                out.write(frame_record(record))
                count += 1
        out.seek(0)
        return count, hashlib.file_digest(out, "sha256").hexdigest()


def outcome_totals(folder: DatasetFolder, shards: Iterable[str]) -> dict[str, int]:
    """The totals of the tables under outcomes/."""
    totals: Counter[str] = Counter()
    for shard in shards:
        with folder.open(folder.outcomes(shard)) as file:
            totals.update(row.outcome for row in read_table(file))
    return dict(totals)
