"""--dry-run: what a build would do, and about how long and how large it would get."""

from pipelines.options import CrawlOptions, DatasetOptions
from pipelines.outcomes import describe_totals
from pipelines.plan import Source, Survey, select, shard_names, survey
from pipelines.progress import format_duration

# Measured: real ImageNet photographs, and 200 px crops with three LR versions as PNG.
_ORIGINAL_BYTES = 110_000
_EXAMPLE_BYTES = 110_000
# What one crawler gets through in a second where no host's pace holds it back.
_URLS_A_SECOND = 150


def describe(source: Source, options: DatasetOptions, crawl: CrawlOptions) -> str:
    """The plan of a build in words, without building anything."""
    with source.open() as lines:
        found = survey(select(lines(), options), source.parse, count_duplicates=True)
    shards = {split: len(names) for split, names in shard_names(options, found.lines).items()}
    rejected = found.rejected.values()
    left = found.lines - sum(rejected) - (found.duplicates or 0)
    rows = [
        ("lines", f"{found.lines:,}"),
        ("malformed or unsupported", describe_totals(found.rejected) if found.rejected else "none"),
        ("duplicate URLs", f"{found.duplicates:,}"),
        ("URLs to fetch", f"{left:,}"),
        ("host families", f"{len(found.families):,}"),
        ("shards", ", ".join(f"{split} {count:,}" for split, count in shards.items())),
    ]
    if found.families and not source.is_folder:
        rows += _network_rows(found, left, crawl)
    rows.append(("disk", _disk(left, options)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _network_rows(found: Survey, left: int, crawl: CrawlOptions) -> list[tuple[str, str]]:
    family, count = found.families.most_common(1)[0]
    floor_s = count / crawl.requests_per_host
    crawl_s = left / (_URLS_A_SECOND * crawl.crawlers)
    return [
        (
            "busiest host",
            f"{family}: {count:,} URLs, at {crawl.requests_per_host:g} a second at least "
            f"{format_duration(floor_s)}",
        ),
        (
            "time",
            f"about {format_duration(max(floor_s, crawl_s))} with {crawl.crawlers} crawlers, "
            f"the greater of that and {format_duration(crawl_s)} at {_URLS_A_SECOND} URLs a "
            "second each",
        ),
    ]


def _disk(urls: int, options: DatasetOptions) -> str:
    area = (options.crop_size / 200) ** 2 * options.crops_per_image
    a_picture = _ORIGINAL_BYTES + 2 * _EXAMPLE_BYTES * area
    return (
        f"at most {urls * a_picture / 1e9:,.1f} GB while building if every URL is alive "
        f"({_ORIGINAL_BYTES / 1e3:.0f} KB an original, {_EXAMPLE_BYTES * area / 1e3:.0f} KB an "
        "example, twice until it is finished)"
    )
