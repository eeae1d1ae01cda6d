import dataclasses
import shutil

import pytest
from PIL import Image

from evaluation import benchmark, results
from evaluation.benchmark import HISTORY, REPORT, main
from evaluation.results import Result
from pipelines.command.cli import UsageError, WorkError


@pytest.fixture
def sets(tmp_path, photos):
    """Two folders of two pictures."""
    for name, members in (("first", ("astronaut", "coffee")), ("second", ("chelsea", "rocket"))):
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True)
        for member in members:
            photos[member].save(folder / f"{member}.png")
    return tmp_path / "sets"


@pytest.fixture
def command(sets, identity_network):
    return ["--benchmarks", str(sets), "--scales", "2,3", "--models", str(identity_network("rgb"))]


def rows_of(output):
    return results.read(str(output / HISTORY), Result)


def test_every_combination_is_scored(command, tmp_path, capsys):
    main([*command, "--output", str(tmp_path / "out")])
    combinations = {
        (row.dataset.partition("@")[0], row.protocol, row.model, row.scale)
        for row in rows_of(tmp_path / "out")
    }
    assert combinations == {
        (name, protocol, model, scale)
        for name in ("first", "second")
        for protocol in ("article", "paper")
        for model in ("bicubic", "identity_rgb")
        for scale in (2, 3)
    }
    assert len(rows_of(tmp_path / "out")) == len(combinations)
    assert capsys.readouterr().out.count("identity_rgb") == 4
    assert (tmp_path / "out" / REPORT).exists()


def test_a_datasets_test_split_is_scored_without_benchmarks(dataset, tmp_path):
    main(["--data", str(dataset), "--protocols", "article", "--output", str(tmp_path / "out")])
    assert [(row.split, row.scale) for row in rows_of(tmp_path / "out")] == [
        ("test", 2), ("test", 3), ("test", 4),
    ]  # fmt: skip


def test_what_is_finished_is_not_scored_again(command, sets, tmp_path, monkeypatch):
    output = tmp_path / "out"
    main([*command, "--protocols", "paper", "--output", str(output)])
    before = rows_of(output)
    scored = []
    evaluate = benchmark.evaluate
    monkeypatch.setattr(
        benchmark, "evaluate", lambda *what: (scored.append(what), evaluate(*what))[1]
    )
    main([*command, "--protocols", "paper", "--output", str(output)])
    assert not scored and rows_of(output) == before
    # Of an interrupted run the rest is scored, and of changed pictures everything.
    results_file = output / HISTORY
    lines = results_file.read_text().splitlines(keepends=True)
    results_file.write_text("".join(lines[:-1]))
    main([*command, "--protocols", "paper", "--output", str(output)])
    assert [(len(what[2]), what[3]) for what in scored] == [(2, [3])]
    assert [
        dataclasses.replace(row, run_at="", seconds_per_image=0) for row in rows_of(output)
    ] == [dataclasses.replace(row, run_at="", seconds_per_image=0) for row in before]
    Image.new("RGB", (64, 64), "red").save(sets / "first" / "third.png")
    main([*command, "--protocols", "paper", "--output", str(output)])
    assert len(rows_of(output)) == len(before) * 3 // 2


def test_again_makes_a_history(command, tmp_path):
    for _ in range(2):
        main([*command, "--protocols", "paper", "--again", "--output", str(tmp_path / "out")])
    assert len(rows_of(tmp_path / "out")) == 2 * 2 * 2 * 2


def test_a_drop_is_named_and_ends_in_status_1(command, tmp_path, capsys):
    output, baseline = tmp_path / "out", tmp_path / "baseline.csv"
    main([*command, "--output", str(output)])
    rows = rows_of(output)
    worse = rows[3]
    higher = [
        dataclasses.replace(row, psnr_db=row.psnr_db + (0.05 if row is worse else 0.01))
        for row in rows
    ]
    results.append(str(baseline), higher)
    arguments = [*command, "--output", str(output), "--baseline", str(baseline)]
    with pytest.raises(WorkError, match=r"1 PSNRs dropped by more than 0\.02 dB"):
        main(arguments)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("dropped")]
    assert f"{worse.dataset} {worse.protocol} {worse.model} x{worse.scale}" in line
    assert "-0.05" in line
    main([*arguments, "--tolerance-db", "0.1"])


def test_changed_pictures_are_no_regression(command, sets, tmp_path):
    output = tmp_path / "out"
    main([*command, "--output", str(output)])
    baseline = shutil.copy(output / HISTORY, tmp_path / "baseline.csv")
    Image.new("RGB", (64, 64), "red").save(sets / "first" / "coffee.png")
    before = (output / HISTORY).read_bytes()
    with pytest.raises(UsageError, match=r"the pictures are first@.*those of the baseline first@"):
        main([*command, "--output", str(output), "--baseline", str(baseline)])
    assert (output / HISTORY).read_bytes() == before


def test_changed_weights_are_no_regression(command, identity_network, tmp_path):
    output = tmp_path / "out"
    main([*command, "--output", str(output)])
    baseline = shutil.copy(output / HISTORY, tmp_path / "baseline.csv")
    other = tmp_path / "identity_rgb.npz"
    shutil.copy(identity_network("y"), other)
    with pytest.raises(UsageError, match="the weights of identity_rgb are"):
        main([*command[:-1], str(other), "--output", str(output), "--baseline", str(baseline)])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--benchmarks", "{folder}/none"], "is not a local folder of folders"),
        (["--benchmarks", "{folder}/sets", "--baseline", "{folder}/none.csv"], "cannot be read"),
        (["--benchmarks", "{folder}/sets", "--models", "best"], "best is no run folder"),
        (["--benchmarks", "{folder}/sets", "--output", "{folder}/file"], "is a file"),
        ([], "--benchmarks --data is required"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(sets, tmp_path, arguments, reason):
    (tmp_path / "file").touch()
    filled = [text.format(folder=tmp_path) for text in arguments]
    with pytest.raises(UsageError, match=reason):
        main(["--output", str(tmp_path / "out"), *filled])
    assert not (tmp_path / "out").exists()
