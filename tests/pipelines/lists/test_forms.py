import gzip
import hashlib
import json
import random
from base64 import b64encode
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.cli import UsageError
from pipelines.lists.columns import Columns
from pipelines.lists.list_file import Source, read_lines

MD5 = hashlib.md5(b"picture").digest()
SHA256 = hashlib.sha256(b"picture").hexdigest()
NONE = Columns()


def lines(folder: Path, data: bytes | str, name: str = "list", given: Columns = NONE) -> list[str]:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [line.decode() for line in read_lines([path], given)]


OPEN_IMAGES = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,Title,OriginalMD5,Thumbnail300KURL,Rotation\n"
    f'0a,train,http://a.org/1.jpg,http://a.org/1,"One, ""two""\nlines",{b64encode(MD5).decode()},'
    "http://c5.org/t.jpg,0.0\n"
    "0b,train,http://a.org/2.jpg,http://a.org/2,Title,,,\n"
)
OPEN_IMAGES_LINES = [f"0a\thttp://a.org/1.jpg\tmd5:{MD5.hex()}", "0b\thttp://a.org/2.jpg"]
NUMBERED = ["0000000001\thttp://a.org/1.jpg", "0000000002\thttp://a.org/2.jpg"]


def zstd(data: bytes) -> bytes:
    """Of two frames, as packers with several threads write them."""
    parts = data[:99], data[99:]
    return b"".join(pa.compress(part, "zstd", asbytes=True) for part in parts)


def marked(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


@pytest.mark.parametrize("name", ["list", "list.csv", "list.txt"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd, marked])
def test_open_images_is_known_by_its_header(tmp_path: Path, name: str, pack: Any) -> None:
    assert lines(tmp_path, pack(OPEN_IMAGES.encode()), name) == OPEN_IMAGES_LINES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "cc3.tsv",
            "a very nice photo\thttp://a.org/1.jpg\nb c\thttp://a.org/2.jpg\nd\thttp://a.org",
        ),
        ("cc12.tsv", 'http://a.org/1.jpg\t"open quote\nhttp://a.org/2.jpg\ta b\nhttp:\tx'),
        ("cc.csv", '"nice, big",http://a.org/1.jpg\na b,http://a.org/2.jpg\nx y,http:\n'),
        ("urls.txt", "http://a.org/1.jpg\nhttp://a.org/2.jpg\nhttp:\n"),
        ("urls", "http://a.org/1.jpg\r\nhttp://a.org/2.jpg\r\nhttp:"),
        ("urls.csv", "http://a.org/1.jpg\nhttp://a.org/2.jpg\nhttp:\n"),
        ("urls.csv", "url\nhttp://a.org/1.jpg\nhttp://a.org/2.jpg\nhttp:\n"),
        ("some.csv", "caption;URL\na;http://a.org/1.jpg\nb;http://a.org/2.jpg\nc;http:\n"),
        ("l.jsonl", '{"url": "http://a.org/1.jpg"}\n{"b":1,"url":"http://a.org/2.jpg"}\n'),
    ],
)
def test_rows_without_an_id_get_their_number(tmp_path: Path, name: str, text: str) -> None:
    assert lines(tmp_path, text, name)[:2] == NUMBERED


def test_a_list_that_grows_at_its_end_keeps_its_lines(tmp_path: Path) -> None:
    urls = [f"http://a.org/{number}.jpg" for number in range(1_200)]
    short = lines(tmp_path, "\n".join(urls[:900]))
    longer = lines(tmp_path, "\n".join(urls))
    assert longer[:900] == short
    assert longer == sorted(longer)  # a copy that is added is never the one that is kept


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x1,http://a.org/1,2.jpg", None),
        ("x1,http://a.org/1.jpg\nx2,http://a.org/2.jpg", "x1\thttp://a.org/1.jpg"),
        ("http://a.org/1.jpg,x1\nhttp://a.org/2.jpg,x2", "x1\thttp://a.org/1.jpg"),
        ("id,url\nred car,http://a.org/1.jpg", "red%20car\thttp://a.org/1.jpg"),
        ('id,url\n1,"http://a.org/\n1.jpg"', "1\thttp://a.org/1.jpg"),
        (f"key,url,sha256\n1,http://a.org/,{SHA256}", f"1\thttp://a.org/\tsha256:{SHA256}"),
        (f"key,url,md5\n1,http://a.org/,{MD5.hex().upper()}", f"1\thttp://a.org/\tmd5:{MD5.hex()}"),
        ("key,url,md5\n1,http://a.org/,12ab", "1 http://a.org/ 12ab"),
        ("id,url\n1\n", "1"),
        ("id,url\n\n", ""),
        ("id,url\n1,\n", "1 "),
        ("id,url\n,http://a.org/\n", " http://a.org/"),
    ],
)
def test_rows_of_csv(tmp_path: Path, text: str, wanted: str | None) -> None:
    """A malformed one has no TAB."""
    try:
        found = lines(tmp_path, text, "list.csv")[0]
    except UsageError:
        found = None
    assert found == wanted


def test_a_quote_that_is_never_closed_costs_no_more_than_a_field_may_hold(tmp_path: Path) -> None:
    rows = [f"{number},http://a.org/{number}.jpg" for number in range(20_000)]
    rows[7] = '7,"http://a.org/7.jpg'
    found = lines(tmp_path, "\n".join(["id,url", *rows]), "list.csv")
    assert found[:7] == [row.replace(",", "\t") for row in rows[:7]]
    assert "\t" not in found[7]
    assert found[-1] == rows[-1].replace(",", "\t")
    assert len(found) > 14_000


