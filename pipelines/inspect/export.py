"""A finished dataset as other trainers read it: a shard after the other, resumable, same bytes."""

import csv
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.command.cli import UsageError, WorkError
from pipelines.command.progress import Progress
from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS, DatasetOptions
from pipelines.dataset.tfrecord import read_records

_RECORD = "export.json"
# Of Parquet: about 10 MB, which a reader holds at once.
_GROUP_ROWS = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_MOST_KEY_CHARS = 80


@dataclass(frozen=True)
class Part:
    """A shard's place in the export of its split."""

    shard: str
    split: str
    number: int
    """Of the split's shards, from 0."""
    count: int
    """The split's shards."""
    start: int
    """How many examples of the split go before."""
    examples: int
    total: int
    """The split's examples."""
    options: DatasetOptions


@dataclass(frozen=True)
class Output:
    """Where the files of an export go."""

    target: DatasetFolder
    spool: Path

    def write(self, data: bytes, *names: str) -> None:
        """A small file. Locally it is on disk for good when the shard is said to be done."""
        path = self.target.path(*names)
        if self.target.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
        else:
            self.target.publish_bytes(path, data)

    def publish(self, *names: str) -> None:
        """The spooled file of that name, whole."""
        self.target.publish(self.spool / names[-1], self.target.path(*names))


def export(
    source: DatasetFolder, manifest: Manifest, form: str, target: DatasetFolder
) -> dict[str, int]:
    """Exports what is not yet there; how many examples of each split there are.

    Raises UsageError where the output holds something else, and WorkError for a broken dataset.
    """
    write = _WRITERS[form]
    parts = list(_parts(manifest))
    done = _begin(source, manifest, form, target)
    total = sum(part.examples for part in parts)
    copied = 0
    with target.spool() as spool, Progress("export", total, unit="examples") as progress:
        output = Output(target, spool)
        for part in parts:
            if part.shard not in done["shards"]:
                write(part, _examples(source, part), output)
                os.sync()  # small files that nobody has waited for
                done["shards"].append(part.shard)
                target.publish_json(target.path(_RECORD), done)
            copied += part.examples
            progress.update(copied)
    if target.is_local:
        target.discard_unfinished()
    return {split: manifest.num_examples(split) for split in SPLITS}


def _parts(manifest: Manifest) -> Iterator[Part]:
    for split in SPLITS:
        shards, start = manifest.split(split), 0
        total = manifest.num_examples(split)
        for number, (name, shard) in enumerate(shards.items()):
            yield Part(
                name, split, number, len(shards), start, shard.examples, total, manifest.options
            )
            start += shard.examples


def _begin(
    source: DatasetFolder, manifest: Manifest, form: str, target: DatasetFolder
) -> dict[str, Any]:
    """What is exported already. Raises UsageError where that is something else."""
    shards = "".join(f"{name} {shard.sha256}\n" for name, shard in sorted(manifest.shards.items()))
    wanted = {"to": form, "dataset_sha256": hashlib.sha256(shards.encode()).hexdigest()}
    path = target.path(_RECORD)
    if target.exists(path):
        begun: dict[str, Any] = target.read_json(path)
        if wanted.items() <= begun.items():
            return begun
        raise UsageError(
            f"{target.root} holds an export of another dataset, or to {begun['to']}: use another "
            "OUTPUT"
        )
    if target.names():
        raise UsageError(f"{target.root} holds something else: use another OUTPUT")
    done = {**wanted, "shards": []}
    target.publish_json(path, done)
    return done


def _examples(source: DatasetFolder, part: Part) -> Iterator[Example]:
    """Raises WorkError where there is one too many or too few, or one is broken."""
    path, count = source.examples(part.shard), 0
    try:
        with source.open(path) as file:
            for record in read_records(file):
                count += 1
                yield Example.from_bytes(record)
        if count != part.examples:
            raise ValueError(f"{count:,} examples, not {part.examples:,}")
    except (OSError, ValueError) as error:
        raise WorkError(f"{path}: {error} (python -m pipelines.verify checks all of it)") from None


