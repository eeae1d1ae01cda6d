"""The dataset folder: its names, publishing a file whole, attempts.

Everything goes through Beam's FileSystems, so that a folder may be local, gs:// or s3://. Files
are made in a spool folder first and published whole: locally by a rename, on s3:// by an upload,
which appears when it is complete, on another store by an upload to a name under tmp/ and a rename
there.
"""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.command import files
from pipelines.command.cli import UsageError, WorkError
from pipelines.command.stores import store_reason
from pipelines.dataset import s3

T = TypeVar("T")

_UPLOAD_PAUSES_S = (1.0, 5.0)
_ORIGINALS = "originals.tfrecord"
_TABLE = "table.parquet"
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp$")
_MAGIC = re.compile(r"[*?\[]")


def tells_of_no_space(text: str) -> bool:
    """Whether the text of an error says that a disk is full or a quota used up."""
    return any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class Attempt:
    """The files of one attempt at fetching a shard; the table, published last, commits it."""

    folder: "DatasetFolder"
    shard: str
    name: str
    """``<generation>-<id>``."""

    @property
    def originals(self) -> str:
        """The pictures as they came."""
        return self._path(_ORIGINALS)

    @property
    def candidates(self) -> str:
        """The examples of all good pictures, before duplicates are dropped."""
        return self._path("candidates.tfrecord")

    @property
    def table(self) -> str:
        """The outcome of every line."""
        return self._path(_TABLE)

    def _path(self, kind: str) -> str:
        return self.folder.path("fetched", f"{self.shard}.{self.name}.{kind}")


