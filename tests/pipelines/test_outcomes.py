import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.outcome import Outcome, Row, flat_crops
from pipelines.dataset.outcome_table import write_table
from pipelines.inspect.outcome_report import shard_tables
from pipelines.outcomes import main
from tests.support.dataset import write_dataset
from tests.support.site import crops

ROWS = {
    "test-00000-of-00001": [
        Row(Outcome.OK, "n1_1", "http://a.org/1.jpg", detail=flat_crops(3, 20), sha256="00"),
        Row(Outcome.HTTP_CLIENT_ERROR, "n1_2", "http://a.org/2.jpg", http_status=404),
        Row(Outcome.TIMED_OUT, "n1_3", "http://b.org/3.jpg", detail="after 30 s"),
        Row(Outcome.TIMED_OUT, "n1_4", "http://b.org/4.jpg", detail="after 31 s"),
        Row(Outcome.TIMED_OUT, "n1_5", "http://b.org/5.jpg", detail="silent"),
    ],
    "train-00000-of-00001": [
        Row(Outcome.HTTP_CLIENT_ERROR, "n1_6", "http://a.org/6.jpg", http_status=410),
        Row(Outcome.HTTP_CLIENT_ERROR, "n1_7", "http://a.org/7.jpg", http_status=404),
        Row(Outcome.MALFORMED_LINE, line=b'\xff a, "b"', detail="no tab"),
        Row(Outcome.DUPLICATE_URL, "n1_8", "http://a.org/1.jpg", duplicate_of="n1_1 http://a"),
    ],
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    pictures = {"train": {f"n1_{n}": crop for n, crop in enumerate(crops(2, 24))}}
    folder = write_dataset(tmp_path / "set", pictures, scales=(2,))
    (folder / "outcomes").mkdir()
    for shard, rows in ROWS.items():
        with (folder / "outcomes" / f"{shard}.parquet").open("wb") as file:
            write_table(file, rows)
    return folder


def test_totals_and_the_most_frequent_causes(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(dataset), "--samples", "2"])
    said = capsys.readouterr().out
    assert f"{dataset}: 9 lines" in said
    assert f"\ntimed_out  3  33.3 %  {Outcome.TIMED_OUT.sentence}" in said
    assert "        2  after 30 s: n1_3 http://b.org/3.jpg\n" in said
    assert "        2  404: n1_2 http://a.org/2.jpg\n" in said
    assert "        1  410: n1_6 http://a.org/6.jpg\n" in said
    assert "no tab: '\\xff a, \"b\"'" in said
    assert "of n1_1 http://a: n1_8 http://a.org/1.jpg" in said
    assert "crops left out as flat: 3\n" in said
    main([str(dataset), "--samples", "0"])
    assert "404" not in capsys.readouterr().out


def test_all_rows_go_into_one_file(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(dataset), "--to", "csv", str(tmp_path / "rows.csv")])
    assert capsys.readouterr().out == f"{tmp_path / 'rows.csv'}: 9 rows\n"
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows if row["line"]] == ['%FF a, "b"']
    assert {row["shard"] for row in rows} == ROWS.keys()
    main([str(dataset), "--to", "parquet", str(tmp_path / "rows.parquet")])
    table = pq.read_table(tmp_path / "rows.parquet").drop_columns("shard")
    parts = [part for _, part in shard_tables(DatasetFolder(str(dataset)))]
    assert table.to_pylist() == [row for part in parts for row in part.to_pylist()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.parquet", "set"]


def test_wrong_arguments_and_broken_tables_are_one_line(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--to json: it must be csv or parquet"):
        main([str(dataset), "--to", "json", "x"])
    with pytest.raises(UsageError, match=r"--to: .*there is no folder"):
        main([str(dataset), "--to", "csv", str(tmp_path / "none" / "x.csv")])
    with pytest.raises(UsageError, match="is not a finished dataset"):
        main([str(tmp_path)])
    path = dataset / "outcomes" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WorkError, match=r"train-00000-of-00001\.parquet: .*pipelines\.verify"):
        main([str(dataset)])
