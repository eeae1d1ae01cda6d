import asyncio
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from pipelines.hosts import GIVE_UP_AFTER, Host, Pace, parse_robots
from pipelines.http_client import Body, Failure
from pipelines.outcomes import Outcome

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


def make_pace(time: Time, ceiling: float) -> Pace:
    return Pace(ceiling, 4, clock=time.clock, sleep=time.sleep)


def turns(pace: Pace, time: Time, count: int) -> float:
    """Seconds until so many requests have started."""

    async def take() -> None:
        for _ in range(count):
            await pace.turn()

    start = time.now
    asyncio.run(take())
    return time.now - start


def test_the_pace_starts_low(time: Time) -> None:
    pace = make_pace(time, 100)
    assert turns(pace, time, 101) == pytest.approx(10)


def test_it_grows_to_its_ceiling_while_the_host_answers_well(time: Time) -> None:
    pace = make_pace(time, 100)
    for _ in range(1_000):
        pace.answered_well()
    assert pace.rate == pytest.approx(100)
    assert turns(pace, time, 101) == pytest.approx(1, rel=0.05)


def test_a_refusal_halves_it_and_pauses(time: Time) -> None:
    pace = make_pace(time, 100)
    time.now += 5
    pace.refused(30)
    assert pace.rate == pytest.approx(5)
    assert pace.wait_s == pytest.approx(30)
    assert turns(pace, time, 1) == pytest.approx(30)


def test_refusals_of_requests_in_flight_halve_it_once(time: Time) -> None:
    pace = make_pace(time, 100)
    time.now += 5
    for _ in range(20):
        pace.refused(1)
    assert pace.rate == pytest.approx(5)
    time.now += 2
    pace.refused(1)
    assert pace.rate == pytest.approx(2.5)


def test_a_shorter_pause_does_not_end_a_longer_one(time: Time) -> None:
    pace = make_pace(time, 100)
    pace.refused(30)
    pace.refused(1)
    assert pace.wait_s == pytest.approx(30)


def test_it_never_stops_for_good(time: Time) -> None:
    pace = make_pace(time, 100)
    for _ in range(100):
        time.now += 2
        pace.refused(0)
    assert pace.rate >= 1 / 60
    pace.answered_well()
    assert pace.rate > 1


def test_no_pace_at_all(time: Time) -> None:
    pace = make_pace(time, float("inf"))
    pace.answered_well()
    assert turns(pace, time, 1000) == 0


def test_a_host_is_given_up_after_failures_in_a_row() -> None:
    host = Host()
    for outcome in (Outcome.DNS_FAILED, Outcome.CONNECT_FAILED) * GIVE_UP_AFTER:
        assert not host.given_up or host.failures_in_a_row >= GIVE_UP_AFTER
        host.note(Failure(outcome))
    assert host.given_up


def test_any_answer_keeps_a_host() -> None:
    host = Host()
    for _ in range(5 * GIVE_UP_AFTER):
        for _ in range(GIVE_UP_AFTER - 1):
            host.note(Failure(Outcome.CONNECT_FAILED))
        host.note(Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404))
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


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_no_such_file_allows_everything(status: int) -> None:
    assert parse_robots(Failure(Outcome.HTTP_CLIENT_ERROR, http_status=status)) is None


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.HTTP_SERVER_ERROR, 500), (Outcome.RATE_LIMITED, 503)]
)
def test_a_server_error_allows_nothing(outcome: Outcome, status: int) -> None:
    rules = parse_robots(Failure(outcome, http_status=status))
    assert isinstance(rules, Failure)
    assert (rules.outcome, rules.http_status) == (Outcome.ROBOTS_DENIED, status)


@pytest.mark.parametrize(
    "outcome",
    [Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.TLS_FAILED, Outcome.TIMED_OUT],
)
def test_an_unreachable_hosts_failure_is_that_of_its_urls(outcome: Outcome) -> None:
    failure = Failure(outcome, "why")
    assert parse_robots(failure) is failure
