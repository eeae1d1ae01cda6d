import asyncio
import contextlib
import hashlib
import io
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from yarl import URL

from pipelines.command.cli import WorkError
from pipelines.crawl.answer import Answer, Body, Failure, Redirect, Silence
from pipelines.crawl.hosts import GIVE_UP_AFTER, PROBES, REFUSALS
from pipelines.crawl.http_client import HttpClient
from pipelines.crawl.names import CaresResolver
from pipelines.crawl.options import CrawlOptions
from pipelines.crawl.report import CrawlReport
from pipelines.crawl.web import Web
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import Entry
from tests.support.simulated_web import in_virtual_time

SPEED = CrawlOptions(requests_per_host=100_000, concurrency=16, timeout_s=5, user_agent="me")


class Script:
    """A client that gives each URL its answers in order, the last for ever."""

    def __init__(self, answers: Mapping[str, Sequence[bytes | Failure | Redirect]]) -> None:
        self._answers = answers
        self.asked: Counter[str] = Counter()

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        answers = self._answers.get(url, [Failure(Outcome.HTTP_CLIENT_ERROR, "none", 404)])
        answer = answers[min(self.asked[url], len(answers) - 1)]
        self.asked[url] += 1
        if isinstance(answer, bytes):
            return Body(io.BytesIO(answer), len(answer), hashlib.sha256(answer).hexdigest())
        return answer

    async def robots(self, url: str) -> Answer:
        return await self.picture(url)

    async def reaches(self, url: str) -> bool:
        return True


async def fetch_all(web: Web, urls: Iterable[str]) -> dict[str, bytes | Failure]:
    """The answer to each URL."""
    found: dict[str, bytes | Failure] = {}

    async def fetch(url: str) -> None:
        while True:
            async with web.fetch(Entry("n1", url, url, URL(url).raw_host or "")) as answer:
                found[url] = answer.read() if isinstance(answer, Body) else answer
            if isinstance(answer, Body) or answer.doubt is None or not await answer.doubt:
                return

    async with asyncio.TaskGroup() as tasks:
        for url in urls:
            tasks.create_task(fetch(url))
    return found


def ask(
    client: Any, urls: Iterable[str], speed: CrawlOptions = SPEED, **options: Any
) -> tuple[dict[str, bytes | Failure], CrawlReport]:
    """The answers, and what is reported in the end."""

    async def fetch() -> Any:
        with contextlib.closing(Web(client, speed, **options)) as web:
            return await fetch_all(web, urls), web.report()

    return in_virtual_time(fetch())


def outcomes(found: Mapping[str, bytes | Failure]) -> dict[str, Outcome]:
    return {
        url: answer.outcome if isinstance(answer, Failure) else Outcome.OK
        for url, answer in found.items()
    }


LOST = Failure(Outcome.CONNECTION_LOST)
BUSY = Failure(Outcome.HTTP_SERVER_ERROR, "busy", 500)
SLOW_DOWN = Failure(Outcome.RATE_LIMITED, "slow down", 429, 0.01)
LATER = Failure(Outcome.RATE_LIMITED, "later", 429, 3600)


def test_only_what_may_help_is_tried_again() -> None:
    answers: dict[str, Sequence[bytes | Failure]] = {
        "http://a.com/1": [LOST, LOST, b"1"],
        "http://a.com/2": [LOST, LOST, LOST, b"2"],
        "http://a.com/3": [BUSY, b"3"],
        "http://a.com/4": [BUSY],
        "http://a.com/5": [Failure(Outcome.HTTP_CLIENT_ERROR, "gone", 410)],
        "http://a.com/6": [Failure(Outcome.TIMED_OUT)],
        "http://a.com/7": [Failure(Outcome.TLS_FAILED)],
        "http://b.com/8": [SLOW_DOWN, SLOW_DOWN, b"8"],
        "http://b.com/9": [SLOW_DOWN],
    }
    client = Script(answers)
    found, _ = ask(client, answers)
    assert {url[-1]: outcome for url, outcome in outcomes(found).items()} == {
        "1": Outcome.OK,
        "2": Outcome.CONNECTION_LOST,
        "3": Outcome.OK,
        "4": Outcome.HTTP_SERVER_ERROR,
        "5": Outcome.HTTP_CLIENT_ERROR,
        "6": Outcome.TIMED_OUT,
        "7": Outcome.TLS_FAILED,
        "8": Outcome.OK,
        "9": Outcome.RATE_LIMITED,
    }
    assert found["http://b.com/8"] == b"8"
    asked = {url[-1]: count for url, count in client.asked.items() if "robots" not in url}
    assert asked == dict(zip("123456789", (3, 3, 2, 3, 1, 2, 1, 3, 5), strict=True))