@given(
    st.lists(
        st.tuples(*[st.text(st.sampled_from('ab,;"\n\r é'), max_size=9)] * 2),
        min_size=1,
        max_size=9,
    )
)
def test_csv_is_read_as_pyarrow_writes_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    urls = [f"http://a.org/{number}" for number in range(len(rows))]
    table = pa.table({"note": [one for one, _ in rows], "url": urls, "x": [b for _, b in rows]})
    pa.csv.write_csv(table, folder / "written")
    found = lines(folder, (folder / "written").read_bytes(), "list.csv")
    assert [line.partition("\t")[2] for line in found] == urls


def test_json_lines_that_are_no_row_are_malformed(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"key": 7, "url": "http://a.org/1.jpg", "sha256": SHA256, "exif": {"a": 1}},
        {"key": 8.0, "url": "http://a.org/2.jpg", "sha256": None},
        {"key": {}, "url": "http://a.org/"},
        {"caption": "no\ttab"},
        [1],
    ]
    text = "\n".join([*map(json.dumps, rows), "{", "[" * 99_999])
    found = lines(tmp_path, text, "list.jsonl")
    assert found[:2] == [f"7\thttp://a.org/1.jpg\tsha256:{SHA256}", "8\thttp://a.org/2.jpg"]
    assert len(found) == 7
    assert not any("\t" in line for line in found[2:])


def test_parquet_in_parts_is_one_list(tmp_path: Path) -> None:
    """As LAION has it: ids that were numbers, and lost ones."""
    for part in range(2):
        table = pa.table(
            {
                "SAMPLE_ID": [part * 2 + 1.0, part * 2 + 2.0, None],
                "URL": [f"http://a.org/{part}/1.jpg", f"http://a.org/{part}/2.jpg", None],
                "TEXT": ["a", "b", "c"],
                "exif": [{"a": 1}] * 3,
            }
        )
        pq.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=1)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "stats.json").write_text("{}")
    with Source(str(tmp_path)).open() as opened:
        found = [line.decode() for line in opened()]
        assert list(opened()) == [line.encode() for line in found]
    assert [line for line in found if "\t" in line] == [
        "1\thttp://a.org/0/1.jpg",
        "2\thttp://a.org/0/2.jpg",
        "3\thttp://a.org/1/1.jpg",
        "4\thttp://a.org/1/2.jpg",
    ]
    assert len(found) == 6
    with Source(str(tmp_path), columns=Columns(url="URL", image_id="TEXT")).open() as opened:
        assert next(opened()) == b"a\thttp://a.org/0/1.jpg"


@pytest.mark.parametrize(
    ("text", "given", "wanted"),
    [
        ("a,b\n1,http://a.org/", NONE, r"has the columns a, b: --url-column"),
        ("1,http://a.org/,3\n2,http://a.org/2,4", NONE, r"has the columns 1, 2, 3: --url-column"),
        ("a,b\n1,http://a.org/", Columns(url="c"), r"no column 'c' for --url-column, but a, b"),
        ("a,url\n1,http://a.org/", Columns(image_id="c"), r"no column 'c' for --id-column"),
        ("a,url\n1,http://a.org/", Columns(checksum="3"), r"no column '3' for --checksum-column"),
        ('{"a":1}', NONE, r"has the columns a: --url-column"),
        ("a,b\n1,2", NONE, "is not a list"),
        ("[\n]", NONE, "is not a list"),
    ],
)
def test_unknown_columns_are_one_line_that_names_them(
    tmp_path: Path, text: str, given: Columns, wanted: str
) -> None:
    with pytest.raises(UsageError, match=wanted):
        lines(tmp_path, text, "list.csv", given)


def test_parquet_without_urls_or_cut_off(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    with pytest.raises(UsageError, match="has the columns a, b: --url-column"):
        lines(tmp_path, data, "list")
    with pytest.raises(UsageError, match="cannot read the list"):
        lines(tmp_path, data[:-9], "list")


def test_columns_are_given_by_name_or_number(tmp_path: Path) -> None:
    by_name = Columns("address", "name", "sum")
    text = f"name,address,sum\nx,http://a.org/,{SHA256}\n"
    wanted = [f"x\thttp://a.org/\tsha256:{SHA256}"]
    assert lines(tmp_path, text, "list.csv", by_name) == wanted
    assert lines(tmp_path, text, "list.csv", Columns("2", "1", "3")) == wanted
    headless = text.partition("\n")[2]
    assert lines(tmp_path, headless, "list.csv", Columns("2", "1", "3")) == wanted
    thumbnails = lines(tmp_path, OPEN_IMAGES, "list", Columns(url="Thumbnail300KURL"))
    assert thumbnails[0].startswith("0a\thttp://c5.org/t.jpg\t")


def test_the_imagenet_form_keeps_every_byte(tmp_path: Path) -> None:
    random.seed(0)
    text = b"\n".join(
        b"n01440764_%d\thttp://a.org/%s" % (n, random.randbytes(20).replace(b"\n", b""))
        for n in range(50)
    ).replace(b"\r", b"")
    (tmp_path / "list.csv").write_bytes(b"a,b\nurl,c\n" + text + b"\nx y\thttp://a.org/\n")
    found = list(read_lines([tmp_path / "list.csv"]))
    assert found == [b"a,b", b"url,c", *text.split(b"\n"), b"x y\thttp://a.org/"]
