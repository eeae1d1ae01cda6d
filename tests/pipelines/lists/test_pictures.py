"""Archives made by tar and zip themselves, read where their members lie."""

import asyncio
import errno
import io
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems

from pipelines.command.cli import UsageError, WorkError
from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.folder import Folder
from pipelines.dataset.options import wnid_of
from pipelines.dataset.outcome import Outcome
from pipelines.lists.pictures import expanded, picture_lines
from pipelines.lists.url_list import Entry, parse_path_line

JPEG = b"\xff\xd8\xff"
MAX_BYTES = 100_000
needs_zip = pytest.mark.skipif(not shutil.which("zip"), reason="zip is not installed")


def picture(number: int, size: int = 2_000) -> bytes:
    return JPEG + random.Random(number).randbytes(size)


def write(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Files of these names, with different bytes."""
    files = {name: picture(number) for number, name in enumerate(names)}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files


def entries(*names: Path | str) -> list[Entry]:
    return [parse_path_line(line) for line in picture_lines([str(name) for name in names])]


def read(names: list[Path], found: list[Entry]) -> list[bytes | Outcome]:
    async def fetch() -> list[bytes | Outcome]:
        folder = Folder([str(name) for name in names], MAX_BYTES, concurrency=4)
        answers: list[bytes | Outcome] = []
        for entry in found:
            async with folder.fetch(entry) as answer:
                assert isinstance(answer, Body | Failure)
                answers.append(answer.read() if isinstance(answer, Body) else answer.outcome)
        return answers

    return asyncio.run(fetch())


def answers(*names: Path) -> dict[str, bytes | Outcome]:
    """What comes of each picture, by its URL without the first name."""
    found = entries(*names)
    urls = [entry.url.partition("/")[2] for entry in found]
    return dict(zip(urls, read(list(names), found), strict=True))


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
def test_a_tar_is_read_in_place(tmp_path: Path, form: str) -> None:
    long = "/".join(["deep" * 5] * 6) + "/9.JPEG" if form in ("gnu", "pax") else "9.JPEG"
    files = write(tmp_path / "in", ["n01440764/1.JPEG", "n01440764/é 2.png", long, "a.txt"])
    (tmp_path / "in" / "a.txt").write_text("no picture")
    (tmp_path / "in" / "b").write_bytes(files["a.txt"])  # a picture by its first bytes
    run(tmp_path / "in", "tar", f"--format={form}", "-cf", "../x.tar", ".")
    assert answers(tmp_path / "x.tar") == {
        "n01440764/1.JPEG": files["n01440764/1.JPEG"],
        "n01440764/%C3%A9%202.png": files["n01440764/é 2.png"],
        long: files[long],
        "b": files["a.txt"],
    }
    ids = {entry.image_id for entry in entries(tmp_path / "x.tar")}
    assert ids >= {"n01440764/1", "n01440764/%C3%A9%202"}


def test_a_tar_of_tars_has_its_classes_by_their_names(tmp_path: Path) -> None:
    """As ILSVRC2012_img_train.tar."""
    wanted = {}
    for wnid in ("n01440764", "n01443537"):
        files = write(tmp_path / wnid, [f"{wnid}_{number}.JPEG" for number in range(3)])
        run(tmp_path / wnid, "tar", "-cf", f"../{wnid}.tar", *files)
        wanted |= {f"{wnid}/{name}": data for name, data in files.items()}
    run(tmp_path, "tar", "-cf", "train.tar", "n01440764.tar", "n01443537.tar")
    found = entries(tmp_path / "train.tar")
    assert [wnid_of(entry.image_id) for entry in found] == ["n01440764"] * 3 + ["n01443537"] * 3
    assert answers(tmp_path / "train.tar") == wanted


@needs_zip
@pytest.mark.parametrize("option", ["-0", "-9"])
def test_a_zip_is_read_in_place(tmp_path: Path, option: str) -> None:
    """As DIV2K_train_HR.zip."""
    files = write(tmp_path / "in", [f"DIV2K_train_HR/{n:04}.png" for n in range(1, 5)])
    (tmp_path / "in" / "DIV2K_train_HR" / "0005.png").write_bytes(JPEG + bytes(5_000))
    files["DIV2K_train_HR/0005.png"] = JPEG + bytes(5_000)
    run(tmp_path / "in", "zip", "-r", option, "../x.zip", "DIV2K_train_HR")
    assert answers(tmp_path / "x.zip") == files


def test_zips_of_python_and_what_is_wrong_in_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.jpg", picture(1))
        archive.writestr("bomb.jpg", JPEG + bytes(50_000_000))
        archive.writestr("packed.jpg", picture(2), zipfile.ZIP_LZMA)
        archive.writestr("broken.jpg", picture(3), zipfile.ZIP_STORED)
        archive.writestr("../outside.jpg", picture(4))
        archive.writestr("/root.jpg", picture(4))
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    data = path.read_bytes()
    path.write_bytes(data.replace(picture(3)[10:20], bytes(10)))
    assert answers(path) == {
        "good.jpg": picture(1),
        "bomb.jpg": Outcome.TOO_MANY_BYTES,
        "packed.jpg": Outcome.UNSUPPORTED_FORMAT,
        "broken.jpg": Outcome.CORRUPT,
    }
    assert "3 links, devices, encrypted members or names that lead outside" in caplog.text


def test_a_tar_with_links_devices_and_names_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("../a.jpg", tarfile.REGTYPE),
            ("/b.jpg", tarfile.REGTYPE),
            ("c.jpg", tarfile.SYMTYPE),
            ("d.jpg", tarfile.LNKTYPE),
            ("e.jpg", tarfile.CHRTYPE),
            ("f.jpg", tarfile.FIFOTYPE),
            ("good.jpg", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = 9 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(JPEG * 3))
    assert [entry.image_id for entry in entries(path)] == ["good"]
    assert "6 links, devices" in caplog.text


def test_several_archives_and_folders_are_one_list(tmp_path: Path) -> None:
    """WebDataset shards, whose members have the same names, and a folder."""
    shards = []
    wanted = {}
    for number in range(3):
        files = write(tmp_path / str(number), ["000.jpg", "001.jpg"])
        (tmp_path / str(number) / "000.json").write_text("{}")
        (tmp_path / str(number) / "001.jpg").write_bytes(data := picture(number + 50))
        shards.append(tmp_path / f"shard-{number}.tar")
        run(tmp_path / str(number), "tar", "-cf", str(shards[-1]), "000.jpg", "000.json", "001.jpg")
        wanted |= {f"shard-{number}.tar/000.jpg": files["000.jpg"]}
        wanted |= {f"shard-{number}.tar/001.jpg": data}
    more = tmp_path / "more"
    wanted |= {f"more/{name}": data for name, data in write(more, ["n01440764/x.png"]).items()}
    names = [Path(name) for name in expanded([str(tmp_path / "shard-*.tar"), str(more)])]
    assert names == [*shards, more]
    found = entries(*names)
    urls = [entry.url for entry in found]
    assert dict(zip(urls, read(names, found), strict=True)) == wanted


def test_what_is_no_source_of_pictures_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "in", ["a.jpg", "b.jpg"])
    run(tmp_path / "in", "tar", "-cf", "../x.tar", "a.jpg", "b.jpg")
    run(tmp_path / "in", "tar", "-czf", "../x.tgz", "a.jpg")
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:4_000])
    (tmp_path / "torn.tar").write_bytes(data[:2_560] + b"x" * 512 + data[3_072:])
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4" + bytes(99))
    (tmp_path / "tars").mkdir()
    shutil.copy(tmp_path / "x.tar", tmp_path / "tars" / "x.tar")
    for name, message in (
        ("cut.tar", "is broken, perhaps cut off"),
        ("torn.tar", "is broken, perhaps cut off"),
        ("cut.zip", "is broken, perhaps cut off"),
        ("x.tgz", "packed as a whole.*gunzip"),
        ("x.txt", "neither a folder, a tar nor a zip"),
        ("none.tar", "there is no folder"),
        ("tars", r"holds no picture.*tars/\*\.tar"),
    ):
        with pytest.raises(UsageError, match=message):
            entries(tmp_path / name)
    with pytest.raises(UsageError, match="nothing is named like"):
        expanded([str(tmp_path / "*.none")])
    with pytest.raises(UsageError, match="has the name of another"):
        expanded([str(tmp_path / "x.tar"), str(tmp_path / "tars" / "x.tar")])


def test_an_archive_that_may_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.tar").touch()
    monkeypatch.setattr(FileSystems, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*a\.tar: .*Permission denied"):
        list(picture_lines([str(tmp_path / "a.tar")]))


def test_an_archive_that_is_gone_fails_the_build(tmp_path: Path) -> None:
    """It is no picture's fault, and the same command goes on once it is back."""
    write(tmp_path / "in", ["a.jpg"])
    run(tmp_path / "in", "tar", "-cf", "../x.tar", "a.jpg")
    found = entries(tmp_path / "x.tar")
    (tmp_path / "x.tar").unlink()
    with pytest.raises(WorkError, match=r"the archive .*x\.tar cannot be read"):
        read([tmp_path / "x.tar"], found)


def test_a_folder_that_cannot_be_read_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    listed = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(picture_lines([str(tmp_path)])) == [b"a\ta.png"]
    assert f"{tmp_path}/locked is left out: Permission denied" in caplog.text
