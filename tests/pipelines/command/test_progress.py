import logging
import sys
from types import ModuleType

import pytest

from pipelines.command.progress import LOG_INTERVAL_S, Progress, format_duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_line_has_rate_time_left_and_note(clock: Clock) -> None:
    progress = Progress("crawl", 5_000, unit="URLs", initial=200, terminal=False, clock=clock)
    clock.now += 10
    progress.update(1_200, "ok 280")
    assert str(progress) == "crawl: 1,200 of 5,000 URLs (24 %), 100.0 URLs/s, 0:00:38 left, ok 280"


def test_nothing_done_is_no_division_by_zero(clock: Clock) -> None:
    progress = Progress("crawl", 0, unit="URLs", terminal=False, clock=clock)
    assert str(progress) == "crawl: 0 of 0 URLs (0 %), 0.0 URLs/s, 0:00:00 left"


def test_one_line_an_interval_and_one_at_the_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Progress("crawl", 100, unit="URLs", terminal=False, clock=clock) as progress:
        for done in range(1, 100):
            clock.now += LOG_INTERVAL_S / 10
            progress.update(done)
        progress.update(100)
    lines = caplog.text.splitlines()
    assert len(lines) == 10
    assert "crawl: 10 of 100 URLs (10 %)" in lines[0]
    assert "crawl: 100 of 100 URLs (100 %)" in lines[-1]


def test_a_bar_on_a_terminal_with_a_line_below(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("crawl", 10, unit="URLs", initial=2, terminal=True, clock=clock) as progress:
        progress.update(10, "ok 8")
    shown = capsys.readouterr().err
    assert "crawl" in shown
    assert "10/10" in shown
    assert "\n\rok 8" in shown


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    bars = []
    monkeypatch.setattr(
        "pipelines.command.progress.notebook_bar", lambda: lambda **options: bars.append(options)
    )
    Progress("crawl", 10, unit="URLs")
    assert [options.get("desc") for options in bars] == ["crawl", None]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3_661, "1:01:01"), (2 * 86_400 + 11_045, "2 d 3:04:05")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_without_a_total_the_time_is_shown_and_no_last_line(
    clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    with Progress("duplicates", None, terminal=False, clock=clock) as progress:
        clock.now += 90
        progress.update(0, "9 pictures are compared")
    assert [record.getMessage() for record in caplog.records] == [
        "duplicates: for 0:01:30, 9 pictures are compared"
    ]
    with Progress("duplicates", None, terminal=True, clock=clock) as progress:
        progress.update(0)
    assert "duplicates: 00:00" in capsys.readouterr().err
