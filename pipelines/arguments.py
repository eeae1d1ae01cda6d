"""The options of python -m pipelines."""

import argparse
import dataclasses
import logging
import math
import os
from typing import TYPE_CHECKING

from pipelines.build.engine import EMBEDDED
from pipelines.command.cli import ArgumentParser, UsageError, typed
from pipelines.command.fields import add_options, argument_type, given
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.options import DatasetOptions, Degradation
from pipelines.dataset.outcome import RETRYABLE, Outcome

if TYPE_CHECKING:  # they import Beam, which takes a second that --help need not wait for
    from pipelines.lists.originals import Originals
    from pipelines.lists.plan import AnySource

NONE = "none"
_logger = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """All options but Beam's own."""
    result = ArgumentParser(
        "python -m pipelines",
        "Builds a super-resolution dataset from a list of picture URLs. Interrupted, the same "
        "command goes on.",
        epilog="Options that are not listed here go to Apache Beam (--direct_num_workers, "
        "--flink_master, --s3_endpoint_url, ...): deploy/*.options have those of each runner, "
        "beam.apache.org/documentation/runners/capability-matrix describes the runners.",
    )
    add = result.add_argument
    add(
        "--urls",
        metavar="LIST",
        help="'image id TAB URL' lines, CSV, TSV, JSON lines, URLs, or Parquet (one file, or a "
        "folder of parts): local, gs://, s3:// or http(s)://; plain, .gz, .zst or .tgz",
    )
    for kind, known in (
        ("url", "OriginalURL, url"),
        ("id", "ImageID, key, id, …; without one the row's number"),
        ("checksum", "OriginalMD5, sha256, md5: of the picture, in hex or base64"),
    ):
        help = f"of a table, by name or from 1 by number (default: the first of {known})"
        add(f"--{kind}-column", metavar="NAME", help=help)
    add(
        "--images",
        nargs="+",
        metavar="DIR|TAR|ZIP",
        help="pictures instead of a list, without network: folders, tars (also of tars), zips, or "
        "patterns such as 'shards/*.tar'; local, gs:// or s3://; archives are not unpacked",
    )
    add(
        "--originals",
        metavar=f"DIR|{NONE}",
        help="an earlier build, instead of a list: its pictures with other options, without one "
        f"request (--limit counts in the order of its shards); {NONE}: none are kept after the "
        "build",
    )
    add(
        "--retry",
        type=_retryable,
        default=(),
        metavar="OUTCOME,...",
        help="fetch the lines with these outcomes again, of --originals or, without, of --output "
        f"and with its options: {', '.join(RETRYABLE)}",
    )
    add("--output", type=_folder, metavar="DIR", required=True, help="the dataset folder")
    add("--dry-run", action="store_true", help="only say what would be done, and how long")
    add(
        "--overwrite",
        action="store_true",
        help="build anew whatever the folder was begun with; originals are never deleted",
    )
    add(
        "--runner",
        default=EMBEDDED,
        metavar="NAME",
        help="flink, flink2, spark, dataflow, prism or portable: with the options of "
        "deploy/NAME.options; "
        "FILE.options: with those of your own file; or one of Beam's own names",
    )
    add(
        "--verbose",
        "-v",
        action="store_true",
        help="log what Beam and a cluster say as well, the whole stack of a failed job among it",
    )

    what = result.add_argument_group("what becomes of the pictures (decides the bytes)")
    add_options(what, DatasetOptions)
    how = result.add_argument_group("speed and politeness")
    add_options(how, CrawlOptions)
    how.add_argument(
        "--silence",
        type=argument_type(float, above=0),
        default=1800.0,
        metavar="S",
        help="without a sign of any worker for so many seconds, a job on a cluster has failed",
    )
    return result


def _folder(text: str) -> str:
    if not text.strip("/ "):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder for a dataset")
    return text


