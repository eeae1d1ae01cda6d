import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.hosts import GIVE_UP_AFTER
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.web import START_RATE
from tests.support.simulated_web import CONNECT_S, Crawled, Host, SimulatedWeb, crawl

# Of a stall or an outage: "some minutes" that a crawler waits.
LONGEST_S = 200


@st.composite
def spans(draw: st.DrawFn, longest_s: int) -> list[tuple[float, float]]:
    """Up to two, a quarter of an hour between them."""
    first = draw(st.integers(3, 30))
    lengths = draw(st.lists(st.integers(1, longest_s), max_size=2))
    return [(first + n * 900.0, first + n * 900.0 + s) for n, s in enumerate(lengths)]


MOODS = st.one_of(
    st.fixed_dictionaries({"latency_s": st.sampled_from([0.02, 0.3, 2.0])}),
    st.fixed_dictionaries({"has_address": st.just(False), "urls": st.just(200)}),
    st.fixed_dictionaries({"takes_connections": st.just(False), "urls": st.just(200)}),
    st.fixed_dictionaries({"silent": spans(LONGEST_S), "urls": st.integers(40, 200)}),
    st.fixed_dictionaries({"slow_start_s": st.sampled_from([3.0, 12.0])}),
    st.fixed_dictionaries(
        {
            "capacity": st.sampled_from([0.2, 3, 20]),
            "retry_after_s": st.sampled_from([None, 1.0, 30.0]),
            "urls": st.integers(10, 60),
        }
    ),
)


@st.composite
def webs(draw: st.DrawFn) -> tuple[SimulatedWeb, CrawlOptions]:
    moods = draw(st.lists(MOODS, min_size=1, max_size=8))
    crawlers = draw(st.sampled_from([1, 1, 3]))
    # Those that are asked for a connection in an outage.
    well = [Host(f"well{n}.com", urls=60 * crawlers) for n in range(4)]
    copies = draw(st.integers(1, 6))
    hosts = [
        Host(f"{'abcdefgh'[kind]}{n}.org", **mood)  # type: ignore[arg-type]
        for kind, mood in enumerate(moods)
        for n in range(copies)
    ]
    web = SimulatedWeb(
        [*well, *hosts],
        outages=draw(spans(1_000)),
        seed=draw(st.integers(0, 1_000)),
        asks_robots=draw(st.booleans()),
    )
    requests = draw(st.sampled_from([2.0, 30.0, 100.0]))
    return web, CrawlOptions(crawlers=crawlers, requests_per_host=requests)


def check(web: SimulatedWeb, options: CrawlOptions, crawled: Crawled) -> None:
    """What holds in any web."""
    # A turn may come a moment early, once for each crawler.
    in_a_second = math.ceil(options.requests_per_host) + options.crawlers
    for host in web.hosts:
        times = web.asked.get(host.name, [])
        for first, last in zip(times, times[in_a_second:], strict=False):
            assert last - first >= 1 - 1e-6, f"{host} was asked too fast at {first}"
        found = crawled.outcomes(host.name)
        assert found.total() == host.urls
        if host.is_dead:
            assert "ok" not in found
            # Without robots.txt, which one asks for all, those that begin before five have failed.
            at_once = 0 if web.asks_robots else 2 * START_RATE * CONNECT_S
            most = options.crawlers * GIVE_UP_AFTER + at_once
            assert len(times) <= most * (1 + len(web.outages))
        elif host.capacity == math.inf and has_answered_before(host, web):
            assert found == {"ok": host.urls}, (host, crawled.answers[host.name])


def has_answered_before(host: Host, web: SimulatedWeb) -> bool:
    """Whether a host had answered before it was silent: one that never did is soon given up."""
    return not host.silent or web.answered[host.name] < host.silent[0][0]


@pytest.mark.slow
@given(webs())
@settings(max_examples=25)
def test_whatever_the_moods_of_hosts_and_network(
    web_and_options: tuple[SimulatedWeb, CrawlOptions],
) -> None:
    web, options = web_and_options
    check(web, options, crawl(web, options))


@pytest.mark.slow
@given(webs())
@settings(max_examples=5)
def test_the_same_seed_gives_the_same_crawl(
    web_and_options: tuple[SimulatedWeb, CrawlOptions],
) -> None:
    web, options = web_and_options
    again = SimulatedWeb(web.hosts, web.outages, seed=web.seed, asks_robots=web.asks_robots)
    assert crawl(web, options) == crawl(again, options)
    assert web.asked == again.asked


def a_large_web(seed: int) -> SimulatedWeb:
    """Three hosts in four are dead, as on an old list."""
    kinds = [
        {"latency_s": 0.2},
        {"silent": [(12.0, 200.0)], "urls": 200},
        {"capacity": 3.0, "urls": 30},
        {"capacity": 3.0, "retry_after_s": 20.0, "urls": 30},
        {"slow_start_s": 8.0},
        *[{"has_address": False, "urls": 5}] * 9,
        *[{"takes_connections": False, "urls": 5}] * 6,
    ]
    hosts = [Host(f"h{n}.org", **kinds[n % len(kinds)]) for n in range(1_000)]  # type: ignore[arg-type]
    large = Host("large.com", urls=8_000)
    outages = [(100.0, 130.0), (1_500.0, 3_000.0)]
    return SimulatedWeb([large, *hosts], outages, seed=seed)


@pytest.mark.slow
def test_thousands_of_hosts_and_four_crawlers() -> None:
    web, options = a_large_web(seed=1), CrawlOptions(crawlers=4, requests_per_host=20)
    crawled = crawl(web, options)
    check(web, options, crawled)
    assert crawled.took_s < 6 * 3_600


def test_silent_hosts_hold_no_large_family_up() -> None:
    silent = [Host(f"h{n}.org", urls=1, takes_connections=False) for n in range(1_500)]
    web = SimulatedWeb([Host("large.com", urls=2_000), *silent])
    crawled = crawl(web, CrawlOptions())
    assert crawled.took_s > 1_500 * CONNECT_S / 256
    assert max(web.asked["large.com"]) < 35  # 100 a second, once its pace has grown
