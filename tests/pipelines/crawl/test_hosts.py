import asyncio

import pytest

from pipelines.crawl.answer import Failure
from pipelines.crawl.hosts import GIVE_UP_AFTER, Family, Host, Pace, Slots
from pipelines.dataset.outcome import Outcome


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
    return Pace(ceiling, ceiling / 10, clock=time.clock, sleep=time.sleep)


def turns(pace: Pace, time: Time, count: int) -> float:
    """Seconds until so many requests have started."""

    async def take() -> None:
        slots = asyncio.Semaphore(count)
        for _ in range(count):
            async with pace.turn(slots) as is_granted:
                assert is_granted

    start = time.now
    asyncio.run(take())
    return time.now - start


async def take_turn(pace: Pace, slots: asyncio.Semaphore) -> tuple[bool, bool]:
    """Whether it was granted, and whether it held the last slot."""
    async with pace.turn(slots) as is_granted:
        return is_granted, slots.locked()


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

    pace = Pace(100, 10, clock=time.clock, sleep=sleep)
    assert turns(pace, time, 2) == pytest.approx(30.1)


def test_a_refusal_delays_a_turn_that_waits_for_a_slot(time: Time) -> None:
    async def take() -> float:
        pace, slots = make_pace(time, 100), asyncio.Semaphore(1)
        await slots.acquire()
        turn = asyncio.create_task(take_turn(pace, slots))
        await asyncio.sleep(0)
        pace.note(refusal(30), 1)
        slots.release()
        assert await turn == (True, True)
        assert not slots.locked()
        return time.now

    assert asyncio.run(take()) == pytest.approx(1_030)


def test_slots_within_others_take_theirs_as_well() -> None:
    async def take() -> None:
        every = asyncio.Semaphore(3)
        some = Slots(2, within=every)
        for _ in range(2):
            await some.acquire()
        assert some.locked()
        assert not every.locked()
        some.release()
        for _ in range(2):
            await every.acquire()
        waiting = asyncio.create_task(some.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not some.locked()  # what it had is free again
        every.release()
        await some.acquire()
        assert every.locked()

    asyncio.run(take())


def test_a_pause_of_more_than_ten_minutes_ends_every_turn(time: Time) -> None:
    async def take() -> list[tuple[bool, bool]]:
        pace, slots = make_pace(time, 100), asyncio.Semaphore(1)
        await slots.acquire()
        waiting = [asyncio.create_task(take_turn(pace, slots)) for _ in range(3)]
        await asyncio.sleep(0)
        pace.note(refusal(601), 1)
        slots.release()
        given = await asyncio.gather(*waiting)
        assert not slots.locked()
        return given

    assert asyncio.run(take()) == [(False, False)] * 3


def test_it_never_stops_for_good(time: Time) -> None:
    pace = make_pace(time, 100)
    for _ in range(100):
        time.now += 2
        pace.note(refusal(), 0)
    assert pace.rate >= 1 / 60
    pace.note(GOOD, 1)
    assert pace.rate > 1


def test_a_refusal_never_lets_it_grow(time: Time) -> None:
    pace = Pace(0.01, 0.01, clock=time.clock, sleep=time.sleep)
    time.now += 5
    pace.note(refusal(), 1)
    assert pace.rate <= 0.01


def test_our_own_interval_is_no_pause_of_the_hosts(time: Time) -> None:
    pace = Pace(0.001, 0.001, clock=time.clock, sleep=time.sleep)
    assert turns(pace, time, 3) == pytest.approx(2_000)


def test_a_family_has_its_urls_left_at_its_pace(time: Time) -> None:
    family = Family(make_pace(time, 100), asyncio.Semaphore(8), waiting=50)
    assert family.left_s == pytest.approx(5)
    time.now += 5
    family.pace.note(refusal(30), 1)
    assert family.left_s == pytest.approx(40)


def test_a_host_that_never_answered_is_given_up_after_failures_in_a_row() -> None:
    host = Host("http://a.com")
    for outcome in (Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.TIMED_OUT) * GIVE_UP_AFTER:
        expected = host.failures_in_a_row == GIVE_UP_AFTER - 1
        assert host.note(Failure(outcome), 0, 1) is expected
        assert bool(host.given_up) is (host.failures_in_a_row >= GIVE_UP_AFTER)
    assert host.given_up == "5 requests in a row met no answer"


def test_any_answer_keeps_a_host() -> None:
    host = Host("http://a.com")
    for now in range(5 * GIVE_UP_AFTER):
        for _ in range(GIVE_UP_AFTER - 1):
            host.note(Failure(Outcome.CONNECT_FAILED), now, now)
        host.note(Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404), now, now)
    assert not host.given_up


def test_a_host_is_kept_whose_redirects_lead_nowhere() -> None:
    host = Host("http://a.com")
    for _ in range(5 * GIVE_UP_AFTER):
        host.note(Failure(Outcome.DNS_FAILED, redirected=True), 0, 1)
    assert not host.given_up


def test_requests_that_failed_while_another_was_answered_say_nothing_of_the_host() -> None:
    host = Host("http://a.com")
    host.note(Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404), 1, 2)
    for _ in range(5 * GIVE_UP_AFTER):
        host.note(Failure(Outcome.TIMED_OUT), 1, 4)
    assert not host.given_up
    for _ in range(GIVE_UP_AFTER):
        host.note(Failure(Outcome.TIMED_OUT), 3, 6)
    assert host.given_up


def test_a_host_given_up_shortly_before_an_outage_is_asked_again() -> None:
    host = Host("http://a.com")
    for second in range(GIVE_UP_AFTER):
        host.note(Failure(Outcome.CONNECT_FAILED), second, second + 1)
    host.take_back(GIVE_UP_AFTER + 1)
    assert host.given_up
    host.take_back(GIVE_UP_AFTER)
    assert not host.given_up
    assert not host.note(Failure(Outcome.CONNECT_FAILED), 10, 11)
