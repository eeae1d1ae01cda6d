"""The plan: one process streams the list twice and writes each shard's lines, once.

The first pass learns the totals and the large host families, the second deals the lines out.
The plan in the dataset folder is what every later run starts from.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pipelines.command.cli import UsageError
from pipelines.command.fields import differing
from pipelines.dataset.build_record import BuildRecord, State, state_of
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.originals import Originals
from pipelines.lists.sharding import Points, Sharding, Survey, select, survey

_logger = logging.getLogger(__name__)

AnySource = Source | Originals


@dataclass(frozen=True)
class Plan:
    """A written plan."""

    options: DatasetOptions
    source: dict[str, Any]
    """sha256, lines and rejected of the Survey."""
    shards: dict[str, int]
    """The lines of each shard that has any, by name."""
    generation: int = 1
    """Of the build."""


def prepare(
    folder: DatasetFolder, options: DatasetOptions, source: AnySource, *, overwrite: bool = False
) -> Plan:
    """The plan of a dataset folder: written, or read where this build was begun before.

    =========  =========================  ==================  ===========  ========================
    State      options, source as begun   others              overwrite    from its own originals
    =========  =========================  ==================  ===========  ========================
    EMPTY      begin                      begin               begin        refuse: no dataset
    BEGUN      write the plan             refuse              begin        as without overwrite
    PLANNED    load the plan              refuse              begin        as without overwrite
    COMPLETE   load the plan              refuse              begin        begin, unless --retry
                                                                           finds no line
    =========  =========================  ==================  ===========  ========================

    To begin is to write build.json of the next generation and then the plan. That is done once the
    list is known to be good. Raises UsageError to refuse, and for a list that cannot be used.
    """
    build = BuildRecord.load(folder)
    state = state_of(folder, build)
    if build is None and folder.exists(folder.manifest):
        raise UsageError(f"{folder.root} holds a dataset, but no build.json: use another --output")
    in_place = source if isinstance(source, Originals) and source.in_place else None
    begins = overwrite and not in_place
    if in_place and state is State.COMPLETE:
        if not _is_changed_by(folder, options, in_place):
            return load(folder)
        begins = True
    with source.open() as lines, closing(Points(options.seed)) as points:
        if build is None or begins:
            found = survey(select(lines(), options), source.parse, points=points)
            if build and in_place:
                _refuse_fewer_lines(folder, build, found)
            build, state = _record(build, options, source, found), State.BEGUN
            build.save(folder)
            del found  # a million families
        else:
            refuse_other_options(folder, options)
            _refuse_other_originals(folder, build, source, state)
            if not _is_same_file(build, source):
                _refuse_other_list(folder, build, survey(select(lines(), options), source.parse))
            _logger.info(
                "going on with the %s lines of %s (sha256 %s)",
                f"{build.source['lines']:,}",
                build.source["name"],
                build.source["sha256"][:12],
            )
        if state is State.BEGUN:
            folder.delete_results()
            large, count = build.source["large_families"], build.source["lines"]
            if not points:  # the build was begun earlier
                survey(select(lines(), options), source.parse, points=points)
            sharding = Sharding(options, large, count, source.parse)
            _write(folder, build.generation, sharding.deal(select(lines(), options), points))
    return load(folder)


def _is_changed_by(folder: DatasetFolder, options: DatasetOptions, source: Originals) -> bool:
    """Whether a complete dataset would be another one, built again from its own originals."""
    manifest = Manifest.load(folder.root)
    if manifest.options != options or not source.retry:
        return True
    if manifest.outcomes.keys() & set(source.retry):
        return True
    _logger.info("no line of %s ended with %s", folder.root, ", ".join(source.retry))
    return False


def load(folder: DatasetFolder) -> Plan:
    """Reads a written plan."""
    build = BuildRecord.load(folder)
    if build is None:
        raise UsageError(f"{folder.root} is no dataset folder: it has no build.json")
    # A finished dataset is one without its plan as well.
    planned = folder.exists(folder.plan_index)
    return Plan(
        DatasetOptions.from_json(build.options),
        {name: build.source[name] for name in ("sha256", "lines", "rejected")},
        folder.read_json(folder.plan_index)["shards"] if planned else {},
        build.generation,
    )


def _record(
    before: BuildRecord | None, options: DatasetOptions, source: AnySource, found: Survey
) -> BuildRecord:
    return BuildRecord(
        generation=before.generation + 1 if before else 1,
        options=options.to_json(),
        originals=source.as_json,
        source={
            **source.identity(found.sha256),
            "lines": found.lines,
            "rejected": found.rejected,
            "large_families": found.large_families,
        },
    )


def _write(
    folder: DatasetFolder, generation: int, dealt: Iterable[tuple[str, Sequence[bytes]]]
) -> None:
    with folder.spool() as spool:
        counts: Counter[str] = Counter()
        for shard, lines in dealt:
            counts[shard] += len(lines)
            with (spool / shard).open("ab") as file:
                file.write(b"\n".join([*lines, b""]))
        for shard in counts:
            folder.publish(spool / shard, folder.plan(shard))
    index = {"generation": generation, "shards": dict(sorted(counts.items()))}
    folder.publish_json(folder.plan_index, index)


def refuse_other_options(folder: DatasetFolder, options: DatasetOptions) -> None:
    """Raises UsageError where the folder was begun with other options, with both values."""
    build = BuildRecord.load(folder)
    # An option that an earlier version did not have is as it was then.
    begun = DatasetOptions.from_json(build.options).to_json() if build else options.to_json()
    others = differing(DatasetOptions, begun, options.to_json())
    if others:
        raise UsageError(
            f"{folder.root} was begun with {'; '.join(others)}: use the same options, "
            "--overwrite, or another --output"
        )


def _refuse_other_originals(
    folder: DatasetFolder, build: BuildRecord, source: AnySource, state: State
) -> None:
    """Raises UsageError where one of the two is rebuilt from originals, the other not or not so."""
    begun, wanted = build.originals, source.as_json
    # A rebuilt dataset is that of the list, once it is complete.
    if begun != wanted and not (wanted is None and state is State.COMPLETE):
        raise UsageError(
            f"{folder.root} was begun with {_describe(begun)}, not with {_describe(wanted)}: "
            "finish that first, or use another --output"
        )


def _describe(originals: Mapping[str, Any] | None) -> str:
    """Of what Originals.as_json gives, the options."""
    if originals is None:
        return "a list or pictures"
    options = [f"--originals {originals['folder']}"] if "folder" in originals else []
    if "attempts_sha256" in originals:
        options.append(f"(attempts {originals['attempts_sha256'][:12]})")
    if originals["retry"]:
        options.append(f"--retry {','.join(originals['retry'])}")
    return " ".join(options) or "its own originals"


def _refuse_fewer_lines(folder: DatasetFolder, build: BuildRecord, found: Survey) -> None:
    lines = build.source["lines"]
    if found.lines < lines:
        raise UsageError(
            f"only {found.lines:,} of the {lines:,} lines of {folder.root} are selected, and what "
            "was fetched of the others would be lost: use another --output"
        )


def _is_same_file(build: BuildRecord, source: AnySource) -> bool:
    if isinstance(source, Originals):
        return True  # its attempts are, or it was refused
    begun = build.source
    return begun["size"] is not None and source.file.items() <= begun.items()


def _refuse_other_list(folder: DatasetFolder, build: BuildRecord, found: Survey) -> None:
    begun = build.source
    if begun["sha256"] != found.sha256:
        raise UsageError(
            f"{folder.root} was begun with the {begun['lines']:,} lines of {begun['name']} "
            f"(sha256 {begun['sha256'][:12]}), not with these {found.lines:,} "
            f"({found.sha256[:12]}): use the same list, or another --output"
        )
