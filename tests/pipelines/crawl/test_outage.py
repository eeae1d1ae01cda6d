import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pipelines.command.cli import WorkError
from pipelines.crawl.answer import Failure, Silence
from pipelines.crawl.outage import AGAIN_S, ASKED_HOSTS, LIMIT_S, PATIENCE_S, OutageDetector
from pipelines.dataset.outcome import Outcome

SILENT = Failure(Outcome.CONNECT_FAILED, silence=Silence.HOST)
NO_NAME_SERVER = Failure(Outcome.DNS_FAILED, silence=Silence.NAME_SERVER)
NO_SUCH_NAME = Failure(Outcome.DNS_FAILED)
REFUSED = Failure(Outcome.CONNECT_FAILED)
GONE_PAGE = Failure(Outcome.HTTP_CLIENT_ERROR, http_status=404)
BLOCKED = Failure(Outcome.BLOCKED_ADDRESS)


class World:
    """A network with a clock that sleeping alone moves; it is gone until a time."""

    def __init__(self, known: int = ASKED_HOSTS, name: str = "http://h{}.com") -> None:
        self.now, self.gone_until = 1_000.0, 0.0
        self.probes: list[tuple[float, str]] = []
        self.detector = OutageDetector(self.reaches, clock=lambda: self.now, sleep=self.sleep)
        for number in range(known):
            self.detector.know(name.format(number))

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)

    async def reaches(self, url: str) -> bool:
        self.probes.append((self.now, url))
        return self.now >= self.gone_until


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


async def started(detector: OutageDetector, answer: Failure, begun: float) -> asyncio.Task[bool]:
    task = asyncio.create_task(detector.confirms(answer, begun))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("answer", [GONE_PAGE, REFUSED, NO_SUCH_NAME, BLOCKED, object()])
def test_what_is_no_silence_is_true_at_once(answer: Any) -> None:
    world = World()
    assert asyncio.run(world.detector.confirms(answer, 1_000))
    assert not world.probes


@pytest.mark.parametrize(
    ("failure", "answer"),
    [(SILENT, GONE_PAGE), (SILENT, REFUSED), (SILENT, object()), (NO_NAME_SERVER, NO_SUCH_NAME)],
)
def test_silence_is_believed_once_a_later_request_is_answered(
    failure: Failure, answer: Failure
) -> None:
    async def test() -> None:
        world = World()
        silent = await started(world.detector, failure, 990)
        assert await world.detector.confirms(answer, 999)  # begun before the silence was
        await asyncio.sleep(0)
        assert not silent.done()
        assert await world.detector.confirms(answer, 1_000)
        assert await silent
        assert not world.probes

    run(test)


@pytest.mark.parametrize(
    ("failure", "answer"),
    [(SILENT, BLOCKED), (SILENT, NO_SUCH_NAME), (NO_NAME_SERVER, GONE_PAGE)],
)
def test_what_says_nothing_of_it_settles_nothing(failure: Failure, answer: Failure) -> None:
    async def test() -> None:
        world = World()
        silent = await started(world.detector, failure, 990)
        await world.detector.confirms(answer, 1_000)
        await asyncio.sleep(0)
        assert not silent.done()
        assert await silent
        assert len(world.probes) == 1

    run(test)


def test_an_answer_to_what_outlasted_an_outage_settles_nothing() -> None:
    async def test() -> None:
        world = World()
        world.gone_until = 1_020
        silent = await started(world.detector, SILENT, 990)
        while not world.detector.outage:  # noqa: ASYNC110  the clock is not the loop's
            await asyncio.sleep(0)
        # Begun after the failure, and answered as the first when the network is back.
        assert await world.detector.confirms(GONE_PAGE, 1_001)
        assert not await silent

    run(test)


def test_one_host_that_had_answered_is_asked_where_none_does() -> None:
    async def test() -> None:
        world = World()
        assert all(await asyncio.gather(*[world.detector.confirms(SILENT, 990) for _ in range(50)]))
        assert [time for time, _ in world.probes] == [1_000 + PATIENCE_S]
        assert not world.detector.outage

    run(test)


def test_in_an_outage_everything_waits_and_is_to_be_requested_again() -> None:
    async def test() -> None:
        world = World()
        world.gone_until = 1_100
        early = await started(world.detector, SILENT, 990)
        names = await started(world.detector, NO_NAME_SERVER, 991)
        for _ in range(6):
            await asyncio.sleep(0)
        assert world.detector.outage.startswith("no host has answered for 0:01:01, ")
        late = await started(world.detector, SILENT, 1_005)
        assert await asyncio.gather(early, names, late) == [False] * 3
        assert 1_100 <= world.now <= 1_100 + AGAIN_S
        assert not world.detector.outage
        # It began in the outage and failed after it.
        assert not await world.detector.confirms(SILENT, world.now - 5)
        assert await world.detector.confirms(SILENT, world.now)

    run(test)


def test_an_outage_without_end_fails_everything_that_waits() -> None:
    async def test() -> None:
        world = World()
        world.gone_until = float("inf")
        failures = [await started(world.detector, NO_NAME_SERVER, 990) for _ in range(3)]
        found = await asyncio.gather(*failures, return_exceptions=True)
        assert all(isinstance(error, WorkError) for error in found)
        assert str(found[0]).startswith("no name server has answered for 1:00:")
        assert LIMIT_S < world.now - 1_000 <= LIMIT_S + 2 * AGAIN_S

    run(test)


@pytest.mark.parametrize(
    "world",
    [
        World(known=ASKED_HOSTS - 1),
        World(known=50, name="http://a{}.same.com"),
    ],
    ids=["few", "of one party"],
)
def test_without_hosts_to_ask_silence_is_believed(world: World) -> None:
    world.gone_until = float("inf")
    assert asyncio.run(world.detector.confirms(SILENT, 990))
    assert not world.probes


def test_addresses_say_nothing_of_name_servers() -> None:
    world = World(name="http://10.0.0.{}")
    world.gone_until = 1_010
    assert asyncio.run(world.detector.confirms(NO_NAME_SERVER, 990))
    assert not world.probes
    assert not asyncio.run(world.detector.confirms(SILENT, 990))


def test_a_host_whose_punycode_means_nothing_is_asked_as_well() -> None:
    world = World(name="http://xn--{}.com")
    world.gone_until = 1_010
    assert not asyncio.run(world.detector.confirms(NO_NAME_SERVER, 990))


def test_few_hosts_are_remembered_and_different_ones_asked() -> None:
    world = World(known=1_000)
    world.gone_until = 3_000
    assert not asyncio.run(world.detector.confirms(SILENT, 990))
    asked = {url for _, url in world.probes}
    assert len(asked) == 16
    assert f"http://h{999}.com" in asked


def test_a_cancelled_request_does_not_wait() -> None:
    async def test() -> None:
        world = World()
        world.gone_until = 1_050
        first = await started(world.detector, SILENT, 990)
        second = await started(world.detector, SILENT, 990)
        first.cancel()
        assert not await second

    run(test)
