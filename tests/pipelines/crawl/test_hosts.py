import asyncio
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.hosts import (
    GIVE_UP_AFTER,
    MAX_ROBOTS_BYTES,
    ROBOTS_AGAIN_S,
    Family,
    Host,
    Pace,
    parse_robots,
    robots_again_s,
)
from pipelines.dataset.outcome import Outcome

AGENT = "imagenet-superres/0.1 (x)"


class Time:
    """A clock that sleeping alone moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


GOOD = Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404)


def refusal(pause_s: float | None = None) -> Failure:
    return Failure(Outcome.RATE_LIMITED, None, 429, pause_s)


def make_pace(time: Time, ceiling: float) -> Pace:
    return Pace(ceiling, clock=time.clock, sleep=time.sleep)


def turns(pace: Pace, time: Time, count: int) -> float:
    """Seconds until so many requests have started."""

    async def take() -> None:
        slots = asyncio.Semaphore(count)
        for _ in range(count):
            assert await pace.turn(slots)

    start = time.now
    asyncio.run(take())
    return time.now - start


def test_the_pace_starts_low(time: Time) -> None:
    pace = make_pace(time, 100)
    assert turns(pace, time, 101) == pytest.approx(10)


def test_it_grows_to_its_ceiling_while_the_host_answers_well(time: Time) -> None:
    pace = make_pace(time, 100)
    for _ in range(1_000):
        pace.note(GOOD, 1)
    assert pace.rate == 100
    assert turns(pace, time, 101) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, None])
def test_what_may_be_a_refusal_never_lets_it_grow(time: Time, status: int | None) -> None:
    pace = make_pace(time, 100)
    rate = pace.rate
    outcome = Outcome.RATE_LIMITED if status in (429, 503) else Outcome.HTTP_CLIENT_ERROR
    pace.note(Failure(outcome, http_status=status), 1)
    assert pace.rate <= rate


def test_a_refusal_halves_it_and_pauses(time: Time) -> None:
    pace = make_pace(time, 100)
    time.now += 5
    pace.note(refusal(30), 1)
    assert pace.rate == pytest.approx(5)
    assert pace.wait_s == pytest.approx(30)
    assert turns(pace, time, 1) == pytest.approx(30)


def test_refusals_of_requests_in_flight_halve_it_once(time: Time) -> None:
    pace = make_pace(time, 100)
    time.now += 5
    for _ in range(20):
        pace.note(refusal(), 1)
    assert pace.rate == pytest.approx(5)
    time.now += 2
    pace.note(refusal(), 1)
    assert pace.rate == pytest.approx(2.5)


def test_a_shorter_pause_does_not_end_a_longer_one(time: Time) -> None:
    pace = make_pace(time, 100)
    pace.note(refusal(30), 1)
    pace.note(refusal(1), 1)
    assert pace.wait_s == pytest.approx(30)


def test_a_refusal_delays_a_turn_that_sleeps_already() -> None:
    time = Time()

    async def sleep(seconds: float) -> None:
        time.now += seconds
        if time.now < 1_001:
            pace.note(refusal(30), 1)

    pace = Pace(100, clock=time.clock, sleep=sleep)
    assert turns(pace, time, 2) == pytest.approx(30.1)


def test_a_refusal_delays_a_turn_that_waits_for_a_slot(time: Time) -> None:
    async def take() -> float:
        pace, slots = make_pace(time, 100), asyncio.Semaphore(1)
        await slots.acquire()
        turn = asyncio.create_task(pace.turn(slots))
        await asyncio.sleep(0)
        pace.note(refusal(30), 1)
        slots.release()
        assert await turn
        assert slots.locked()
        return time.now

    assert asyncio.run(take()) == pytest.approx(1_030)


def test_a_pause_of_more_than_ten_minutes_ends_every_turn(time: Time) -> None:
    async def take() -> list[bool]:
        pace, slots = make_pace(time, 100), asyncio.Semaphore(1)
        await slots.acquire()
        waiting = [asyncio.create_task(pace.turn(slots)) for _ in range(3)]
        await asyncio.sleep(0)
        pace.note(refusal(601), 1)
        slots.release()
        given = await asyncio.gather(*waiting)
        assert not slots.locked()
        return given

    assert asyncio.run(take()) == [False] * 3


def test_it_never_stops_for_good(time: Time) -> None:
    pace = make_pace(time, 100)
    for _ in range(100):
        time.now += 2
        pace.note(refusal(), 0)
    assert pace.rate >= 1 / 60
    pace.note(GOOD, 1)
    assert pace.rate > 1


def test_no_pace_at_all(time: Time) -> None:
    pace = make_pace(time, float("inf"))
    pace.note(GOOD, 1)
    assert turns(pace, time, 1000) == 0


def test_a_family_has_its_urls_left_at_its_pace(time: Time) -> None:
    family = Family(make_pace(time, 100), asyncio.Semaphore(8), waiting=50)
    assert family.left_s == pytest.approx(5)
    time.now += 5
    family.pace.note(refusal(30), 1)
    assert family.left_s == pytest.approx(40)


def test_a_host_is_given_up_after_failures_in_a_row() -> None:
    host = Host("http://a.com")
    for outcome in (Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.TIMED_OUT) * GIVE_UP_AFTER:
        expected = host.failures_in_a_row == GIVE_UP_AFTER - 1
        assert host.note(Failure(outcome)) is expected
        assert host.given_up is (host.failures_in_a_row >= GIVE_UP_AFTER)
    assert host.given_up


def test_any_answer_keeps_a_host() -> None:
    host = Host("http://a.com")
    for _ in range(5 * GIVE_UP_AFTER):
        for _ in range(GIVE_UP_AFTER - 1):
            host.note(Failure(Outcome.CONNECT_FAILED))
        host.note(Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404))
    assert not host.given_up


def test_a_host_is_kept_whose_redirects_lead_nowhere() -> None:
    host = Host("http://a.com")
    for _ in range(5 * GIVE_UP_AFTER):
        host.note(Failure(Outcome.DNS_FAILED, redirected=True))
    assert not host.given_up


def body(data: bytes) -> Body:
    return Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())


def allowed(text: str, url: str = "http://a.com/pictures/1.jpg") -> bool:
    rules = parse_robots(body(text.encode()))
    assert isinstance(rules, Protego)
    return rules.can_fetch(url, AGENT)


def test_rules_are_obeyed() -> None:
    assert allowed("")
    assert allowed("User-agent: *\nDisallow: /private/")
    assert not allowed("User-agent: *\nDisallow: /pictures/")
    assert allowed("User-agent: *\nDisallow: /pictures/\nAllow: /pictures/1")
    assert not allowed("User-agent: imagenet-superres\nDisallow: /\n\nUser-agent: *\nAllow: /")
    assert allowed("User-agent: *\nDisallow: /\n\nUser-agent: imagenet-superres\nAllow: /")
    assert not allowed("\ufeffUser-agent: *\r\nDisallow: *.jpg$")


@given(st.binary(max_size=200), st.text(max_size=10))
def test_any_bytes_are_rules(data: bytes, path: str) -> None:
    rules = parse_robots(body(b"User-agent: *\nDisallow: /" + data))
    assert isinstance(rules, Protego)
    rules.can_fetch(f"http://a.com/{path}", AGENT)


def test_a_cut_off_last_line_is_no_rule() -> None:
    text = "User-agent: *\nDisallow: /private\n"
    text += "#" * (MAX_ROBOTS_BYTES - len(text) - len("\nDisallow: /")) + "\nDisallow: /"
    assert len(text) == MAX_ROBOTS_BYTES
    assert allowed(text)
    assert not allowed(text, "http://a.com/private/1.jpg")


@pytest.mark.parametrize("status", [204, 401, 403, 404, 410, 429])
def test_no_such_file_allows_everything(status: int) -> None:
    outcome = Outcome.RATE_LIMITED if status == 429 else Outcome.HTTP_CLIENT_ERROR
    rules = parse_robots(Failure(outcome, http_status=status))
    assert rules is None
    assert robots_again_s(rules) == float("inf")


def test_too_many_redirects_allow_everything() -> None:
    assert parse_robots(Failure(Outcome.TOO_MANY_REDIRECTS)) is None


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.HTTP_SERVER_ERROR, 500), (Outcome.RATE_LIMITED, 503)]
)
def test_a_server_error_allows_nothing(outcome: Outcome, status: int) -> None:
    rules = parse_robots(Failure(outcome, http_status=status))
    assert isinstance(rules, Failure)
    assert (rules.outcome, rules.http_status) == (Outcome.ROBOTS_DENIED, status)
    assert robots_again_s(rules) == ROBOTS_AGAIN_S


@pytest.mark.parametrize(
    ("outcome", "again_s"),
    [
        (Outcome.DNS_FAILED, 0),
        (Outcome.CONNECT_FAILED, 0),
        (Outcome.TIMED_OUT, 0),
        (Outcome.TLS_FAILED, ROBOTS_AGAIN_S),
        (Outcome.CONNECTION_LOST, ROBOTS_AGAIN_S),
    ],
)
def test_an_unreachable_hosts_failure_is_that_of_its_urls(outcome: Outcome, again_s: float) -> None:
    failure = Failure(outcome, "why")
    assert parse_robots(failure) is failure
    assert robots_again_s(failure) == again_s
