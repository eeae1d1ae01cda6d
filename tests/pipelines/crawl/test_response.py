from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.response import (
    BadResponse,
    ByLength,
    Chunked,
    Framing,
    ToTheEnd,
    framing_of,
    parse_head,
)

OK = b"HTTP/1.1 200 OK\r\n"


def body(framing: Framing, data: bytes, *cuts: int) -> bytes:
    """What is found in data that comes cut into parts."""
    ends = [0, *sorted(cuts), len(data)]
    return b"".join(bytes(framing.take(memoryview(data)[a:b])) for a, b in pairwise(ends))


def test_a_head() -> None:
    head = parse_head(
        b"HTTP/1.0  404  Not\xff Found \r\nX-A: 1\nx-a:2\r\n goes on\r\nEmpty:\r\n\r\n"
    )
    assert (head.version, head.status, head.reason) == ("1.0", 404, "Not\udcff Found")
    assert head.headers == {"x-a": ["1", "2 goes on"], "empty": [""]}
    assert (head.first("x-a"), head.first("none")) == ("1", "")


@pytest.mark.parametrize(
    "first",
    [
        *(b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1", b"ICY 200 OK", b"HTTP/1.1 099 x"),
        "HTTP/1.1 20\N{ARABIC-INDIC DIGIT ZERO} OK".encode(),
    ],
)
def test_another_first_line_is_bad(first: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_head(first + b"\r\n\r\n")


def test_lines_that_go_on_take_no_longer_than_their_bytes() -> None:
    head = parse_head(OK + b"X: y\r\n" + b" \n" * 1_000_000 + b" z\r\n\r\n")
    assert head.first("x").split() == ["y", "z"]


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: Close", False),
        ("1.1", "Connection: x, close", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive", True),
        ("1.1", "Transfer-Encoding: chunked", True),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 3", False),
    ],
)
def test_whether_a_connection_is_kept(version: str, header: str, kept: bool) -> None:
    head = parse_head(f"HTTP/{version} 200 OK\r\n{header or 'X: y'}\r\n\r\n".encode())
    assert head.is_kept_alive is kept


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (b"", ToTheEnd),
        (b"Content-Length: 3\r\n", ByLength),
        (b"Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n", Chunked),
        (b"Transfer-Encoding: identity\r\n", ToTheEnd),
    ],
)
def test_how_a_body_ends(headers: bytes, kind: type[Framing]) -> None:
    assert isinstance(framing_of(parse_head(OK + headers + b"\r\n")), kind)


def test_some_answers_have_no_body() -> None:
    for status in (b"204", b"304"):
        head = parse_head(b"HTTP/1.1 " + status + b" x\r\nContent-Length: 9\r\n\r\n")
        assert framing_of(head).has_ended


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.lists(st.integers(0, 250), max_size=6),
    st.sampled_from([b"", b";name=value"]),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
    st.binary(max_size=3),
)
def test_chunks_are_found_however_they_come(
    chunks: list[bytes], cuts: list[int], extension: bytes, trailer: bytes, more: bytes
) -> None:
    sent = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    sent += b"0\r\n" + trailer + b"\r\n"
    framing = Chunked()
    assert body(framing, sent, *(min(cut, len(sent)) for cut in cuts)) == b"".join(chunks)
    assert framing.has_ended
    assert not framing.has_more
    framing.take(memoryview(more))
    assert framing.has_more is bool(more)


@pytest.mark.parametrize("sent", [b"x\r\n", b"-1\r\n", b"1\r\nab\r\n", b"\r\n", b"1" * 20_000])
def test_bad_chunks(sent: bytes) -> None:
    with pytest.raises(BadResponse):
        body(Chunked(), sent)


def test_tiny_chunks_take_no_longer_than_their_bytes() -> None:
    framing = Chunked()
    assert body(framing, b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n") == b"x" * 40_000
    assert framing.has_ended


@given(st.binary(max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_a_length_is_kept_to(data: bytes, length: int, cut: int) -> None:
    framing = ByLength(length)
    cut = min(cut, len(data))
    assert body(framing, data, cut) == data[:length]
    assert framing.has_ended is (len(data) >= length)