@dataclass(frozen=True)
class DatasetFolder:
    """Names in a dataset folder, and the few operations on them."""

    root: str
    generation: int = 1
    """Which of the builds that were begun in the folder: an attempt belongs to one."""

    def path(self, *names: str) -> str:
        """A path inside the folder."""
        return FileSystems.join(self.root, *names)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a file system that renames atomically."""
        return "://" not in self.root

    @property
    def progress_interval_s(self) -> float:
        """Between two reports of a crawler: on an object store each is paid for."""
        return 1.0 if self.is_local else 15.0

    @property
    def build(self) -> str:
        """build.json."""
        return self.path("build.json")

    @property
    def manifest(self) -> str:
        """dataset.json."""
        return self.path("dataset.json")

    @property
    def is_complete(self) -> bool:
        """Whether dataset.json is there, which is written last."""
        return self.exists(self.manifest)

    @property
    def plan_index(self) -> str:
        """The lines of each shard: written after all files of plan/."""
        return self.path("plan", "shards.json")

    def plan(self, shard: str) -> str:
        """The list's lines of one shard, in the list's order."""
        return self.path("plan", f"{shard}.tsv")

    def examples(self, shard: str) -> str:
        """The final records of one shard."""
        return self.path("examples", f"{shard}.tfrecord")

    def outcomes(self, shard: str) -> str:
        """The final table of one shard."""
        return self.path("outcomes", f"{shard}.parquet")

    def progress(self, crawler: int) -> str:
        """What a crawler has done so far."""
        return self.path("progress", f"crawler-{crawler:05}.json")

    def attempts(self) -> dict[str, list[Attempt]]:
        """This generation's committed attempts by shard, in order, least name first."""
        found: dict[str, list[Attempt]] = {}
        for name in self.names("fetched"):
            shard, attempt, kind = _parts(name)
            if kind == _TABLE and attempt.startswith(f"{self.generation}-"):
                found.setdefault(shard, []).append(Attempt(self, shard, attempt))
        return {shard: sorted(all_, key=lambda a: a.name) for shard, all_ in found.items()}

    def new_attempt(self, shard: str) -> Attempt:
        """An attempt with a name that no other has."""
        return Attempt(self, shard, f"{self.generation}-{uuid.uuid4().hex}")

    def build_of(self, generation: int) -> "DatasetFolder":
        """The same folder as another of its builds sees it."""
        return replace(self, generation=generation)

    def names(self, *folder: str) -> list[str]:
        """The names of the files in a folder, sorted; none where it does not exist."""
        if self.is_local:  # not by a pattern: the folder's own name may look like one
            return sorted(path.name for path in Path(self.path(*folder)).glob("*"))
        return sorted(entry.path.rpartition("/")[2] for entry in self._listed(*folder))

    def sizes(self, *folder: str) -> dict[str, int]:
        """The files of a folder by name, in bytes; none where it does not exist."""
        return {name: num_bytes for name, num_bytes, _ in self._files(*folder)}

    def times(self, *folder: str) -> dict[str, float]:
        """When the files of a folder were last written, by name, as time.time()."""
        return {name: written for name, _, written in self._files(*folder)}

    def last_change(self, *folder: str) -> float:
        """When a file of a folder was last written, as time.time(); 0 where there is none."""
        return max(self.times(*folder).values(), default=0.0)

    def _files(self, *folder: str) -> Iterator[tuple[str, int, float]]:
        """Name, bytes and the time of the last write of each file in a folder."""
        if not self.is_local:
            for entry in self._listed(*folder):
                name = entry.path.rpartition("/")[2]
                yield name, entry.size_in_bytes, entry.last_updated_in_seconds
            return
        for path in Path(self.path(*folder)).glob("*"):
            # A file in the making gets its final name at any moment.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield path.name, status.st_size, status.st_mtime

    def _listed(self, *folder: str) -> list[Any]:
        root = self.path(*folder)
        # The folder's own name may look like a pattern: what else that matches is left out.
        (matched,) = FileSystems.match([f"{_MAGIC.sub('?', root)}/*"])
        return [entry for entry in matched.metadata_list if entry.path.startswith(f"{root}/")]

    def refuse_unreachable(self) -> None:
        """Raises UsageError where the object store does not answer, or refuses."""
        try:
            self.within(60.0, lambda: self.exists(self.build))
        except TimeoutError as error:
            raise UsageError(
                f"{error}: is the store's endpoint right, and are there credentials?"
            ) from None
        except Exception as error:  # each store has errors of its own
            raise UsageError(store_reason(error)) from error

    def within(self, seconds: float, ask: Callable[[], T]) -> T:
        """What ``ask`` gives. Raises TimeoutError where the object store takes longer."""
        if self.is_local:
            return ask()
        answer: Future[T] = Future()

        def answering() -> None:
            try:
                answer.set_result(ask())
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=answering, name="ask the store", daemon=True).start()
        try:
            return answer.result(seconds)
        except TimeoutError:
            raise TimeoutError(f"{self.root} does not answer within {seconds:.0f} s") from None

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return bool(FileSystems.exists(path))

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading, never decompressed."""
        file: BinaryIO = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        return file

    def read_json(self, path: str) -> Any:
        """The value that a JSON file holds."""
        with self.open(path) as file:
            return json.loads(file.read())

    def publish_json(self, path: str, value: Any, *, lasts: bool = True) -> None:
        """Writes a JSON file, whole; ``lasts`` as in files.write_whole."""
        self.publish_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), lasts=lasts)

    def publish_bytes(self, path: str, data: bytes, *, lasts: bool = True) -> None:
        """Writes a small file, whole; ``lasts`` as in files.write_whole."""
        if self.is_local:
            files.write_whole(path, data, lasts=lasts)
        else:
            self._upload(lambda: io.BytesIO(data), path)

    def publish(self, spooled: Path, path: str) -> None:
        """Moves a finished file of the spool to its name, whole."""
        if self.is_local:
            files.publish(spooled, path)
        else:
            self._upload(lambda: spooled.open("rb"), path)
            spooled.unlink()

    def _upload(self, opened: Callable[[], BinaryIO], path: str) -> None:
        for pause_s in (*_UPLOAD_PAUSES_S, None):
            try:
                with opened() as source:
                    if path.startswith("s3://"):
                        s3.upload(source, path)
                    else:
                        self._upload_and_rename(source, path)
                return
            except Exception as error:  # each store has errors of its own
                if pause_s is None:
                    raise WorkError(f"{path} cannot be written: {store_reason(error)}") from error
                time.sleep(pause_s)

    def _upload_and_rename(self, source: BinaryIO, path: str) -> None:
        """Beam gives a file its name even when an exception ends the writing."""
        part = self.path("tmp", uuid.uuid4().hex)
        with FileSystems.create(part, compression_type=CompressionTypes.UNCOMPRESSED) as out:
            shutil.copyfileobj(source, out, 1 << 20)
        FileSystems.rename([part], [path])

    def read_range(self, path: str, offset: int, num_bytes: int) -> bytes:
        """So many bytes of a file, or fewer at its end."""
        if "://" not in path:
            with Path(path).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), num_bytes, offset)
        data: bytes
        if path.startswith("s3://"):
            data = s3.read_range(path, offset, num_bytes)
        else:
            with self.open(path) as file:
                file.seek(offset)
                data = file.read(num_bytes)
        return data

    def local_file(self, path: str, spool: Path) -> Path:
        """A file to read from anywhere in it: itself, or a copy in the spool."""
        if self.is_local:
            return Path(path)
        copy = spool / path.rpartition("/")[2]
        with self.open(path) as source, copy.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        return copy

    @contextlib.contextmanager
    def spool(self) -> Iterator[Path]:
        """A local folder for files in the making, gone with the block.

        It lies inside a local dataset folder, so that publishing is a rename.
        """
        parent = None
        if self.is_local:
            parent = self.path("tmp")
            Path(parent).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as name:
            yield Path(name)

    def delete(self, paths: list[str]) -> None:
        """Deletes files; those that are gone already are no error."""
        if self.is_local:
            for path in paths:
                Path(path).unlink(missing_ok=True)
        elif paths:
            FileSystems.delete(paths)

    def delete_results(self) -> None:
        """Deletes what a build made: dataset.json first, then its plan, examples and outcomes.

        Cut off anywhere, it can be called again. What was fetched stays.
        """
        self.delete([self.manifest])
        self.delete([self.plan_index])
        for folder in ("plan", "examples", "outcomes"):
            self.delete([self.path(folder, name) for name in self.names(folder)])

    def discard_unfinished(self) -> None:
        """Removes what a killed build of this machine left in the making.

        Other jobs' as well: to be called under the lease, before anything else is written.
        """
        if self.is_local:
            shutil.rmtree(self.path("tmp"), ignore_errors=True)
            for folder in ((), ("plan",), ("progress",)):
                names = filter(_TEMPORARY.search, self.names(*folder))
                self.delete([self.path(*folder, name) for name in names])

    def clean_up(self, *, keep_originals: bool = True) -> None:
        """Removes what only a build in progress needs: spool, progress, candidates, the files of
        attempts that do not count, earlier builds' tables.

        The tables of the attempts that count stay, and their originals, unless those shall go as
        well. Earlier builds' originals always stay: this dataset's tables, or another folder's, may
        name them.
        """
        kept = set()
        for first, *_ in self.attempts().values():
            kept.add(first.table)
            if keep_originals:
                kept.add(first.originals)
        fetched = []
        for name in self.names("fetched"):
            _, attempt, kind = _parts(name)
            if kind != _ORIGINALS or attempt.startswith(f"{self.generation}-"):
                fetched.append(self.path("fetched", name))
        self.delete([path for path in fetched if path not in kept])
        for folder in ("tmp", "progress"):
            if self.is_local:
                shutil.rmtree(self.path(folder), ignore_errors=True)
            else:
                self.delete([self.path(folder, name) for name in self.names(folder)])


def _parts(name: str) -> tuple[str, str, str]:
    """Shard, attempt and kind of a file under fetched/."""
    shard, _, rest = name.partition(".")
    attempt, _, kind = rest.partition(".")
    return shard, attempt, kind