def _to_folders(part: Part, examples: Iterable[Example], output: Output) -> None:
    """``HR/0001.png``, ``LR_bicubic/X2/0001x2.png``, and a line of meta_info.txt each.

    Pictures are numbered through the split; index/ says which is which.
    """
    digits = max(4, len(str(part.total)))
    lr = f"LR_{part.options.degradation}"
    index = io.StringIO()
    table = csv.writer(index, lineterminator="\n")
    table.writerow(("name", "image_id", "url", "sha256", "x", "y", "width", "height"))
    for number, example in enumerate(examples, part.start + 1):
        name = f"{number:0{digits}}"
        output.write(example.hr, part.split, "HR", f"{name}.png")
        for scale, png in example.lr.items():
            output.write(png, part.split, lr, f"X{scale}", f"{name}x{scale}.png")
        crop = example.crop
        place = (crop.x, crop.y, crop.width, crop.height)
        table.writerow((name, example.image_id, example.url, example.sha256, *place))
    output.write(index.getvalue().encode(), part.split, "index", f"{part.shard}.csv")
    if part.number == part.count - 1:
        size = part.options.crop_size
        lines = (f"{n:0{digits}}.png ({size},{size},3)\n" for n in range(1, part.total + 1))
        output.write("".join(lines).encode(), part.split, "meta_info.txt")


def _to_webdataset(part: Part, examples: Iterable[Example], output: Output) -> None:
    """``train-000000.tar`` with ``id.hr.png``, ``id.lr_x2.png``, …, ``id.json``."""
    name = f"{part.split}-{part.number:06}.tar"
    keys: set[str] = set()
    with tarfile.open(output.spool / name, "w", format=tarfile.USTAR_FORMAT) as archive:
        for example in examples:
            key = _key(example.image_id, keys)
            files = {"hr.png": example.hr}
            files |= {f"lr_x{scale}.png": png for scale, png in example.lr.items()}
            files["json"] = json.dumps(_described(example), ensure_ascii=False).encode()
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")  # of nobody, 1970
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    output.publish(name)


def _key(image_id: str, taken: set[str]) -> str:
    """A name without a dot, at which WebDataset parts a file's name; one that no other has."""
    safe = _UNSAFE.sub("_", image_id)[:_MOST_KEY_CHARS]
    key, number = safe, 1
    while key in taken:
        number += 1
        key = f"{safe}-{number}"
    taken.add(key)
    return key


def _described(example: Example) -> dict[str, Any]:
    crop = example.crop
    return {
        "image_id": example.image_id,
        "wnid": example.wnid,
        "url": example.url,
        "sha256": example.sha256,
        "crop": [crop.x, crop.y, crop.width, crop.height],
    }


def _to_parquet(part: Part, examples: Iterable[Example], output: Output) -> None:
    """``data/train-00000-of-00002.parquet``, whose pictures Hugging Face's datasets decodes."""
    scales = part.options.scales
    pictures = ["hr", *(f"lr_x{scale}" for scale in scales)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = ("image_id", "wnid", "url", "sha256")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("crop", pa.list_(pa.int32())),
            *((name, image) for name in pictures),
        ]
    )
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in texts}
    features["crop"] = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"}
    features |= {name: {"_type": "Image"} for name in pictures}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    name = f"{part.split}-{part.number:05}-of-{part.count:05}.parquet"
    with pq.ParquetWriter(output.spool / name, schema) as writer:
        rows: list[dict[str, Any]] = []
        for example in examples:
            pngs = [example.hr, *(example.lr[scale] for scale in scales)]
            row = _described(example)
            row |= {
                column: {"bytes": png, "path": f"{column}.png"}
                for column, png in zip(pictures, pngs, strict=True)
            }
            rows.append(row)
            if len(rows) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    output.publish("data", name)


_WRITERS: Mapping[str, Callable[[Part, Iterable[Example], Output], None]] = {
    "folders": _to_folders,
    "webdataset": _to_webdataset,
    "parquet": _to_parquet,
}
