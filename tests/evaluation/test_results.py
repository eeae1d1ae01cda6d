import contextlib
import csv
import dataclasses
import math
import multiprocessing
import resource
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import results
from evaluation.results import PictureResult, Result, append, check, read
from pipelines.command.cli import UsageError, WorkError
from trainer import files

COLUMNS = (
    "run_at,commit,dataset,split,protocol,degradation,model,weights,scale,images,psnr_db,"
    "psnr_std_db,ssim,bicubic_psnr_db,gain_db,shave_px,seconds_per_image"
)
ROW = Result(
    run_at="2026-11-24T10:00:00+00:00",
    commit="0123456789ab",
    dataset="set5@0123456789ab",
    split="",
    protocol="paper",
    degradation="bicubic",
    model="srcnn",
    weights="ba9876543210",
    scale=2,
    images=5,
    psnr_db=36.3422,
    psnr_std_db=2.8961,
    ssim=0.952136,
    bicubic_psnr_db=33.6614,
    gain_db=2.6808,
    shave_px=2,
    seconds_per_image=0.07,
)


def test_the_columns_are_those_of_the_contract(tmp_path):
    append(str(tmp_path / "results.csv"), [ROW])
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == COLUMNS


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "results.csv"
    other = dataclasses.replace(ROW, model='a "quoted", name', scale=4, psnr_db=math.inf)
    append(str(path), [ROW])
    append(str(path), [other, ROW])
    assert read(str(path), Result) == [ROW, other, ROW]
    with path.open(newline="") as file:
        assert [row["scale"] for row in csv.DictReader(file)] == ["2", "4", "2"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (COLUMNS, "broken off"),
        (f"{COLUMNS}\n2026-11-24,01234", "broken off"),
        (f"{COLUMNS}\n2026-11-24,01234\n", "row 2 is broken"),
        (f"{COLUMNS}\n\n", "row 2 is broken"),
        (f"{COLUMNS}\n{ROW.run_at},,,,,,,,{'9' * 400}{',1' * 8}\n", "row 2 is broken"),
        ("model,psnr\nsrcnn,30\n", "other columns"),
        (COLUMNS.replace("images,", "") + "\n", "other columns"),
        ("\x00\xff\n", "other columns|not a results CSV"),
        (f'{COLUMNS}\n"open\n', "not a results CSV"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_kept(tmp_path, content, reason):
    path = tmp_path / "results.csv"
    path.write_text(content)
    for attempt in (lambda: check(str(path), Result), lambda: append(str(path), [ROW])):
        with pytest.raises(UsageError, match=reason):
            attempt()
    assert path.read_text() == content


def test_rows_of_pictures_do_not_go_into_the_results(tmp_path):
    path = tmp_path / "results.csv"
    append(str(path), [ROW])
    picture = PictureResult("now", "d", "", "paper", "m", "", 2, 2, "a.png", 30.0, 0.9)
    with pytest.raises(UsageError, match="other columns"):
        append(str(path), [picture])


@pytest.mark.slow
def test_two_processes_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_append_many, args=(tmp_path, name, barrier)) for name in ("a", "b")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # Both began each file at once: one of them writes the names of the columns.
    for step in range(100):
        models = sorted(row.model for row in read(str(tmp_path / f"{step}.csv"), Result))
        assert models == ["a", "a", "b", "b"]
    rows = read(str(tmp_path / "all.csv"), Result)
    for name in ("a", "b"):
        mine = [row.scale for row in rows if row.model == name]
        assert mine == [scale for step in range(100) for scale in (step, step)]


def _append_many(directory, name, barrier):
    for step in range(100):
        rows = [dataclasses.replace(ROW, model=name, scale=step)] * 2
        barrier.wait()
        append(str(directory / f"{step}.csv"), rows)
        append(str(directory / "all.csv"), rows)


def test_a_full_disk_leaves_whole_rows(tmp_path):
    path = tmp_path / "results.csv"
    append(str(path), [ROW])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(WorkError, match="cannot be written"):
            append(str(path), [ROW] * 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_known_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        check(str(tmp_path / "nowhere" / "results.csv"), Result)
    check(str(tmp_path / "results.csv"), Result)
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.slow
@given(
    model=st.text(st.characters(codec="utf-8"), min_size=1),
    psnr_db=st.floats(-1e9, 1e9).map(lambda value: float(f"{value:.6g}")) | st.just(math.inf),
    scale=st.integers(2, 99),
)
def test_any_row_is_read_back(tmp_path_factory, model, psnr_db, scale):
    path = tmp_path_factory.mktemp("results") / "results.csv"
    row = dataclasses.replace(ROW, model=model, psnr_db=psnr_db, scale=scale)
    append(str(path), [row, row])
    assert read(str(path), Result) == [dataclasses.replace(row, model=model.replace("\r", " "))] * 2


@pytest.mark.slow
@given(st.one_of(st.binary(), st.text().map(lambda text: f"{COLUMNS}\n{text}\n".encode())))
def test_any_other_file_is_refused_in_words(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("results") / "results.csv"
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        read(str(path), Result)


@pytest.fixture
def store_folder(monkeypatch, tmp_path):
    """A folder that is reached as one on a store is."""
    monkeypatch.setattr(files, "is_local", lambda path: False)
    for name in ("check", "_reach"):
        monkeypatch.setattr(files, name, lambda path: None)
    (tmp_path / "notes.txt").write_text("no results")
    return str(tmp_path)


def test_on_a_store_a_run_adds_an_object_of_its_own(store_folder):
    rows = [dataclasses.replace(ROW, scale=scale) for scale in range(2, 6)]
    check(store_folder, Result)
    append(store_folder, rows[:1])
    append(store_folder, rows[1:2])
    (first,) = set(files.names(store_folder)) - {"notes.txt"}
    assert files.read(f"{store_folder}/{first}").decode().splitlines()[0] == COLUMNS
    results._object_name.cache_clear()
    append(store_folder, [])
    assert files.names(store_folder) == [first, "notes.txt"]
    append(store_folder, rows[2:])
    assert files.names(store_folder)[0] == first
    assert len(files.names(store_folder)) == 3
    assert read(store_folder, Result) == rows


def test_on_a_store_rows_of_another_kind_are_refused(store_folder):
    append(store_folder, [ROW])
    with pytest.raises(UsageError, match="other columns"):
        check(store_folder, PictureResult)
    (name, _) = files.names(store_folder)
    with pytest.raises(UsageError, match="is an object: on a store results need a folder"):
        check(f"{store_folder}/{name}", Result)


def test_a_copy_of_a_stores_folder_is_read_as_one(tmp_path):
    with pytest.raises(UsageError, match="is a folder without a results CSV"):
        read(str(tmp_path), Result)
    for number in (1, 2):
        append(str(tmp_path / f"{number}.csv"), [dataclasses.replace(ROW, scale=number)])
    assert [row.scale for row in read(str(tmp_path), Result)] == [1, 2]


def test_a_file_of_an_earlier_version_is_read_and_gets_the_column_it_lacks(tmp_path):
    path = tmp_path / "results.csv"
    append(str(path), [ROW])
    path.write_text(path.read_text().replace("degradation,", "").replace("paper,bicubic", "paper"))
    check(str(path), Result)
    old = dataclasses.replace(ROW, degradation="")
    assert read(str(path), Result) == [old]
    append(str(path), [ROW])
    assert path.read_text().splitlines()[0] == COLUMNS
    assert read(str(path), Result) == [old, ROW]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", ["x" * 10_000_000, "\n" * 33_000_000, "a,b\n" * 9_000_000])
def test_a_large_file_of_another_kind_costs_one_short_line_and_little_memory(tmp_path, bad):
    path = tmp_path / "results.csv"
    path.write_text(f"{COLUMNS}\n{bad}")
    tracemalloc.start()
    for attempt in (lambda: check(str(path), Result), lambda: read(str(path), Result)):
        with pytest.raises(UsageError) as raised:
            attempt()
        assert len(str(raised.value)) < 300
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


def test_appending_to_a_long_file_takes_little_memory(tmp_path):
    path = tmp_path / "pictures.csv"
    row = PictureResult(ROW.run_at, "d", "", "paper", "m", "", 2, 2, "a.png", 30.0, 0.9)
    append(str(path), [row] * 5_000)
    tracemalloc.start()
    append(str(path), [row])
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "run_at",
    ["yesterday", "2026-11-24", "2026-11-24T10:00:00", "0092-10-26T10:00:00Z", "9999-12-31T10:00Z"],
)
def test_a_time_that_is_none_or_has_no_zone_is_refused(tmp_path, run_at):
    path = tmp_path / "results.csv"
    append(str(path), [dataclasses.replace(ROW, run_at=run_at)])
    with pytest.raises(UsageError, match="row 2 is broken"):
        read(str(path), Result)
