import gzip
import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import (
    Entry,
    Rejected,
    host_family,
    is_address,
    parse_line,
    parse_path_line,
    plain_lines,
    request_url,
)

PLAIN_URL = st.from_regex(
    re.compile(
        r"https?://[a-z0-9.-]{1,20}(:[0-9]{1,5})?(/[A-Za-z0-9%._~!$*+,;=:@|\[\]&'-]{0,8}){0,4}"
        r"(\?([a-z&;/?.'=%\[-]|&amp;){0,8})?"
    ),
    fullmatch=True,
)
# What a URL is made of, and what makes it no plain one.
PARTS = (
    *(b" ", b"\t", b"\r", b"\0", b"\x7f", b"\xe9", b"a" * 40, b"a" * 41, b"md5:" + b"a" * 32),
    *rb"http:// https:// / // . .. %2e %2E % ? # & &amp; amp; @ : :80 \ - -- _ ~ ' ^ | [".split(),
    *b"a Z 0 0x1 127.1 xn-- www com co.uk uk ck www.ck blogspot.com kawasaki.jp flickr.com".split(),
    *(b"staticflickr.com", b"flic.kr"),
)
PARTS_LINE = st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join)
HOST = st.lists(
    st.sampled_from([part for part in PARTS if re.fullmatch(rb"[-.\w%]+", part)]),
    min_size=1,
    max_size=4,
)
PLAIN_LINE = st.builds(
    lambda host, path: b"n1_1\thttp://" + b".".join(host) + b"/" + path, HOST, PARTS_LINE
)


def parsed(line: bytes) -> Entry | Rejected:
    try:
        return parse_line(line)
    except Rejected as reason:
        return reason


def check(line: bytes) -> None:
    result = parsed(line)
    if isinstance(result, Rejected):
        assert result.row.outcome in (Outcome.MALFORMED_LINE, Outcome.UNSUPPORTED_URL)
        assert result.row.detail
        malformed = result.row.outcome is Outcome.MALFORMED_LINE
        assert result.row.line == (line if malformed else None)
        return
    assert result.request_url.isascii()
    assert " " not in result.request_url
    again = request_url(result.request_url)
    assert str(again) == result.request_url
    assert again.raw_host == result.host
    result.image_id.encode()
    result.url.encode()


@given(st.binary(max_size=120))
def test_any_bytes_are_an_entry_or_rejected(line: bytes) -> None:
    check(line)


@given(
    st.binary(max_size=40), st.sampled_from([b"http:", b"http://", b"https://a.com/", b"ftp://"])
)
@example(b"[", b"http://")
@example(b"a:80\\x", b"http://")
@example(b"\xff.com", b"http://")
def test_any_bytes_as_a_url_are_an_entry_or_rejected(rest: bytes, start: bytes) -> None:
    check(b"n01440764_1\t" + start + rest)


@given(PLAIN_URL)
def test_an_ordinary_url_is_an_entry_or_rejected(url: str) -> None:
    check(f"n1_1\t{url}".encode())


@pytest.mark.parametrize(
    ("url", "requested"),
    [
        ("http://a.com/x?a=1&amp;b=2", "http://a.com/x?a=1&b=2"),
        ("http://a.com\\x\\y.jpg", "http://a.com/x/y.jpg"),
        ("http:\\\\a.com\\x", "http://a.com/x"),
        ("http:a.com/x", "http://a.com/x"),
        ("http:////a.com/x", "http://a.com/x"),
        ("HTTP://A.Com/X", "http://a.com/X"),
        ("http://a.com", "http://a.com/"),
        ("http://a.com?q=1", "http://a.com/?q=1"),
        ("http://a.com/a b.jpg", "http://a.com/a%20b.jpg"),
        ("  http://a.com/x ", "http://a.com/x"),
        ("http://a.com/é.jpg", "http://a.com/%C3%A9.jpg"),
        ("http://a.com/x?q=é", "http://a.com/x?q=%C3%A9"),
        ("http://a.com/%7E%zz%2", "http://a.com/%7E%zz%2"),
        ('http://a.com/"<>`{}', "http://a.com/%22%3C%3E%60%7B%7D"),
        ("http://a.com/x#top", "http://a.com/x"),
        ("http://a.com/x?#top", "http://a.com/x"),
        ("http://a.com/x?", "http://a.com/x"),
        ("http://a.com/a/./b/../c", "http://a.com/a/c"),
        ("http://a.com/../../x", "http://a.com/x"),
        ("http://a.com/a/..", "http://a.com/"),
        ("http://a.com/a//b", "http://a.com/a//b"),
        ("http://a.com:80/x", "http://a.com/x"),
        ("https://a.com:443/x", "https://a.com/x"),
        ("http://a.com:8080/x", "http://a.com:8080/x"),
        ("http://a.com:/x", "http://a.com/x"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://a_b.com/x", "http://a_b.com/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://2130706433/x", "http://127.0.0.1/x"),
        ("http://0x7F.1/x", "http://127.0.0.1/x"),
        ("http://user@0177.0.1:8080/x", "http://user@127.0.0.1:8080/x"),
        ("http://0x/x", "http://0.0.0.0/x"),
        ("http://１２７.1/x", "http://127.0.0.1/x"),
        ("http://1.2.3.4./x", "http://1.2.3.4/x"),
        ("http://1.com/x", "http://1.com/x"),
        ("http://a.0xg/x", "http://a.0xg/x"),
        ("http://a.com/http://b.com/x", "http://a.com/http://b.com/x"),
    ],
)
def test_a_url_is_requested_as_a_browser_would(url: str, requested: str) -> None:
    assert str(request_url(url)) == requested
    entry = parse_line(f"n01440764_1\t{url}".encode())
    assert entry.request_url == requested
    assert entry.url == url.strip()


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("y.jpg", "http://a.com/b/y.jpg"),
        ("../y.jpg?q#f", "http://a.com/y.jpg?q"),
        ("/y", "http://a.com/y"),
        ("//c.com/y", "http://c.com/y"),
        ("\\\\c.com\\y", "http://c.com/y"),
        ("https://c.com", "https://c.com/"),
        ("?q", "http://a.com/b/x?q"),
        ("", "http://a.com/b/x?p"),
    ],
)
def test_a_redirect_is_followed_as_a_browser_would(location: str, requested: str) -> None:
    assert str(request_url(location, "http://a.com/b/x?p")) == requested


