import asyncio
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.crawl.answer import Body, Failure
from pipelines.crawl.folder import Folder
from pipelines.dataset.outcome import Outcome
from pipelines.lists.pictures import picture_lines
from pipelines.lists.url_list import Entry, parse_path_line


def get(directory: Path, entry: Entry, max_bytes: int = 100) -> Body | Failure:
    async def fetch() -> Body | Failure:
        async with Folder([str(directory)], max_bytes, concurrency=1).fetch(entry) as answer:
            return answer

    return asyncio.run(fetch())


def test_every_picture_of_a_folder_is_read_whatever_its_name(tmp_path: Path) -> None:
    names = [b"a b.jpg", b"%41.jpg", "é\n#?.png".encode(), b"not-utf8-\xff.gif", b"tab\t.bmp"]
    for name in names:
        Path(tmp_path, os.fsdecode(name)).write_bytes(name)
    found = set()
    for line in picture_lines([str(tmp_path)]):
        body = get(tmp_path, parse_path_line(line))
        assert isinstance(body, Body)
        data = body.read()
        assert (body.num_bytes, body.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        found.add(data)
        body.close()
    assert found == set(names)


def test_what_cannot_be_read_is_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(101))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "none")
    outcomes = [
        get(tmp_path, Entry("n1", name, name, "")) for name in ("large.jpg", "gone.jpg", "none.jpg")
    ]
    assert [o.outcome for o in outcomes if isinstance(o, Failure)] == [
        Outcome.TOO_MANY_BYTES,
        Outcome.CORRUPT,
        Outcome.CORRUPT,
    ]


def test_an_error_of_the_machine_is_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match=str(errno.EMFILE)):
        get(tmp_path, Entry("n1", "a", "a", ""))