def test_a_host_that_wants_a_long_pause_is_not_waited_for() -> None:
    client = Script({"http://a.com/0": [LATER]})
    speed = CrawlOptions(requests_per_host=100_000, concurrency=4)
    found, _ = ask(client, [f"http://a.com/{n}" for n in range(5)], speed)
    assert outcomes(found)["http://a.com/0"] is Outcome.RATE_LIMITED
    assert {*outcomes(found).values()} <= {Outcome.RATE_LIMITED, Outcome.HTTP_CLIENT_ERROR}
    assert client.asked["http://a.com/0"] == 1


@pytest.mark.parametrize("outcome", [Outcome.DNS_FAILED, Outcome.CONNECT_FAILED])
def test_a_dead_host_is_given_up_for_good(outcome: Outcome) -> None:
    urls = [f"http://dead.com/{n}" for n in range(40)]
    dead = {url: [Failure(outcome)] for url in urls}
    client = Script(dead | {"http://alive.com/1": [b"1"]})

    async def fetch() -> Any:
        speed = CrawlOptions(requests_per_host=100_000, concurrency=4)
        web = Web(client, speed, robots=False)  # type: ignore[arg-type]
        first = await fetch_all(web, urls[:20])
        return first | await fetch_all(web, [*urls[20:], "http://alive.com/1"]), web.report()

    found, report = in_virtual_time(fetch())
    counts = Counter(outcomes(found).values())
    assert counts == {outcome: GIVE_UP_AFTER, Outcome.HOST_GIVEN_UP: 40 - GIVE_UP_AFTER, "ok": 1}
    assert sum(client.asked[url] for url in dead) == GIVE_UP_AFTER
    assert (report.given_up, report.last_given_up) == (1, ("http://dead.com",))


class Stalling(Script):
    """Answers nobody between two times; who meets that, or asks to, waits for the time limit."""

    def __init__(self, start_s: float, end_s: float, *hosts: str, timeout_s: float = 3) -> None:
        super().__init__({})
        self._start, self._end, self._timeout_s = 1_000 + start_s, 1_000 + end_s, timeout_s
        self._hosts = hosts or ("a.com",)

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        answer = await super().picture(url)
        await asyncio.sleep(0.05)
        now = asyncio.get_running_loop().time()
        wait_s = self._end - now if self._start <= now < self._end else 0
        if "hang" in url or (URL(url).host in self._hosts and wait_s > self._timeout_s):
            await asyncio.sleep(self._timeout_s)
            return Failure(Outcome.TIMED_OUT, f"after {self._timeout_s:g} s")
        if URL(url).host in self._hosts:
            await asyncio.sleep(wait_s)
        return answer


@pytest.mark.parametrize("stall_s", [5, 10, 200])
@pytest.mark.parametrize("robots", [True, False])
def test_a_host_that_stalls_for_a_while_loses_no_line(stall_s: float, robots: bool) -> None:
    client = Stalling(2, 2 + stall_s)
    urls = [f"http://a.com/{n}" for n in range(400)]
    found, report = ask(client, urls, CrawlOptions(), robots=robots)
    assert Counter(outcomes(found).values()) == {Outcome.HTTP_CLIENT_ERROR: 400}
    assert report.given_up == 0
    assert client.asked.total() < 500


def test_a_host_that_had_answered_is_given_up_after_minutes_in_which_others_have_the_slots() -> (
    None
):
    client = Stalling(2, float("inf"))

    async def fetch() -> Any:
        web = Web(client, CrawlOptions(concurrency=32))  # type: ignore[arg-type]
        clock = asyncio.get_running_loop().time
        dead = asyncio.create_task(fetch_all(web, [f"http://a.com/{n}" for n in range(400)]))
        await asyncio.sleep(20)
        asked = client.asked.total()
        others = [f"http://{host}/{n}" for host in ("b.a.com", "c.com") for n in range(100)]
        begun = clock()
        await fetch_all(web, others)
        others_s = clock() - begun
        assert client.asked.total() < asked + 200 + 2 + PROBES
        return await dead, web.report(), others_s, clock() - 1_000

    found, report, others_s, took_s = in_virtual_time(fetch())
    assert others_s < 60
    assert 240 < took_s < 360
    counts = Counter(outcomes(found).values())
    assert {*counts} == {Outcome.HTTP_CLIENT_ERROR, Outcome.TIMED_OUT, Outcome.HOST_GIVEN_UP}
    assert counts[Outcome.TIMED_OUT] <= 32
    lost = [answer for answer in found.values() if "robots.txt" in str(answer)]
    assert len(lost) == counts[Outcome.TIMED_OUT] + counts[Outcome.HOST_GIVEN_UP]
    assert (report.given_up, report.last_given_up) == (1, ("http://a.com",))