def spellings(parts: list[int]) -> st.SearchStrategy[str]:
    """The numbers in all the ways that a URL may write them."""
    written = [
        st.sampled_from([f"{part}", f"0{part:o}", f"0x{part:x}", f"0X{part:X}", f"00{part:o}"])
        for part in parts
    ]
    return st.tuples(*written).map(".".join)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(["", "."]), st.data())
def test_an_address_is_the_same_however_it_is_written(
    address: int, count: int, dot: str, data: st.DataObject
) -> None:
    dotted = str(IPv4Address(address))
    first = [int(part) for part in dotted.split(".")[: count - 1]]
    host = data.draw(spellings([*first, address % 256 ** (5 - count)]))
    entry = parse_line(f"n1_1\thttp://{host}{dot}/x".encode())
    assert (entry.request_url, entry.host) == (f"http://{dotted}/x", dotted)


@given(st.text("0123456789abcdefx._-", max_size=20))
def test_a_host_that_ends_in_a_number_is_an_address_or_unsupported(host: str) -> None:
    result = parsed(f"n1_1\thttp://{host}/x".encode())
    if isinstance(result, Entry) and is_address(result.host):
        assert str(IPv4Address(result.host)) == result.host
    elif isinstance(result, Entry):
        last = result.host.removesuffix(".").rpartition(".")[2]
        assert not re.fullmatch("0x[0-9a-f]*", last)


@pytest.mark.parametrize(
    "host",
    [
        *("256.1.1.1", "1.2.3.256", "1.2.65536", "4294967296", "08.1.1.1", "0x1g.1", "1.2.3.4.5"),
        *("a.1", "a.0x1", "a.08", "1..2", "1_0.1", "0b1.1", "-1.1", "9" * 60),
    ],
)
def test_numbers_that_are_no_address_are_unsupported(host: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(f"n01440764_1\thttp://{host}/x".encode())
    assert caught.value.row.outcome is Outcome.UNSUPPORTED_URL


@pytest.mark.parametrize(
    "url",
    [
        "a.com/x.jpg",
        "ftp://a.com/x",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "http:///",
        "http://a.com:99999/x",
        "http://a.com:0/x",
        "http://a.com:port/x",
        "http://a..com/x",
        "http://.a.com/x",
        "http://a,b.com/x",
        "http://a.com../x",
        "http://" + "a" * 64 + ".com/x",
        "http://" + "a." * 126 + "com/x",
        "http://a b.com/x",
        "http://[::1/x",
        "http://" + "a" * 300 + ".com/x",
    ],
)
def test_other_urls_are_unsupported(url: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(f"n01440764_1\t{url}".encode())
    row = caught.value.row
    assert (row.outcome, row.image_id, row.url) == (Outcome.UNSUPPORTED_URL, "n01440764_1", url)
    assert row.detail


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\t",
        b"n1_1",
        b"n1_1\t",
        b"n1_1\t  ",
        b"\thttp://a/",
        b"n1 1\thttp://a/",
        b"n1_1 http://a/",
    ],
)
def test_a_line_without_id_and_url_is_malformed(line: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(line)
    assert (caught.value.row.outcome, caught.value.row.line) == (Outcome.MALFORMED_LINE, line)


def test_bytes_that_are_not_utf8_are_percent_encoded() -> None:
    entry = parse_line(b"n1_\xe9\thttp://a.com/caf\xe9.jpg")
    assert entry.image_id == "n1_%E9"
    assert entry.url == entry.request_url == "http://a.com/caf%E9.jpg"


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("farm1.static.flickr.com", "flickr.com"),
        ("live.staticflickr.com", "flickr.com"),
        ("flic.kr", "flickr.com"),
        ("www.bbc.co.uk", "bbc.co.uk"),
        ("a.example.com.", "example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("2130706433", "2130706433"),
        ("::1", "::1"),
        ("localhost", "localhost"),
        ("alice.blogspot.com", "alice.blogspot.com"),
    ],
)
def test_host_family(host: str, family: str) -> None:
    assert host_family(host) == family


