"""One web, and its pictures named by every form of list: the same dataset."""

import gzip
import hashlib
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.dataset.outcome import Outcome
from tests.support.build import examples, rows
from tests.support.site import LoopbackServer, Site, answer, crops, png

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--crop-size", "32", "--scales", "2", "--num-shards", "2", "--crawlers", "1"),
    *("--splits", "train=0.5,validation=0.25,test=0.25"),
    *("--requests-per-host", "100000", "--allow-host", "127.0.0.1"),
)


def write_tsv(path: Path, table: pa.Table) -> None:
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t"))


def write_csv_gz(path: Path, table: pa.Table) -> None:
    """Open Images' columns, with a title over two lines."""
    names = {"id": "ImageID", "address": "OriginalURL", "md5": "OriginalMD5"}
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    table = table.append_column("Title", pa.array(['a "title"\nof two lines'] * len(table)))
    plain = path.with_suffix(".plain")
    pa.csv.write_csv(table, plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def write_json_zst(path: Path, table: pa.Table) -> None:
    text = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    path.write_bytes(pa.compress(text, "zstd", asbytes=True))


def write_parts(path: Path, table: pa.Table) -> None:
    path.mkdir()
    for part in range(3):
        pq.write_table(table.slice(part * 4, 4), path / f"{part}.parquet")


def build(listed: Path, output: Path, *options: str) -> None:
    main(["--urls", str(listed), "--output", str(output), *OPTIONS, *options])


NAMED = ("--url-column", "address", "--id-column", "id", "--checksum-column", "md5")


@pytest.fixture(scope="module")
def site() -> Any:
    server = LoopbackServer()
    yield Site(server, {f"/{n}.png": png(crop) for n, crop in enumerate(crops(12))})
    server.close()


@pytest.fixture(scope="module")
def table(site: Site) -> pa.Table:
    return pa.table(
        {
            "id": [f"n01440764_{number}" for number in range(len(site.bodies))],
            "address": [site.server.url(path) for path in site.bodies],
            "md5": [
                b64encode(hashlib.md5(body).digest()).decode() for body in site.bodies.values()
            ],
        }
    )


@pytest.fixture(scope="module")
def plain(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The examples of the list as ImageNet has it."""
    folder = tmp_path_factory.mktemp("plain")
    listed = site.write_list(folder / "list.txt", list(site.bodies))
    build(listed, folder / "set")
    return examples(folder / "set")


@pytest.mark.parametrize(
    ("name", "write", "options"),
    [
        ("list.tsv", write_tsv, NAMED),
        ("list.csv.gz", write_csv_gz, ()),
        ("list.jsonl.zst", write_json_zst, NAMED),
        ("list", write_parts, NAMED),
    ],
)
def test_every_form_gives_the_same_examples(
    table: pa.Table,
    plain: dict[str, str],
    tmp_path: Path,
    name: str,
    write: Callable[[Path, pa.Table], None],
    options: tuple[str, ...],
) -> None:
    write(tmp_path / name, table)
    build(tmp_path / name, tmp_path / "set", *options)
    assert examples(tmp_path / "set") == plain


def test_what_is_not_the_lists_content_is_an_outcome_and_tried_again(
    table: pa.Table, site: Site, plain: dict[str, str], tmp_path: Path
) -> None:
    listed, output = tmp_path / "list.csv.gz", tmp_path / "set"
    write_csv_gz(listed, table)
    site.server.routes["/3.png"] = answer(site.bodies["/4.png"])
    try:
        build(listed, output)
        changed = [row for row in rows(output) if row.outcome is Outcome.CHANGED_CONTENT]
        assert [(row.image_id, row.http_status) for row in changed] == [("n01440764_3", 200)]
        wanted = hashlib.md5(site.bodies["/3.png"]).hexdigest()
        assert changed[0].detail and changed[0].detail.endswith(f", not {wanted}")
        retry = ["--output", str(output), "--retry", "changed_content", "--crawlers", "1"]
        main(retry)
        assert Outcome.CHANGED_CONTENT in {row.outcome for row in rows(output)}
        site.answer_well()
        main(retry)
    finally:
        site.answer_well()
    assert examples(output) == plain
