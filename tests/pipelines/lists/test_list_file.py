import codecs
import gzip
import io
import logging
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.command.cli import UsageError, WorkError
from pipelines.lists import forms
from pipelines.lists.list_file import Source, local_copies, read_lines
from pipelines.lists.pictures import picture_lines
from pipelines.lists.url_list import parse_path_line

LINES = [b"n01440764_1\thttp://a.com/1.jpg", b"n01440764_2\thttp://a.com/\xe9.jpg", b"bad line"]
TEXT = b"\r\n".join(LINES) + b"\n"


def tar(members: dict[str, bytes], mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def lines_of(name: str) -> list[bytes]:
    with local_copies(name) as paths:
        return list(read_lines(paths))


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        gzip.compress(TEXT),
        tar({"fall11_urls.txt": TEXT}, "w:gz"),
        tar({"fall11_urls.txt": TEXT}, "w"),
    ],
    ids=["plain", "gz", "tgz", "tar"],
)
def test_a_list_is_read_by_its_content_whatever_its_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "list"
    path.write_bytes(data)
    assert lines_of(str(path)) == LINES


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"\x7fELF" + bytes(range(256)) * 8, "is not a list"),
        (b"one\ntwo\n", "is not a list"),
        (b"n1_1 http://a.com/x\n", "is not a list"),
        (gzip.compress(TEXT)[:-9], "cannot read"),
        (gzip.compress(TEXT * 99)[:60], "cannot read"),
        (b"\x1f\x8b" + b"nonsense" * 9, "cannot read"),
        (gzip.compress(TEXT)[:-8] + b"\0" * 8, "cannot read"),
        (tar({"a": TEXT, "b": TEXT}, "w:gz"), "holds more than one file"),
        (tar({}, "w:gz"), "is not a list|is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "list"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        lines_of(str(path))
    assert str(path) in str(caught.value)


def test_a_packed_list_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"".join(b"n01440764_%d\thttp://a.com/%d.jpg\n" % (n, n) for n in range(200_000))
    (tmp_path / "list").write_bytes(tar({"fall11_urls.txt": text}, "w:gz"))
    unpacked = 0

    class Counting(gzip._GzipReader):  # type: ignore[misc, name-defined]
        def read(self, size: int = -1) -> bytes:
            nonlocal unpacked
            data: bytes = super().read(size)
            unpacked += len(data)
            return data

    monkeypatch.setattr(gzip, "_GzipReader", Counting)
    assert len(lines_of(str(tmp_path / "list"))) == 200_000
    assert len(text) < unpacked < 1.1 * len(text)


def test_a_missing_list_names_where_copies_are_found(tmp_path: Path) -> None:
    for name in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match=r"there is no list.*copies are kept"):
            lines_of(str(name))


def test_an_object_store_that_cannot_be_read_is_an_error_of_the_input() -> None:
    with pytest.raises(UsageError, match="cannot read the list nonsense://x/y"):
        lines_of("nonsense://x/y")


@pytest.mark.parametrize("data", [TEXT, gzip.compress(TEXT)], ids=["plain", "gz"])
def test_a_list_comes_over_http(
    server: Any, http_answer: Callable[..., bytes], data: bytes
) -> None:
    server.routes["/list.gz"] = http_answer(data, headers={"Content-Type": "application/x-gzip"})
    assert lines_of(server.url("/list.gz")) == LINES
    assert server.requests["/list.gz"] == 1


def test_a_list_over_http_is_kept_compressed_as_sent(
    server: Any, http_answer: Callable[..., bytes]
) -> None:
    server.routes["/"] = http_answer(gzip.compress(TEXT), headers={"Content-Encoding": "gzip"})
    assert lines_of(server.url()) == LINES


def test_a_missing_address_is_an_error_of_the_input(server: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot fetch the list.*404"):
        lines_of(server.url("/none"))
    server.close()
    with pytest.raises(UsageError, match="cannot fetch the list"):
        lines_of(server.url("/none"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_download_that_breaks_off_fails(server: Any, http_answer: Callable[..., bytes]) -> None:
    server.routes["/"] = http_answer(TEXT, length=len(TEXT) + 1)
    with pytest.raises(WorkError, match="broke"):
        lines_of(server.url())
    server.routes["/chunked"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nn1_1\t\r\n"
    )
    with pytest.raises(WorkError, match="broke"):
        lines_of(server.url("/chunked"))


def test_picture_lines_are_sorted_and_encoded(tmp_path: Path) -> None:
    for name in (
        "n2/b.JPG",
        "n2/a c.png",
        "n1/é\t.webp",
        "top.gif",
        "n1/notes.txt",
        "n1/x.jpg.part",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = list(picture_lines([str(tmp_path)]))
    assert lines == [
        b"n1/%C3%A9%09\tn1/%C3%A9%09.webp",
        b"n2/a%20c\tn2/a%20c.png",
        b"n2/b\tn2/b.JPG",
        b"top\ttop.gif",
    ]
    assert [parse_path_line(line).image_id for line in lines][1] == "n2/a%20c"


def test_special_files_are_not_opened_and_pictures_without_a_suffix_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "JPEG")
    for name in ("a.jpg", "b", "c.data"):
        (tmp_path / name).write_bytes(picture.getvalue())
    (tmp_path / "notes").write_bytes(b"nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "good.png").symlink_to("a.jpg")
    with Source(str(tmp_path), is_folder=True).open() as lines:
        for _ in range(2):
            assert [line.partition(b"\t")[2] for line in lines()] == [
                *(b"a.jpg", b"b", b"c.data", b"good.png")
            ]
    told = [record.message.removeprefix(f"{tmp_path}: ") for record in caplog.records]
    assert told == [
        "2 files are pictures by their first bytes alone",
        "3 pipes, sockets, devices or links to nothing are left out",
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n"])
@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("last", [False, True])
def test_lines_end_as_any_system_ends_them(
    tmp_path: Path, end: bytes, start: bytes, last: bool
) -> None:
    wanted = [f"n01440764_{n}\thttp://a.org/{'x' * (n % 97)}.jpg".encode() for n in range(60_000)]
    wanted[7] = b""
    text = start + end.join(wanted) + (end if last else b"")
    (tmp_path / "list").write_bytes(text)
    assert len(text) > 3 << 20
    assert list(read_lines([tmp_path / "list"])) == wanted


@given(
    st.lists(st.sampled_from([b"n1\thttp://a/", b"\r", b"\n", b"\r\n", b"x"]), max_size=12),
    st.integers(1, 5),
)
def test_no_chunk_splits_a_line_end(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    whole = list(forms.entry_lines(io.BufferedReader(io.BytesIO(data))))
    with patch.object(forms, "_CHUNK_BYTES", size):
        assert list(forms.entry_lines(io.BufferedReader(io.BytesIO(data)))) == whole


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="holds no picture"):
        list(picture_lines([str(tmp_path)]))
    with pytest.raises(UsageError, match="there is no folder"):
        list(picture_lines([str(tmp_path / "none")]))