def test_a_url_that_hangs_at_a_host_that_answers_is_asked_twice() -> None:
    client = Stalling(0, 0)
    urls = [f"http://a.com/hang{n}" for n in range(8)]
    others = [f"http://a.com/{n}" for n in range(400)]
    found, report = ask(client, urls + others, CrawlOptions())
    assert [client.asked[url] for url in urls] == [2] * 8
    assert found[urls[0]] == Failure(
        Outcome.TIMED_OUT, "after 3 s; 2 times, though the host answers"
    )
    counts = Counter(outcomes(found).values())
    assert counts == {Outcome.TIMED_OUT: 8, Outcome.HTTP_CLIENT_ERROR: 400}
    assert report.given_up == 0


def test_a_host_whose_robots_txt_alone_answers_is_given_up() -> None:
    client = Stalling(0, 0)
    urls = [f"http://a.com/hang{n}" for n in range(400)]
    found, report = ask(client, urls, CrawlOptions(concurrency=32))
    counts = Counter(outcomes(found).values())
    assert {*counts} == {Outcome.TIMED_OUT, Outcome.HOST_GIVEN_UP}
    assert counts[Outcome.TIMED_OUT] <= 16
    assert report.given_up == 1


def test_what_a_redirect_leads_to_is_waited_for_as_well() -> None:
    client = Stalling(2, 20)
    moved = {f"http://b.com/{n}": [Redirect(f"http://a.com/{n}", 1)] for n in range(100)}
    client._answers = moved
    found, report = ask(client, moved, CrawlOptions())
    assert Counter(outcomes(found).values()) == {Outcome.HTTP_CLIENT_ERROR: 100}
    assert report.given_up == 0


def test_a_host_that_stalls_at_its_sockets_loses_no_line(server: Any) -> None:
    requests = 0

    async def stall(_: str) -> None:
        nonlocal requests
        requests += 1
        if 20 < requests <= 40:
            await asyncio.sleep(60)

    server.before = stall
    speed = CrawlOptions(requests_per_host=100_000, concurrency=64)

    async def fetch() -> Any:
        async with HttpClient(
            timeout_s=1, max_bytes=100_000, user_agent="me", allow_hosts=frozenset({"127.0.0.1"})
        ) as client:
            with contextlib.closing(Web(client, speed, backoff_s=0.05)) as web:
                return await fetch_all(web, [server.url(f"/{n}") for n in range(100)]), web.report()

    found, report = asyncio.run(asyncio.wait_for(fetch(), 60))
    assert Counter(outcomes(found).values()) == {Outcome.HTTP_CLIENT_ERROR: 100}
    assert report.given_up == 0


class Cut(Script):
    """A web whose network is gone between two times, once the hosts of the first are known."""

    def __init__(self, cut: int, probes: int):
        super().__init__({})
        self._cut, self._probes = cut, probes

    @property
    def is_gone(self) -> bool:
        return self.asked.total() >= self._cut and self._probes > 0

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        if not self.is_gone:
            return await super().picture(url)
        kind = Silence.NAME_SERVER if "name" in url else Silence.HOST
        return Failure(Outcome.CONNECT_FAILED, silence=kind)

    async def reaches(self, url: str) -> bool:
        self._probes -= self.is_gone
        return not self.is_gone


def test_what_fails_while_the_crawlers_own_network_is_gone_is_requested_again() -> None:
    urls = [f"http://{name}{n % 30}.org/{n}" for n in range(300) for name in ("host", "name")]
    client = Cut(cut=100, probes=20)
    found, report = ask(client, urls)
    assert {*outcomes(found).values()} == {Outcome.HTTP_CLIENT_ERROR}
    assert not client.is_gone
    assert (len(found), report.given_up, report.outage) == (600, 0, "")


