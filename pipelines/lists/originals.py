"""An earlier build's originals as the source of another one: nothing is fetched twice.

Its lines are the list's own with one more field, ``image id TAB url TAB location``. The location is
JSON: ``{...}`` says where the original lies, ``[...]`` how the line failed. An empty one says that
the line is fetched.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pipelines.command.cli import UsageError
from pipelines.dataset.attempt_table import Fetched, read_table
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import Attempt, DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry, Parser, parse_line, parse_path_line

_IDENTITY = ("name", "size", "modified_ns", "columns", "is_folder", "sha256")
# How a line ends whose original is at hand, and one that is fetched; a failure's ends with "]".
IS_ORIGINAL, IS_ON_THE_WEB = b"}", b"\t"


@dataclass(frozen=True)
class Originals:
    """Where the lines of a rebuilt dataset come from: the tables of an earlier build.

    ``in_place`` says that the new dataset takes the earlier one's place, in the same folder. Lines
    with one of the outcomes ``retry`` are fetched from the web.
    """

    folder: DatasetFolder
    in_place: bool = False
    retry: tuple[Outcome, ...] = ()

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.root

    def _build(self) -> BuildRecord:
        build = BuildRecord.load(self.folder)
        if build is None:
            raise UsageError(f"{self.name} is no dataset folder: it has no build.json")
        return build

    @cached_property
    def _begun(self) -> BuildRecord:
        begun = self._build()
        if self.retry and begun.source["is_folder"]:
            raise UsageError(
                f"--retry has nothing to fetch: {self.name} was made from a folder of pictures"
            )
        return begun

    @property
    def options(self) -> DatasetOptions:
        """The earlier build's."""
        return DatasetOptions.from_json(self._begun.options)

    @property
    def is_folder(self) -> bool:
        """Whether the first build was made from a folder of pictures."""
        return bool(self._begun.source["is_folder"])

    @property
    def pictures(self) -> tuple[str, ...]:
        """Its name."""
        return (self._begun.source["name"],) if self.is_folder else ()

    @property
    def parse(self) -> Parser:
        """The parser of its lines."""
        return partial(parse_original_line, parse=parse_path_line if self.is_folder else parse_line)

    def identity(self, sha256: str) -> dict[str, Any]:
        """The first build's list, whatever part of it is selected now."""
        return {name: self._begun.source.get(name) for name in _IDENTITY}

    @property
    def as_json(self) -> dict[str, Any]:
        """What build.json says of it: which attempts' originals, and what is fetched."""
        tables = {}
        if not self.in_place:
            names = "\n".join(first.name for first, *_ in self._attempts().values())
            tables = {
                "folder": self.name,
                "attempts_sha256": hashlib.sha256(names.encode()).hexdigest(),
            }
        return {**tables, "retry": list(self.retry)}

    @contextmanager
    def open(self) -> Iterator[Callable[[], Iterator[bytes]]]:
        """Gives a function that streams the lines, as often as it is called."""
        yield self.lines

    def lines(self) -> Iterator[bytes]:
        """In the order of the shards and their tables. Raises UsageError where some are gone."""
        present: dict[str, str] = {}
        for first, *_ in self._attempts().values():
            yield from self._lines_of(first, present)

    def _attempts(self) -> dict[str, list[Attempt]]:
        build = self._build()
        state = state_of(self.folder, build)
        if self.in_place and state is not State.COMPLETE:
            return self.folder.build_of(build.generation - 1).attempts()
        attempts = self.folder.build_of(build.generation).attempts()
        planned: Mapping[str, int] = {}
        if state is State.PLANNED:
            planned = self.folder.read_json(self.folder.plan_index)["shards"]
        if not attempts or planned.keys() - attempts.keys():
            raise UsageError(
                f"{self.name} does not hold what was fetched of all its lines: finish it first, "
                "by the command it was begun with"
            )
        return attempts

    def _lines_of(self, attempt: Attempt, present: dict[str, str]) -> Iterator[bytes]:
        with self.folder.open(attempt.table) as file:
            fetched = read_table(file)
        locations = {
            line.row.name: self._location(attempt, line, present)
            for line in fetched
            if line.row.outcome is not Outcome.DUPLICATE_URL
        }
        for line in fetched:
            row = line.row
            # Of two lines with one URL another selection may leave out the one that was fetched.
            kept = row.duplicate_of or row.name
            text = row.line if row.line is not None else _entry(line)
            yield text + b"\t" + locations[kept].encode()

    def _location(self, attempt: Attempt, line: Fetched, present: dict[str, str]) -> str:
        row = line.row
        if line.original is None:
            if row.outcome in self.retry:
                return ""
            return _compact([row.outcome, row.detail, row.http_status])
        file = line.original_file or attempt.originals.rpartition("/")[2]
        if not self.in_place and "/" not in file:
            file = f"{self.name}/{file}"
        if file not in present:
            present[file] = find(file, self.folder)
        return _compact({"file": file, **line.original._asdict()})


def _entry(line: Fetched) -> bytes:
    fields = [str(line.row.image_id), str(line.row.url)]
    return "\t".join([*fields, line.checksum] if line.checksum else fields).encode()


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def find(file: str, folder: DatasetFolder) -> str:
    """The path of a file of originals: ``name`` in this folder, or ``another folder/name``.

    Raises UsageError where it is gone.
    """
    root, _, name = file.rpartition("/")
    if root:
        folder = DatasetFolder(root)
    path = folder.path("fetched", name)
    if not folder.exists(path):
        raise UsageError(
            f"{path} is gone: {folder.root} was built with --originals none, or not all of it is "
            "there"
        )
    return path


def parse_original_line(line: bytes, parse: Parser) -> Entry:
    """Parses a line of the list, by the list's own ``parse``, and the location behind it.

    Raises Rejected.
    """
    text, _, location = line.rpartition(b"\t")
    return parse(text)._replace(original=location.decode("ascii"))
