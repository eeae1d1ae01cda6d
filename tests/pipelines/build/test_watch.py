from pipelines.build.watch import Event, Watch
from pipelines.crawl.report import CrawlReport

WAITS = CrawlReport({"ok": 1}, outage="no host has answered for 0:01:00")


def test_silence_is_a_failure_once_it_lasted_too_long() -> None:
    watch = Watch(60, now=100)
    assert watch.tick(CrawlReport(), [0, 0], 130) == []
    assert watch.tick(CrawlReport({"ok": 1}), [0, 0], 180) == []
    assert watch.tick(CrawlReport({"ok": 1}), [0, 0], 240) == []
    (event,) = watch.tick(CrawlReport({"ok": 1}), [0, 0], 241)
    assert event.is_failure
    assert event.message.startswith("no worker has done anything for 61 s (--silence): ")


def test_of_a_job_that_never_begins_silence_counts_from_the_start() -> None:
    watch = Watch(60, now=100)
    watch.tick(CrawlReport(), [0, 0], 101)
    assert [event.is_failure for event in watch.tick(CrawlReport(), [0, 0], 170)] == [True]


def test_any_new_file_is_a_sign_of_a_worker() -> None:
    watch = Watch(60, now=0)
    for now in range(0, 600, 50):
        assert watch.tick(CrawlReport({"ok": 1}), [3, now], now) == []
    assert watch.tick(CrawlReport({"ok": 1}), [3, 550], 660) != []


def test_an_outage_and_its_end_are_told_once() -> None:
    watch = Watch(60, now=0)
    told = [watch.tick(report, [], 1) for report in (CrawlReport(), WAITS, WAITS, CrawlReport())]
    assert told == [
        [],
        [Event("no host has answered for 0:01:00: waiting")],
        [],
        [Event("the network is back: what failed meanwhile is requested again")],
    ]


def test_a_crawler_that_tells_how_long_it_waits_is_not_silent() -> None:
    watch = Watch(60, now=0)
    for minute in range(1, 9):
        waits = CrawlReport(outage=f"no host has answered for 0:0{minute}:00")
        assert not [event for event in watch.tick(waits, [], minute * 60) if event.is_failure]


def test_a_worker_process_that_never_begins_is_a_failure_after_two_minutes() -> None:
    watch = Watch(float("inf"), now=0, workers=2)
    assert watch.tick(CrawlReport({"ok": 1}, crawlers=1), [], 120) == []
    (event,) = watch.tick(CrawlReport({"ok": 9}, crawlers=1), [], 121)
    assert event.is_failure
    assert event.message.startswith("1 of 2 worker processes have not begun within 121 s: ")


def test_a_worker_that_has_begun_may_take_its_time() -> None:
    watch = Watch(float("inf"), now=0, workers=1)
    report = CrawlReport(crawlers=3)
    assert [watch.tick(report, [], now) for now in (121, 9_999)] == [[], []]