def _retryable(text: str) -> tuple[Outcome, ...]:
    for word in text.split(","):
        if word not in RETRYABLE:
            raise argparse.ArgumentTypeError(
                f"{word!r} is none of {', '.join(RETRYABLE)}, of which another request may change"
            )
    return tuple(sorted(Outcome(word) for word in set(text.split(","))))


def dataset_options(
    options: argparse.Namespace, defaults: DatasetOptions | None = None
) -> DatasetOptions:
    """The options that decide bytes; what is not given is as in ``defaults``.

    Raises UsageError where they make no sense together.
    """
    result = dataclasses.replace(defaults or DatasetOptions(), **given(DatasetOptions, options))
    if max(result.scales) > result.crop_size:
        raise UsageError(f"--crop-size {result.crop_size} is less than a scale")
    _tell_of_broken_ratios(result)
    return result


def _tell_of_broken_ratios(options: DatasetOptions) -> None:
    """Papers shrink by whole ratios; the article's 200 px by 3.03, and that is as it wants it."""
    whole, size = math.lcm(*options.scales), options.crop_size
    if options.degradation is Degradation.BICUBIC and size % whole:
        below = size // whole * whole
        suggested = " or ".join(str(other) for other in (below, below + whole) if other)
        _logger.warning(
            "--crop-size %s is no multiple of the scales %s: the stored LR is shrunk by other "
            "ratios than its scale; recipes with lr: luma make their own, for others "
            "--crop-size %s suits",
            size,
            typed(options.scales),
            suggested,
        )


def crawl_options(options: argparse.Namespace, crawlers: int) -> CrawlOptions:
    """The options that decide speed and politeness.

    There are ``crawlers`` unless --crawlers is given. Raises UsageError where neither says it.
    """
    result = given(CrawlOptions, options)
    if not crawlers and "crawlers" not in result:
        raise UsageError(f"--crawlers is required with --runner {options.runner}")
    return CrawlOptions(**{"crawlers": crawlers, **result})


def list_source(options: argparse.Namespace) -> "AnySource":
    """Where the lines come from. Raises UsageError where that is not said, or twice."""
    from pipelines.lists.columns import Columns
    from pipelines.lists.list_file import WHERE_TO_FIND_COPIES, Source
    from pipelines.lists.pictures import expanded

    earlier = options.originals if options.originals != NONE else None
    given = [
        name
        for name, value in (
            ("--urls", options.urls),
            ("--images", options.images),
            ("--originals", earlier),
        )
        if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    if options.retry and (options.urls or options.images or options.originals == NONE):
        raise UsageError(
            "--retry takes its lines from an earlier build: --originals DIR, or --output alone"
        )
    columns = Columns(options.url_column, options.id_column, options.checksum_column)
    if columns.are_given and not options.urls:
        raise UsageError("--url-column, --id-column and --checksum-column are for --urls")
    if earlier or options.retry:
        return _originals(earlier, options.output, options.retry, overwrite=options.overwrite)
    if options.images:
        names = expanded(options.images)
        return Source(" ".join(names), is_folder=True, names=names if len(names) > 1 else ())
    if not options.urls:
        raise UsageError(
            f"--urls LIST (make: URLS=list), --images DIR or --originals DIR is required; "
            f"{WHERE_TO_FIND_COPIES}"
        )
    return Source(options.urls, columns=columns)


def _originals(
    earlier: str | None, output: str, retry: tuple[Outcome, ...], *, overwrite: bool
) -> "Originals":
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.lists.originals import Originals

    root = _whole(earlier or output)
    in_place = root == _whole(output)
    if in_place and not (retry or overwrite):
        raise UsageError(
            f"{earlier} is --originals and --output: use another --output, or --overwrite"
        )
    # The names that tables and messages have of it.
    return Originals(DatasetFolder(output.rstrip("/") if in_place else root), in_place, retry)


def _whole(folder: str) -> str:
    return folder.rstrip("/") if "://" in folder else os.path.realpath(folder)
