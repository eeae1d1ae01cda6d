"""The options of python -m pipelines."""

import argparse
import os
import re
from pathlib import Path

from pipelines.build.runners import EMBEDDED
from pipelines.command.cli import ArgumentParser, UsageError, positive_int, scales
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import SPLITS, DatasetOptions, Degradation
from pipelines.dataset.outcome import Outcome
from pipelines.lists.list_file import WHERE_TO_FIND_COPIES
from pipelines.lists.originals import RETRYABLE, Originals
from pipelines.lists.plan import AnySource, Source

NONE = "none"
_WNID = re.compile(r"n\d{8}")


def parser(default: DatasetOptions | None = None) -> ArgumentParser:
    """All options but Beam's own; those that decide bytes as in ``default``."""
    default, crawl = default or DatasetOptions(), CrawlOptions()
    result = ArgumentParser(
        "python -m pipelines",
        "Builds a super-resolution dataset from a list of picture URLs. Interrupted, the same "
        "command goes on. Options not listed here go to Beam (--direct_num_workers, "
        "--flink_master, --s3_endpoint_url, ...).",
    )
    add = result.add_argument
    add(
        "--urls",
        metavar="LIST",
        help="'image id TAB URL' lines: local, gs://, s3:// or http(s)://; plain, .gz or .tgz",
    )
    add("--images", metavar="DIR", help="a folder of pictures instead of a list: no network")
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
    add("--output", metavar="DIR", required=True, help="the dataset folder")
    add("--dry-run", action="store_true", help="only say what would be done, and how long")
    add(
        "--overwrite",
        action="store_true",
        help="build anew whatever the folder was begun with; originals are never deleted, they "
        "move to originals/",
    )
    add(
        "--runner",
        default=EMBEDDED,
        metavar="NAME",
        help="flink, spark, dataflow, prism or portable: with the options of deploy/NAME.options; "
        "or one of Beam's own names",
    )

    what = result.add_argument_group("what becomes of the pictures (decides the bytes)")
    add = what.add_argument
    add(
        "--wnids",
        type=_wnids,
        default=default.wnids,
        metavar="FILE|ID,...",
        help="only these classes",
    )
    add(
        "--limit",
        type=positive_int,
        default=default.limit,
        metavar="N",
        help="only so many lines, in the list's order",
    )
    add("--seed", type=_seed, default=default.seed, help="of splits and crops")
    add(
        "--num-shards",
        type=positive_int,
        default=default.num_shards,
        metavar="N",
        help="of the train split, others in proportion; without: one per 5,000 lines, at least 16",
    )
    add(
        "--crop-size", type=positive_int, default=default.crop_size, metavar="PX", help="side of HR"
    )
    add(
        "--crops-per-image",
        type=positive_int,
        default=default.crops_per_image,
        metavar="N",
        help="at most so many",
    )
    add(
        "--crop-margin",
        type=_fraction,
        default=default.crop_margin,
        metavar="PART",
        help="of each side, left out",
    )
    add("--scales", type=scales, default=default.scales, help="LR side = crop size // scale")
    add(
        "--degradation",
        type=_degradation,
        default=default.degradation,
        metavar="|".join(Degradation),
        help="from HR to LR",
    )
    add(
        "--splits",
        type=_splits,
        default=dict(default.splits),
        metavar="NAME=PART,...",
        help="parts that sum to 1",
    )
    add(
        "--max-bytes",
        type=positive_int,
        default=default.max_bytes,
        metavar="BYTES",
        help="of a picture's file",
    )
    add(
        "--robots",
        choices=("obey", "ignore"),
        default="obey" if default.robots else "ignore",
        help="robots.txt",
    )
    add(
        "--allow-host",
        action="append",
        default=list(default.allow_hosts),
        metavar="HOST",
        help="may be reached at a private or loopback address (repeatable)",
    )

    how = result.add_argument_group("speed and politeness")
    add = how.add_argument
    add(
        "--crawlers",
        type=positive_int,
        metavar="N",
        help="in the whole job; without: one a core; required with a runner that is not embedded",
    )
    add(
        "--concurrency",
        type=positive_int,
        default=crawl.concurrency,
        metavar="N",
        help="requests in flight, a crawler",
    )
    add(
        "--timeout",
        type=_positive,
        default=crawl.timeout_s,
        metavar="S",
        help="seconds for one whole request",
    )
    add(
        "--requests-per-host",
        type=_positive,
        default=crawl.requests_per_host,
        metavar="N",
        help="a second, over the whole job: the ceiling for a host and its family",
    )
    add(
        "--silence",
        type=_positive,
        default=1800.0,
        metavar="S",
        help="without a sign of any worker for so long, a job on a cluster has failed",
    )
    add("--user-agent", default=crawl.user_agent, metavar="TEXT", help="tell hosts who asks")
    return result


