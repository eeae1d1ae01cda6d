"""--dry-run: what a build would do, and about how long and how large it would get."""

from collections.abc import Mapping

from pipelines.command.progress import format_duration
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import describe_totals
from pipelines.lists.originals import IS_ON_THE_WEB, IS_ORIGINAL, Originals
from pipelines.lists.plan import AnySource
from pipelines.lists.sharding import Survey, deal, select, shard_names, survey

# Measured: real ImageNet photographs, and of their 200 px crops the HR and, times the square of
# its scale, an LR as PNG.
_ORIGINAL_BYTES = 103_000
_HR_BYTES = 83_000
_LR_BYTES = 75_000
# What one crawler gets through in a second where no host's pace holds it back, if all are good.
_URLS_A_SECOND = 225


def describe(source: AnySource, options: DatasetOptions, crawl: CrawlOptions) -> str:
    """The plan of a build in words, without building anything."""
    with source.open() as lines:

        def count(end: bytes = b"") -> Survey:
            selected = select(lines(), options)
            if end:
                selected = (line for line in selected if line.endswith(end))
            return survey(selected, source.parse, count_duplicates=True)

        found = web = count()
        at_hand = 0
        if isinstance(source, Originals):
            web, at_hand = count(IS_ON_THE_WEB), _urls(count(IS_ORIGINAL))
    to_fetch = _urls(web)
    names = shard_names(options, found.lines)
    rejected = describe_totals(found.rejected) if found.rejected else "none"
    if source.is_folder:
        rows = [
            ("pictures", f"{to_fetch + at_hand:,}"),
            ("of each split", f"about {_expected(options, to_fetch + at_hand)}"),
        ]
    else:
        rows = [
            ("lines", f"{found.lines:,}"),
            ("malformed or unsupported", rejected),
            ("duplicate URLs", f"{found.duplicates:,}"),
            *([("originals at hand", f"{at_hand:,}")] if isinstance(source, Originals) else []),
            ("URLs to fetch", f"{to_fetch:,}"),
            ("host families", f"{len(found.families):,}"),
        ]
    rows.append(
        ("shards", ", ".join(f"{split} {len(of_split):,}" for split, of_split in names.items()))
    )
    if not source.is_folder and to_fetch + at_hand:
        parts = {
            name: options.splits[split] / len(of_split)
            for split, of_split in names.items()
            for name in of_split
        }
        rows += _time_rows(web, to_fetch + at_hand, parts, crawl)
    rows.append(("disk", _disk(to_fetch, at_hand, options, is_folder=source.is_folder)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _urls(found: Survey) -> int:
    return found.lines - sum(found.rejected.values()) - (found.duplicates or 0)


def _expected(options: DatasetOptions, pictures: int) -> str:
    return ", ".join(f"{split} {part * pictures:,.0f}" for split, part in options.splits.items())


def most(shards: Mapping[str, float], crawlers: int) -> float:
    """The greatest part of the lines that a crawler gets, of shards with so many lines."""
    loads = [sum(shards[name] for name in names) for names in deal(shards, crawlers)]
    return max(loads) / sum(loads)


def _time_rows(
    web: Survey, left: int, shards: Mapping[str, float], crawl: CrawlOptions
) -> list[tuple[str, str]]:
    crawlers = min(crawl.crawlers, len(shards))
    part = most(shards, crawlers)
    crawl_s = part * left / _URLS_A_SECOND
    if not web.families:
        speed = f"with {crawlers} crawlers at {_URLS_A_SECOND} pictures a second each"
        return [("time", f"about {format_duration(crawl_s)} {speed}")]
    family, count = web.busiest
    host_s = count / crawl.requests_per_host
    # A crawler asks a host at its part of the pace, however many of the host's URLs it got.
    slowest_s = part * crawlers * host_s
    return [
        (
            "busiest host",
            f"{family}: {count:,} URLs, at {crawl.requests_per_host:g} a second at least "
            f"{format_duration(host_s)}",
        ),
        (
            "time",
            f"about {format_duration(max(slowest_s, crawl_s))} with {crawlers} crawlers, one of "
            f"which gets {part:.0%} of the lines; without that host "
            f"{format_duration(crawl_s)}, at {_URLS_A_SECOND} URLs a second each",
        ),
    ]


def _disk(to_fetch: int, at_hand: int, options: DatasetOptions, *, is_folder: bool) -> str:
    crop_bytes = _HR_BYTES + _LR_BYTES * sum(scale**-2 for scale in options.scales)
    example_bytes = crop_bytes * (options.crop_size / 200) ** 2
    originals = to_fetch * _ORIGINAL_BYTES
    crops = options.crops_per_image
    if isinstance(crops, str):  # of a photograph of ImageNet, which are 500x375 mostly
        width, height = (int(side * (1 - 2 * options.crop_margin)) for side in (500, 375))
        crops = max(1, (width // options.crop_size) * (height // options.crop_size))
    examples = (to_fetch + at_hand) * crops * example_bytes
    alive = "picture is good" if is_folder else "URL is alive"
    return (
        f"at most {(originals + 2 * examples) / 1e9:,.1f} GB while building and "
        f"{(originals + examples) / 1e9:,.1f} GB in the end, if every {alive} "
        f"({_ORIGINAL_BYTES / 1e3:.0f} KB an original, {example_bytes / 1e3:.0f} KB an example, "
        "which is there twice until all are finished)"
    )
