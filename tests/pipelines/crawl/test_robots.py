import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.robots import (
    MAX_ROBOTS_BYTES,
    ROBOTS_AGAIN_S,
    parse_robots,
    robots_again_s,
)
from pipelines.dataset.outcome import Outcome

AGENT = "imagenet-superres/0.1 (x)"


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