def _retryable(text: str) -> tuple[Outcome, ...]:
    for word in text.split(","):
        if word not in RETRYABLE:
            raise argparse.ArgumentTypeError(
                f"{word!r} is none of {', '.join(RETRYABLE)}, of which another request may change"
            )
    return tuple(sorted(Outcome(word) for word in set(text.split(","))))


def _wnids(text: str) -> tuple[str, ...]:
    names = text.split(",")
    wrong = [name for name in names if not _WNID.fullmatch(name)]
    # A file only where it is no list: the system refuses to look for so long a name as a list has.
    if wrong and Path(text).is_file():
        names = Path(text).read_text(errors="replace").split()
        wrong = [name for name in names if not _WNID.fullmatch(name)]
    if wrong or not names:
        raise argparse.ArgumentTypeError(
            f"{(wrong or [text])[0]!r} is neither a file nor a WordNet id such as n01440764"
        )
    return tuple(sorted(set(names)))


def _seed(text: str) -> int:
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text} does not fit into 64 bits")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..0.5")
    return value


def _degradation(text: str) -> Degradation:
    try:
        return Degradation(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(Degradation)}") from None


def _splits(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        given = {name.strip(): float(part) for name, part in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form train=0.98,validation=0.01,test=0.01"
        ) from None
    if unknown := given.keys() - set(SPLITS):
        raise argparse.ArgumentTypeError(f"split {min(unknown)!r} is none of {', '.join(SPLITS)}")
    if not (min(given.values()) >= 0 and abs(sum(given.values()) - 1) <= 1e-6):
        raise argparse.ArgumentTypeError(f"the parts of {text} do not sum to 1")
    return {name: given.get(name, 0.0) for name in SPLITS}


def dataset_options(options: argparse.Namespace) -> DatasetOptions:
    """The options that decide bytes. Raises UsageError where they make no sense together."""
    if max(options.scales) > options.crop_size:
        raise UsageError(f"--crop-size {options.crop_size} is less than a scale")
    return DatasetOptions(
        wnids=options.wnids,
        limit=options.limit,
        seed=options.seed,
        num_shards=options.num_shards,
        crop_size=options.crop_size,
        crops_per_image=options.crops_per_image,
        crop_margin=options.crop_margin,
        scales=options.scales,
        degradation=options.degradation,
        splits=options.splits,
        max_bytes=options.max_bytes,
        robots=options.robots == "obey",
        allow_hosts=tuple(sorted({host.lower() for host in options.allow_host})),
    )


def crawl_options(options: argparse.Namespace, crawlers: int) -> CrawlOptions:
    """The options that decide speed and politeness."""
    return CrawlOptions(
        crawlers=crawlers,
        concurrency=options.concurrency,
        timeout_s=options.timeout,
        requests_per_host=options.requests_per_host,
        user_agent=options.user_agent,
    )


def list_source(options: argparse.Namespace) -> AnySource:
    """Where the lines come from. Raises UsageError where that is not said, or twice."""
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
    if earlier or options.retry:
        return _originals(earlier, options.output, options.retry, overwrite=options.overwrite)
    if options.images:
        return Source(options.images, is_folder=True)
    if not options.urls:
        raise UsageError(
            f"--urls LIST (make: URLS=list), --images DIR or --originals DIR is required; "
            f"{WHERE_TO_FIND_COPIES}"
        )
    return Source(options.urls)


def _originals(
    earlier: str | None, output: str, retry: tuple[Outcome, ...], *, overwrite: bool
) -> Originals:
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