def test_host_family_agrees_with_every_rule_of_the_public_suffix_list() -> None:
    suffixes = PublicSuffixList()
    rules = {rule.lstrip("!").replace("*", "any") for rule in suffixes._publicsuffix}
    hosts = {below + rule for rule in rules for below in ("", "a.", "b.a.", "c.b.a.")}
    hosts |= {below + rule.rpartition(".")[2] for rule in rules for below in ("a.", "b.a.")}
    own = {host: suffixes.privatesuffix(host) or host for host in hosts if "flic" not in host}
    assert {host: host_family(host) for host in own} == own


def test_a_path_line_is_an_entry_without_a_host() -> None:
    entry = parse_path_line(b"n1/a%20b\tn1/a%20b.jpg")
    assert entry == Entry("n1/a%20b", "n1/a%20b.jpg", "n1/a%20b.jpg", "")


def test_every_line_of_the_real_list_is_an_entry_or_rejected(shared_data: Path) -> None:
    with gzip.open(shared_data / "imagenet" / "fall11_urls_100k.txt.gz") as file:
        lines = [line.rstrip(b"\r\n") for line in file]
    results = [*map(parsed, lines)]
    assert len(results) == 100_472
    entries = [result for result in results if isinstance(result, Entry)]
    assert len(entries) == len(results)  # odd ports, tabs and bytes, but nothing hopeless
    assert all(entry.request_url.isascii() for entry in entries)
    odd = [entry for entry in entries if entry.request_url != entry.url]
    assert len(odd) == 360
    assert not [entry for entry in odd if "&amp;" in entry.request_url]
    assert sum("&amp;" in entry.url for entry in odd) > 50
    assert sum(not entry.url.isascii() for entry in odd) > 200
    plain = [*zip(*plain_lines(b"\n".join([*lines, b""])), entries, strict=True)]
    assert sum(bool(url) for url, _, _ in plain) == 99_780
    for url, family, entry in plain:
        assert (url, family) in [("", ""), (entry.request_url, host_family(entry.host))]


def plain(line: bytes) -> bool:
    """Whether a line is plain: then it has the URL and the family that every line gets alone."""
    (url,), (family,) = plain_lines(line + b"\n")
    result = parsed(line)
    if url:
        assert isinstance(result, Entry)
        assert (url, family) == (result.request_url, host_family(result.host))
    else:
        assert not family
    return bool(url)


@given(
    st.one_of(PARTS_LINE, PARTS_LINE.map(b"n1_1\t".__add__), PLAIN_LINE, PLAIN_URL.map(str.encode))
)
def test_a_plain_line_is_parsed_as_any_other(line: bytes) -> None:
    plain(line)


@pytest.mark.parametrize(
    "rest",
    [
        *(b"a.com/", b"a.com/x.jpg", b"www.a_b.co.uk/x?a=1&b=2", b"a.com/x//y./z..a/w%7E%2e"),
        *(b"farm1.static.flickr.com/1/2_m.jpg", b"live.staticflickr.com/1/2_m.jpg"),
        *(b"a.com/x\tmd5:" + b"0" * 32, b"a.com/x\tsha256:" + b"f" * 64),
    ],
)
def test_plain_lines(rest: bytes) -> None:
    assert plain(b"n1_1\thttp://" + rest)


@pytest.mark.parametrize(
    "rest",
    [
        *(b"a.com", b"a.com/x?", b"a.com/x#y", b"a.com/./x", b"a.com/x/..", b"a.com/%2E/x"),
        *(b"a.com/x&amp;y", b"xn--a.com/x", b"a.com:80/x", b"127.0.0.1/x", b"a.0x1/x", b"A.com/"),
        *(b"a.com/x y", b"a.com/x ", b"a.com/\xe9", b"a..com/x", b"a.ck/x", b"a.com/x\ta dog"),
        *(b"a.com/\\x", b"a.com/'", b"u@a.com/x", b"localhost/x", b"a" * 64 + b".com/x"),
        *(b"a." * 126 + b"com/x", (b"a" * 40 + b".") * 7 + b"com/x"),
    ],
)
def test_other_lines_are_not_plain(rest: bytes) -> None:
    assert not plain(b"n1_1\thttp://" + rest)


def test_a_further_column_is_no_part_of_the_url() -> None:
    entry = parse_line(b"n1_1\thttp://a.org/1.jpg\ta dog\t7")
    assert (entry.url, entry.request_url) == ("http://a.org/1.jpg", "http://a.org/1.jpg")
    assert parse_line(b"n1_1\t\thttp://a.org/1.jpg \t").url == "http://a.org/1.jpg"
    # Elsewhere it is, as in browsers.
    assert str(request_url("http://a.com/x\ty\t.jpg")) == "http://a.com/xy.jpg"