def test_hosts_that_answered_an_earlier_run_are_asked_in_an_outage_from_the_start() -> None:
    urls = [f"http://h{n % 3}.org/{n}" for n in range(30)]
    found = []
    for answered in ([], [f"http://earlier{n}.org" for n in range(3)]):
        answers, _ = ask(Cut(cut=0, probes=20), urls, answered=answered, robots=False)
        found.append({*outcomes(answers).values()})
    assert found == [
        {Outcome.CONNECT_FAILED, Outcome.HOST_GIVEN_UP},
        {Outcome.HTTP_CLIENT_ERROR},
    ]


class Flapping(Script):
    """A web whose network comes back for a second before it is gone for long."""

    def __init__(self, *gone: tuple[float, float]) -> None:
        super().__init__({})
        self._gone = [(1_000 + start, 1_000 + end) for start, end in gone]

    @property
    def is_gone(self) -> bool:
        now = asyncio.get_running_loop().time()
        return any(start <= now < end for start, end in self._gone)

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        if self.is_gone:
            return Failure(Outcome.CONNECT_FAILED, silence=Silence.HOST)
        await asyncio.sleep(0.1)
        return await super().picture(url)

    async def reaches(self, url: str) -> bool:
        await asyncio.sleep(0)
        return not self.is_gone


def test_what_failed_shortly_before_an_outage_is_requested_again() -> None:
    urls = [f"http://h{n}.org/" for n in range(1_200)]
    found, _ = ask(Flapping((5, 5.5), (7, 100)), urls, robots=False)
    assert {*outcomes(found).values()} == {Outcome.HTTP_CLIENT_ERROR}
    # Without an outage nothing is taken back.
    found, _ = ask(Flapping((5, 5.5)), urls, robots=False)
    assert 0 < Counter(outcomes(found).values())[Outcome.CONNECT_FAILED] <= SPEED.concurrency


def test_an_outage_without_end_fails_the_crawl() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        ask(Cut(cut=50, probes=10**6), [f"http://h{n % 30}.org/{n}" for n in range(100)])
    assert caught.group_contains(WorkError, match="the network seems to be gone")


