import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.robots import (
    MAX_ROBOTS_BYTES,
    ROBOTS_AGAIN_S,
    interval_s,
    opt_out,
    parse_robots,
    product_token,
    refusal,
    robots_again_s,
)
from pipelines.dataset.outcome import Outcome

US = product_token("imagenet-superres/0.1 (research dataset crawler; an image robot)")


def body(data: bytes) -> Body:
    return Body(io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())


def allowed(text: str, url: str = "http://a.com/pictures/1.jpg") -> bool:
    return refusal(parse_robots(body(text.encode()), US), url) is None


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
    rules = parse_robots(body(b"User-agent: *\nDisallow: /" + data), US)
    refusal(rules, f"http://a.com/{path}")
    assert 0 <= interval_s(rules) < float("inf")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("imagenet-superres", True),
        ("ImageNet-SuperRes", True),
        ("imagenet-superres/0.1", True),
        ("imagenet-superres # us", True),
        *((word, False) for word in ("research", "dataset", "crawler", "image", "robot")),
        *((word, False) for word in ("imagenet", "superres", "imagenet-superres-2", "ours")),
    ],
)
def test_a_group_holds_for_its_product_token_alone(name: str, ours: bool) -> None:
    assert allowed(f"User-agent: {name}\nDisallow: /") is not ours
    assert allowed(f"User-agent: *\nDisallow: /\n\nuser-agent:{name}\nAllow: /") is ours
    both = f"User-agent: {name}\nUser-agent: else\nDisallow: /\n\nUser-agent: *\nAllow: /"
    assert allowed(both) is not ours


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("User-agent: *\nCrawl-delay: 2.5", 2.5),
        ("User-agent: *\nRequest-rate: 1/10", 10),
        ("User-agent: *\nCrawl-delay: 2\nRequest-rate: 1/1m", 60),
        ("User-agent: *\nCrawl-delay: 9\n\nUser-agent: imagenet-superres\nCrawl-delay: 1", 1),
        ("User-agent: *\nCrawl-delay: 9\n\nUser-agent: imagenet-superres\nAllow: /", 0),
        ("User-agent: crawler\nCrawl-delay: 9", 0),
        ("User-agent: *\nCrawl-delay: soon\nRequest-rate: 0/5", 0),
        ("User-agent: *\nCrawl-delay: -1", 0),
    ],
)
def test_the_interval_that_our_group_wants(text: str, seconds: float) -> None:
    rules = parse_robots(body(text.encode()), US)
    assert interval_s(rules) == seconds
    assert refusal(rules, "http://a.com/") is None


def test_a_host_that_wants_more_than_a_minute_is_not_asked() -> None:
    rules = parse_robots(body(b"User-agent: *\nCrawl-delay: 61\nDisallow: /no"), US)
    wanted = Failure(Outcome.RATE_LIMITED, "robots.txt wants 61 s between two requests")
    assert refusal(rules, "http://a.com/") == wanted
    denied = refusal(rules, "http://a.com/no")
    assert denied and denied.outcome is Outcome.ROBOTS_DENIED


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("imagenet-superres: noai", True),
        ("ImageNet-SuperRes: nofollow, NoAI", True),
        ("otherbot: noindex", False),
        ("otherbot: nofollow, noai", False),
        ("otherbot: none, imagenet-superres: noai", True),
        ("imagenet-superres: nofollow, otherbot: noai", False),
        ("noai, otherbot: nofollow", True),
        ("*: noindex", True),
        ("max-snippet: 5, noai", True),
        ("crawler: noai", False),
        ("imagenet: noai", False),
        ("unavailable_after: Friday, 25 Jun 2010 15:00:00 PST, noai", True),
    ],
)
def test_an_opt_out_holds_for_whom_its_line_names(value: str, holds: bool) -> None:
    assert opt_out(["all", value], US) == (value if holds else None)


def test_a_cut_off_last_line_is_no_rule() -> None:
    text = "User-agent: *\nDisallow: /private\n"
    text += "#" * (MAX_ROBOTS_BYTES - len(text) - len("\nDisallow: /")) + "\nDisallow: /"
    assert len(text) == MAX_ROBOTS_BYTES
    assert allowed(text)
    assert not allowed(text, "http://a.com/private/1.jpg")


@pytest.mark.parametrize("status", [204, 401, 403, 404, 410, 429])
def test_no_such_file_allows_everything(status: int) -> None:
    outcome = Outcome.RATE_LIMITED if status == 429 else Outcome.HTTP_CLIENT_ERROR
    rules = parse_robots(Failure(outcome, http_status=status), US)
    assert rules is None
    assert robots_again_s(rules) == float("inf")


def test_too_many_redirects_allow_everything() -> None:
    assert parse_robots(Failure(Outcome.TOO_MANY_REDIRECTS), US) is None


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.HTTP_SERVER_ERROR, 500), (Outcome.RATE_LIMITED, 503)]
)
def test_a_server_error_allows_nothing(outcome: Outcome, status: int) -> None:
    rules = parse_robots(Failure(outcome, http_status=status), US)
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
    assert parse_robots(failure, US) is failure
    assert robots_again_s(failure) == again_s
