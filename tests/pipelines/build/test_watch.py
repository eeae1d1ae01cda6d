from dataclasses import replace

from pipelines.build.stage import Sight
from pipelines.build.watch import Event, Patience, Watch
from pipelines.crawl.report import CrawlReport

SHARDS = 4
BEGUN = CrawlReport({"ok": 1}, crawlers=2)
CRAWLS = Sight(BEGUN, heard=1)
CLUSTER = Patience(silence_s=1800, lifeless_s=300)


def watch(patience: Patience = CLUSTER, crawlers: int = 2) -> Watch:
    return Watch(patience, SHARDS, crawlers, now=0)


def failures(events: list[Event]) -> list[str]:
    return [event.message for event in events if event.is_failure]


def test_a_job_that_never_begins_is_warned_of_after_a_minute_and_fails_after_five() -> None:
    seen = watch()
    seen.tick(Sight(), 0)
    assert seen.tick(Sight(), 60) == []
    (warning,) = seen.tick(Sight(), 61)
    assert not warning.is_failure
    assert warning.message.startswith("no crawler has begun for 61 s (the job fails after 300 s): ")
    assert "a worker pool of its own" in warning.message
    assert seen.tick(Sight(), 300) == []
    (failure,) = failures(seen.tick(Sight(), 301))
    assert failure.startswith("no crawler has begun for 301 s: see whether the job has its slots")


def test_the_time_that_a_job_is_submitted_counts_for_itself() -> None:
    seen = watch()
    waits = Sight(is_submitted=False)
    seen.tick(waits, 0)
    (warning,) = seen.tick(waits, 400)
    assert warning.message.startswith("the job has not been submitted for 400 s (the job fails ")
    assert failures(seen.tick(Sight(), 401)) == []
    assert failures(seen.tick(Sight(), 700)) == []
    assert failures(seen.tick(Sight(), 702)) != []


def test_crawlers_that_live_may_wait_for_slow_hosts() -> None:
    seen = watch()
    for now in range(0, 1_800, 15):
        assert seen.tick(replace(CRAWLS, heard=now), now) == []
    (failure,) = failures(seen.tick(replace(CRAWLS, heard=1_801), 1_801))
    assert failure.startswith("no crawler has done anything for 1801 s (--silence): ")


def test_crawlers_that_give_no_sign_of_life_fail_after_five_minutes() -> None:
    seen = watch()
    seen.tick(CRAWLS, 10)
    (warning,) = seen.tick(CRAWLS, 71)
    assert warning.message.startswith("no crawler has reported for 61 s (the job fails after 300 ")
    assert seen.tick(replace(CRAWLS, heard=2), 80) == []
    (warning,) = seen.tick(replace(CRAWLS, heard=2), 141)  # another silence, another warning
    assert not warning.is_failure
    assert failures(seen.tick(replace(CRAWLS, heard=2), 381)) != []


def test_later_stages_are_warned_of_and_may_take_their_time() -> None:
    seen = watch()
    sorts = Sight(BEGUN, fetched=SHARDS, heard=1)
    seen.tick(sorts, 0)
    (warning,) = seen.tick(sorts, 61)
    assert "it may be at work" in warning.message
    assert failures(seen.tick(sorts, 1_800)) == []
    assert failures(seen.tick(sorts, 1_801)) != []


def test_any_new_file_is_a_sign_of_a_worker() -> None:
    seen = watch()
    for written in range(4):
        sight = Sight(BEGUN, fetched=SHARDS, written=written)
        assert seen.tick(sight, written * 59) == []


def test_what_could_not_be_seen_is_nobodys_silence() -> None:
    seen = watch()
    seen.tick(CRAWLS, 0)
    seen.excuse(3_000)
    assert seen.tick(CRAWLS, 3_010) == []


def test_an_outage_and_its_end_are_told_once() -> None:
    seen = watch()
    waits = replace(CRAWLS, report=replace(BEGUN, outage="no host has answered for 0:01:00"))
    told = [seen.tick(sight, 1) for sight in (CRAWLS, waits, waits, CRAWLS)]
    assert told == [
        [],
        [Event("no host has answered for 0:01:00: waiting")],
        [],
        [Event("the network is back: what failed meanwhile is requested again")],
    ]


def test_a_crawler_that_tells_how_long_it_waits_is_not_silent() -> None:
    seen = watch(Patience(silence_s=60, lifeless_s=60))
    for minute in range(1, 9):
        report = replace(BEGUN, outage=f"no host has answered for 0:0{minute}:00")
        assert failures(seen.tick(replace(CRAWLS, report=report), minute * 60)) == []


def test_a_worker_process_that_never_begins_is_a_failure_after_two_minutes() -> None:
    seen = watch(Patience(workers=2))
    sight = Sight(CrawlReport({"ok": 1}, crawlers=1))
    assert seen.tick(sight, 120) == []
    (failure,) = failures(seen.tick(sight, 121))
    assert failure.startswith("1 of 2 worker processes have not begun within 121 s: ")


def test_the_embedded_runner_has_all_the_time_it_needs() -> None:
    seen = watch(Patience(workers=1))
    for sight in (Sight(CrawlReport(crawlers=3)), Sight(BEGUN, fetched=SHARDS)):
        assert [seen.tick(sight, now) for now in (121, 9_999)] == [[], []]


def test_crawlers_without_a_slot_are_told_of_once() -> None:
    seen = watch(crawlers=4)
    assert seen.tick(CRAWLS, 60) == []
    (warning,) = seen.tick(replace(CRAWLS, heard=2), 61)
    assert warning.message.startswith("2 of 4 crawlers have not begun within 61 s: has the job as")
    assert seen.tick(replace(CRAWLS, heard=3), 90) == []


def test_crawlers_without_the_c_module_are_told_of_once() -> None:
    seen = watch()
    sight = replace(CRAWLS, report=replace(BEGUN, uncompiled=1))
    (warning,) = seen.tick(sight, 1)
    assert warning.message.startswith("1 of 2 crawlers lack the C module: there Pillow does")
    assert seen.tick(sight, 2) == []


def test_a_warning_of_the_crawlers_is_told_once() -> None:
    seen = watch()
    sight = replace(CRAWLS, report=replace(BEGUN, warning="few files"))
    assert [event.message for event in seen.tick(sight, 1)] == ["few files"]
    assert seen.tick(sight, 2) == []
    reports = [CrawlReport(), CrawlReport(warning="few files"), CrawlReport(warning="other")]
    assert CrawlReport.sum(reports).warning == "few files"
