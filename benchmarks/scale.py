"""How long a crawl takes with 1, 10, 100 crawlers: docs/scale.md's model beside a simulated web.

    python -m benchmarks.scale --list fall11_urls_100k.txt.gz

The crawlers' own code asks the hosts of a real list on a virtual clock; nothing is fetched. What a
host is like is drawn by its family's name; a core's time is what benchmarks/crawl.py measures.
"""

import argparse
import asyncio
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product

from yarl import URL

from pipelines.build.dry_run import most
from pipelines.build.transforms import Job, deal, sharing
from pipelines.crawl.answer import Failure
from pipelines.crawl.crawler import AHEAD
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.web import Web
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import Plan
from pipelines.lists.sharding import Sharding, host_family, select, survey
from pipelines.lists.url_list import Entry, Rejected
from tests.support.simulated_web import CONNECT_S, START_S, Host, SimulatedWeb, in_virtual_time

# Seconds of a core: a picture, download to examples; any other answer.
PICTURE_S, OTHER_S = 0.0044, 0.0005
# A pace grows at the start, and the last requests wait for hosts that do not answer.
_TAIL_S = 20.0


@dataclass(frozen=True)
class Listed:
    """A list as its crawl sees it."""

    shards: Mapping[str, Sequence[Entry]]
    families: Counter[str]
    large_families: frozenset[str]
    """Those that are spread over all shards."""
    options: DatasetOptions


def read(name: str, num_shards: int | None) -> Listed:
    """The URLs of each shard."""
    options = DatasetOptions(num_shards=num_shards)
    source = Source(name)
    shards: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    with source.open() as lines:
        found = survey(select(lines(), options), source.parse)
        sharding = Sharding(options, found.large_families, found.lines, source.parse)
        for line in select(lines(), options):
            try:
                entry = source.parse(line)
            except Rejected:
                continue
            shards[sharding.shard_of(line)].setdefault(entry.request_url, entry)
    entries = {name: list(urls.values()) for name, urls in shards.items()}
    families = Counter(host_family(one.host) for urls in entries.values() for one in urls)
    return Listed(entries, families, frozenset(found.large_families), options)


def name_of(entry: Entry) -> str:
    """As the simulated web calls its host."""
    return URL(entry.request_url).host or ""


def hosts(listed: Listed, live: float, silent: float, seed: int) -> list[Host]:
    """Every host; those of a family share its fate, and the busiest family is there.

    ``live`` families answer; of the others to ``silent`` no connection comes, and the rest have
    lost their names.
    """
    entries = (entry for urls in listed.shards.values() for entry in urls)
    families = {name_of(entry): host_family(entry.host) for entry in entries}
    busiest, _ = listed.busiest
    found = []
    for name, family in sorted(families.items()):
        chance = random.Random(f"{seed} {family}")
        is_there = chance.random() < live or family == busiest
        is_silent = not is_there and chance.random() < silent
        found.append(
            Host(
                name,
                latency_s=chance.lognormvariate(-1.6, 0.7),  # 0.2 s, of one in fifty over 0.8 s
                has_address=is_there or is_silent,
                takes_connections=not is_silent,
            )
        )
    return found


def floors_s(listed: Listed, of_web: Sequence[Host], crawl: CrawlOptions) -> dict[str, float]:
    """What a crawl takes at least, by what bounds it."""
    by_name = {host.name: host for host in of_web}
    entries = [entry for urls in listed.shards.values() for entry in urls]
    pictures = sum(not by_name[name_of(entry)].is_dead for entry in entries)
    silent = sum(not host.takes_connections for host in of_web)
    busiest, its_urls = listed.busiest
    latency_s = next(host.latency_s for host in of_web if host_family(host.name) == busiest)
    crawlers = min(crawl.crawlers, len(listed.shards))
    in_flight = crawlers * crawl.concurrency
    pace = min(crawl.requests_per_host, in_flight / 4 / latency_s)
    part = most({name: len(urls) for name, urls in listed.shards.items()}, crawlers)
    small = max(listed.families[name] for name in listed.families.keys() - listed.large_families)
    return {
        "busiest family": part * crawlers * its_urls / pace,
        "family in one shard": small * crawlers / crawl.requests_per_host,
        "cores": part * (pictures * PICTURE_S + (len(entries) - pictures) * OTHER_S),
        "silent hosts": silent * CONNECT_S / in_flight,
    }


def simulated_s(listed: Listed, web: SimulatedWeb, crawl: CrawlOptions) -> float:
    """How long the last of the crawlers takes, on the virtual clock."""
    with tempfile.TemporaryDirectory() as folder:
        lines = {name: len(urls) for name, urls in listed.shards.items()}
        plan = Plan(listed.options, {}, lines)
        job = Job(DatasetFolder(folder), plan, crawl, Source("list"))
        dealt = deal(job)
        crawl = sharing(job).crawl

    async def crawl_all() -> float:
        async with asyncio.TaskGroup() as crawlers:
            for _, shards in dealt:
                crawlers.create_task(_crawl(web, crawl, [listed.shards[name] for name in shards]))
        return asyncio.get_running_loop().time() - START_S

    random.seed(web.seed)
    return in_virtual_time(crawl_all())


async def _crawl(web: SimulatedWeb, crawl: CrawlOptions, shards: Sequence[Sequence[Entry]]) -> None:
    """As Crawler.run: another shard before the open ones cannot fill the requests in flight."""
    core, waiting = asyncio.Lock(), 0

    async def fetch(entry: Entry) -> None:
        nonlocal waiting
        while True:
            async with crawler.fetch(entry) as answer:
                is_picture = not isinstance(answer, Failure)
                async with core:
                    await asyncio.sleep(PICTURE_S if is_picture else OTHER_S)
            if is_picture or answer.doubt is None or not await answer.doubt:
                break
        waiting -= 1

    with closing(Web(web, crawl)) as crawler:  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as tasks:
            for entries in shards:
                while waiting >= AHEAD * crawl.concurrency:  # noqa: ASYNC110  as there
                    await asyncio.sleep(0.2)
                waiting += len(entries)
                for entry in entries:
                    tasks.create_task(fetch(entry))


def main() -> None:
    """Prints a row for each number of crawlers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", required=True, help="a part of the list, or a list like it")
    parser.add_argument("--crawlers", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--requests-per-host", type=float, nargs="+", default=[100, 1_000])
    parser.add_argument("--live", type=float, default=0.25, help="part of the families")
    parser.add_argument("--silent", type=float, default=0.2, help="part of those not live")
    parser.add_argument("--num-shards", type=int, help="default: as a build of the list")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    listed = read(args.list, args.num_shards)
    of_web = hosts(listed, args.live, args.silent, args.seed)
    urls, families, shards = listed.families.total(), len(listed.families), len(listed.shards)
    print(f"{urls:,} URLs, {families:,} families, {shards:,} shards")
    print("crawlers  requests/s  model s  simulated s  ratio  bound by")
    for requests, crawlers in product(args.requests_per_host, args.crawlers):
        crawl = CrawlOptions(crawlers=crawlers, requests_per_host=requests)
        floors = floors_s(listed, of_web, crawl)
        bound = max(floors, key=floors.__getitem__)
        model_s = floors[bound] + _TAIL_S
        took_s = simulated_s(listed, SimulatedWeb(of_web, seed=args.seed), crawl)
        print(
            f"{crawlers:8}  {requests:10g}  {model_s:7,.0f}  {took_s:11,.0f}  "
            f"{took_s / model_s:5.2f}  {bound}",
            flush=True,
        )


if __name__ == "__main__":
    main()