def test_a_name_server_that_is_gone_for_a_while_is_waited_for(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Much less than the name server is silent for, as it is in earnest.
    monkeypatch.setattr("pipelines.crawl.outage.PATIENCE_S", 0.01)
    monkeypatch.setattr("pipelines.crawl.outage.AGAIN_S", 0.1)
    questions = 0

    def answer_questions(names: socket.socket) -> None:
        nonlocal questions
        with contextlib.suppress(OSError):
            while True:
                question, client = names.recvfrom(4_096)
                questions += 1
                if not 20 < questions < 120:  # all names of the web are this machine
                    name = question[12 : question.index(b"\0", 12) + 5]
                    head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
                    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1"
                    names.sendto(head + name + record, client)

    names = [f"h{n}.example" for n in range(40)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        threading.Thread(target=answer_questions, args=(listener,), daemon=True).start()
        resolver = partial(
            CaresResolver,
            nameservers=["127.0.0.1"],
            udp_port=listener.getsockname()[1],
            timeout=0.1,
            tries=2,
        )

        async def fetch() -> Any:
            async with HttpClient(
                timeout_s=20,
                max_bytes=100_000,
                user_agent="me",
                allow_hosts=frozenset(names),
                resolver=resolver,
            ) as client:
                with contextlib.closing(Web(client, SPEED)) as web:
                    hosts = enumerate(names * 5)
                    return await fetch_all(web, [server.url(f"/{n}", host) for n, host in hosts])

        found = asyncio.run(asyncio.wait_for(fetch(), 60))
    assert {*outcomes(found).values()} == {Outcome.HTTP_CLIENT_ERROR}
    assert len(found) == 200
    assert questions >= 120


def test_robots_are_asked_once_a_host_and_obeyed() -> None:
    urls = [f"http://{host}/{n}" for n, host in enumerate(["a.com"] * 3 + ["b.a.com"] * 3)]
    client = Script({"http://a.com/robots.txt": [b"User-agent: *\nDisallow: /"]})
    found, _ = ask(client, urls)
    counts = Counter(outcomes(found).values())
    assert counts == {Outcome.ROBOTS_DENIED: 3, Outcome.HTTP_CLIENT_ERROR: 3}
    assert client.asked["http://a.com/robots.txt"] == 1
    assert client.asked["http://b.a.com/robots.txt"] == 1
    ignoring = Script({})
    ask(ignoring, urls, robots=False)
    assert sorted(ignoring.asked) == sorted(urls)


def test_a_family_that_refuses_for_ever_is_asked_no_more() -> None:
    urls = [f"http://{host}.a.com/{n}" for host in "bc" for n in range(200)]
    client = Script({url: [Failure(Outcome.RATE_LIMITED, "no", 429)] for url in urls})

    async def fetch() -> Any:
        web = Web(client, SPEED, robots=False)  # type: ignore[arg-type]
        found = await fetch_all(web, urls)
        took_s, asked = asyncio.get_running_loop().time() - 1_000, client.asked.total()
        found |= await fetch_all(web, ["http://d.a.com/", "http://other.com/"])
        return found, took_s, asked, web.report()

    found, took_s, asked, report = in_virtual_time(fetch())
    assert outcomes({"": found.pop("http://other.com/")}) == {"": Outcome.HTTP_CLIENT_ERROR}
    assert {*outcomes(found).values()} == {Outcome.RATE_LIMITED}
    last = found["http://d.a.com/"]
    assert isinstance(last, Failure)
    assert last.detail == f"the host refused {REFUSALS} times in a row"
    assert client.asked.total() == asked + 1  # the other host's
    assert asked < 4 * REFUSALS
    assert took_s < 900
    assert report.given_up == 1
    assert report.last_given_up[0] in ("http://b.a.com", "http://c.a.com")


def test_a_host_that_answers_now_and_then_is_asked_to_the_end() -> None:
    urls = [f"http://a.com/{n}" for n in range(300)]

    class Moody(Script):
        async def picture(self, url: str, redirects: int = 0) -> Answer:
            await super().picture(url)
            good = self.asked.total() % 4 == 0
            return Failure(*(Outcome.HTTP_CLIENT_ERROR, "", 404) if good else (SLOW_DOWN.outcome,))

    client = Moody({})
    found, report = ask(client, urls, robots=False)
    details = {answer.detail for answer in found.values() if isinstance(answer, Failure)}
    assert not [detail for detail in details if detail and "in a row" in detail]
    assert {*client.asked} == {*urls}
    assert report.given_up == 0


def test_the_target_of_a_redirect_is_asked_by_its_own_rules() -> None:
    closed = [b"User-agent: *\nDisallow: /no"]
    there, twice = Redirect("http://b.com/yes", 1), Redirect("http://a.com/back", 2)
    answers: dict[str, Sequence[bytes | Failure | Redirect]] = {
        "http://b.com/robots.txt": closed,
        **{f"http://a.com/{n}": [Redirect("http://b.com/no", 1)] for n in range(20)},
        "http://a.com/ok": [there],
        "http://b.com/yes": [b"0"],
        "http://a.com/round": [Redirect("http://b.com/round", 1)],
        "http://b.com/round": [twice],
        "http://a.com/back": [b"1"],
        "http://a.com/dead": [Redirect("http://dead.com/", 1)],
        "http://dead.com/robots.txt": [Failure(Outcome.DNS_FAILED, "none")],
    }
    client = Script(answers)
    # One request at a time: none may be held while another host's robots.txt is asked for.
    speed = CrawlOptions(requests_per_host=100_000, concurrency=1)
    found, _ = ask(client, [url for url in answers if url.startswith("http://a.com/")], speed)
    denied = Failure(Outcome.ROBOTS_DENIED, "redirected to http://b.com/no: by robots.txt")
    assert [found[f"http://a.com/{n}"] for n in range(20)] == [denied] * 20
    assert (found["http://a.com/ok"], found["http://a.com/round"]) == (b"0", b"1")
    assert outcomes(found)["http://a.com/dead"] is Outcome.DNS_FAILED
    assert client.asked["http://b.com/robots.txt"] == client.asked["http://a.com/robots.txt"] == 1
    assert not client.asked["http://b.com/no"]
    assert not client.asked["http://dead.com/"]


def test_the_target_of_a_redirect_is_asked_at_its_own_pace() -> None:
    urls = [f"http://h{n}.com/" for n in range(20)]
    answers = {url: [Redirect("http://b.com/", 1)] for url in urls}
    client = Script(answers | {"http://b.com/": [LATER]})
    speed = CrawlOptions(requests_per_host=100_000, concurrency=1)
    found, _ = ask(client, urls, speed, robots=False)
    assert {*outcomes(found).values()} == {Outcome.RATE_LIMITED}
    assert client.asked["http://b.com/"] == 1


def test_the_target_of_many_redirects_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.crawl.web._FAMILIES_KEPT", 4)
    urls = [f"http://{name}.com/" for name in "abcdefgh"]
    client = Script({url: [Redirect("http://z.com/", 1)] for url in urls})

    async def fetch() -> None:
        with contextlib.closing(Web(client, SPEED)) as web:  # type: ignore[arg-type]
            for url in urls:
                await fetch_all(web, [url])

    in_virtual_time(fetch())
    assert client.asked["http://z.com/"] == len(urls)
    assert client.asked["http://z.com/robots.txt"] == 1


class Clocked(Script):
    """Notes when each host is asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.times: dict[str, list[float]] = {}

    async def picture(self, url: str, redirects: int = 0) -> Answer:
        now = asyncio.get_running_loop().time()
        self.times.setdefault(URL(url).raw_host or "", []).append(now)
        return await super().picture(url)


def test_hosts_are_paced_apart() -> None:
    client = Clocked()
    urls = [f"http://{host}/{n}" for host in ("a.com", "b.com") for n in range(5)]
    ask(client, urls, CrawlOptions(requests_per_host=100, concurrency=64), robots=False)
    # 100 a second, begun at 5 and growing by one with each answer.
    pauses = [0, 1 / 5, 1 / 6, 1 / 7, 1 / 8]
    expected = [1_000 + sum(pauses[: n + 1]) for n in range(5)]
    for times in client.times.values():
        assert times == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("crawlers", "requests", "count", "seconds"),
    [(1, 1, 12, 11), (100, 1, 3, 200), (1, 0.001, 2, 1_000)],
)
def test_a_pace_of_our_own_is_waited_for_however_slow(
    crawlers: int, requests: float, count: int, seconds: float
) -> None:
    client = Clocked()
    speed = CrawlOptions(crawlers=crawlers, requests_per_host=requests)
    found, _ = ask(client, [f"http://a.com/{n}" for n in range(count)], speed, robots=False)
    assert {*outcomes(found).values()} == {Outcome.HTTP_CLIENT_ERROR}
    times = client.times["a.com"]
    assert times[-1] - times[0] == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("crawlers", [1, 10])
def test_the_interval_of_robots_txt_is_kept_by_all_crawlers_together(crawlers: int) -> None:
    class Robots(Clocked):
        async def robots(self, url: str) -> Answer:
            text = b"User-agent: *\nCrawl-delay: 7"
            return Body(io.BytesIO(text), len(text), hashlib.sha256(text).hexdigest())

    client, speed = Robots(), CrawlOptions(crawlers=crawlers)
    ask(client, [f"http://a.com/{n}" for n in range(5)], speed)
    times = client.times["a.com"]
    assert times[-1] - times[0] == pytest.approx(4 * 7 * crawlers, abs=0.1)


@pytest.mark.parametrize("crawlers", [4, 20])
def test_the_paces_of_all_crawlers_together_are_the_hosts(crawlers: int) -> None:
    client = Clocked()
    speed = CrawlOptions(crawlers=crawlers, requests_per_host=40, concurrency=64)

    async def fetch() -> None:
        async with asyncio.TaskGroup() as tasks:
            for crawler in range(crawlers):
                web = Web(client, speed, robots=False)  # type: ignore[arg-type]
                urls = [f"http://a.com/{crawler}/{n}" for n in range(1_600 // crawlers)]
                tasks.create_task(fetch_all(web, urls))

    in_virtual_time(fetch())
    times = sorted(client.times["a.com"])
    assert len(times) == 1_600
    # 40 requests or more apart: at least a second, but for the exactness of a sleep.
    seconds = [later - time for time, later in zip(times, times[40 + crawlers :], strict=False)]
    assert min(seconds) >= 1
    # It has grown to the ceiling; of many crawlers some end before the last.
    assert seconds[-1 if crawlers == 4 else len(seconds) // 2] < 1.2 * (40 + crawlers) / 44
    assert times[-1] - times[0] < 1.2 * 1_600 / 40  # soon, however many crawlers share it


def test_requests_in_flight_are_limited() -> None:
    class Crowded(Script):
        now = most = 0

        async def picture(self, url: str, redirects: int = 0) -> Answer:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.005)
            self.now -= 1
            return await super().picture(url)

    speed = CrawlOptions(requests_per_host=100_000, concurrency=8)
    # Hosts that have not answered yet leave a quarter to others.
    for hosts, most in ((60, 6), (3, 8)):
        client = Crowded({})
        urls = [f"http://h{n % hosts}.com/{n}" for n in range(60)]
        ask(client, urls, speed, robots=False)
        assert client.most == most
        assert client.asked.total() == 60
