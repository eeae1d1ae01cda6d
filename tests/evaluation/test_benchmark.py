import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from evaluation import benchmark, page, results
from evaluation.benchmark import HISTORY, REPORT, UNFINISHED, made_for, main
from evaluation.memory import Memory
from evaluation.pictures import folder_pictures
from evaluation.results import Result
from evaluation.scoring import Scores
from evaluation.upscalers import Bicubic
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
    """Four rows."""
    models = ["--models", str(identity_network("rgb"))]
    return ["--benchmarks", str(sets), "--scales", "2", "--protocols", "paper-rgb", *models]


@pytest.fixture
def no_page(monkeypatch):
    """Drawing takes longer than all else."""
    monkeypatch.setattr(page, "render", lambda *what: "a page")


def rows_of(output):
    return results.read(str(output / HISTORY), Result)


@pytest.mark.slow
def test_every_combination_is_scored(command, tmp_path, capsys):
    every = ["--scales", "2,3", "--protocols", "article", "paper-rgb"]
    main([*command, *every, "--output", str(tmp_path / "out")])
    combinations = {
        (row.dataset.partition("@")[0], row.protocol, row.model, row.scale)
        for row in rows_of(tmp_path / "out")
    }
    assert combinations == {
        (name, protocol, model, scale)
        for name in ("first", "second")
        for protocol in ("article", "paper-rgb")
        for model in ("bicubic", "identity_rgb")
        for scale in (2, 3)
    }
    assert len(rows_of(tmp_path / "out")) == len(combinations)
    assert capsys.readouterr().out.count("identity_rgb") == 4
    assert (tmp_path / "out" / REPORT).exists()


@pytest.mark.parametrize(
    ("channels", "trained", "protocols"),
    [
        ("y", "bicubic", ["paper"]),
        ("rgb", "bicubic", ["paper-rgb"]),
        ("rgb", "article", ["article"]),
        ("rgb", "article-nearest", ["article"]),
        ("y", None, ["article", "paper"]),
    ],
)
def test_a_model_is_scored_by_what_it_is_made_for(channels, trained, protocols, sets, monkeypatch):
    network = SimpleNamespace(weights="some", channels=channels)
    monkeypatch.setattr(benchmark, "trained_on", lambda upscaler: trained)
    pictures = folder_pictures(str(sets / "first"))
    chosen = made_for(pictures, [Bicubic(), network])
    assert {one.name: models for one, models in chosen} == {
        name: [Bicubic(), network] for name in protocols
    }


def test_bicubic_alone_is_scored_by_what_needs_no_network(sets):
    chosen = made_for(folder_pictures(str(sets / "first")), [Bicubic()])
    assert [protocol.name for protocol, _ in chosen] == ["article", "paper"]


@pytest.mark.usefixtures("no_page")
def test_a_datasets_test_split_is_scored_without_benchmarks(dataset, tmp_path):
    main(["--data", str(dataset), "--protocols", "article", "--output", str(tmp_path / "out")])
    assert [(row.split, row.scale) for row in rows_of(tmp_path / "out")] == [
        ("test", 2), ("test", 3), ("test", 4),
    ]  # fmt: skip


@pytest.mark.usefixtures("no_page")
def test_every_run_scores_anew_and_makes_a_history(command, tmp_path):
    for _ in range(2):
        main([*command, "--output", str(tmp_path / "out")])
    assert len(rows_of(tmp_path / "out")) == 2 * 4


@pytest.mark.usefixtures("no_page")
def test_reuse_scores_only_what_the_history_lacks(command, sets, tmp_path, monkeypatch):
    output = tmp_path / "out"
    arguments = [*command, "--reuse", "--output", str(output)]
    main(arguments)
    before = rows_of(output)
    scored = record_scoring(monkeypatch)
    main(arguments)
    assert not scored and rows_of(output) == before
    history = output / HISTORY
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    main(arguments)
    assert [(len(upscalers), scales) for upscalers, scales in scored] == [(2, [2])]
    assert plain(rows_of(output)) == plain(before)
    Image.new("RGB", (64, 64), "red").save(sets / "first" / "third.png")
    main(arguments)
    assert len(rows_of(output)) == len(before) * 3 // 2


def record_scoring(monkeypatch):
    """What ``evaluate`` is asked from now on: upscalers and scales."""
    scored = []
    evaluate = benchmark.evaluate

    def recorded(pictures, protocol, upscalers, scales, **options):
        scored.append((upscalers, scales))
        return evaluate(pictures, protocol, upscalers, scales, **options)

    monkeypatch.setattr(benchmark, "evaluate", recorded)
    return scored


def plain(rows):
    """What must be the same each time."""
    return [dataclasses.replace(row, run_at="", seconds_per_image=0) for row in rows]


@pytest.mark.usefixtures("no_page")
def test_an_interrupted_run_goes_on(command, tmp_path, monkeypatch):
    output = tmp_path / "out"
    main([*command, "--output", str(tmp_path / "undisturbed")])
    scored, add = [], Scores.of

    def interrupted(scores, samples):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(samples)
        return add(scores, samples)

    monkeypatch.setattr(Scores, "of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([*command, "--output", str(output)])
    assert not (output / HISTORY).exists()
    monkeypatch.setattr(Scores, "of", lambda *what: (scored.append(what), add(*what))[1])
    main([*command, "--output", str(output)])
    assert len(scored) == 4
    assert plain(rows_of(output)) == plain(rows_of(tmp_path / "undisturbed"))
    assert sorted(path.name for path in output.iterdir()) == [HISTORY, REPORT]


@pytest.mark.usefixtures("no_page")
def test_a_rerun_while_another_runs_is_refused(command, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        Memory(str(tmp_path / "out" / UNFINISHED)),
        pytest.raises(UsageError, match="another process does the same"),
    ):
        main([*command, "--output", str(tmp_path / "out")])
    main([*command, "--output", str(tmp_path / "out")])


@pytest.fixture
def begun(command, tmp_path, no_page):
    """The command with a baseline that it has begun."""
    arguments = [*command, "--output", str(tmp_path / "out")]
    arguments += ["--baseline", str(tmp_path / "out" / "baseline.csv")]
    main([*arguments, "--update-baseline"])
    return arguments


def change_baseline(arguments, change):
    """``change(rows)`` becomes the baseline."""
    path = Path(arguments[-1])
    rows = change(results.read(str(path), Result))
    path.unlink()
    results.append(str(path), rows)


def test_a_run_as_good_as_its_baseline_says_so_in_its_last_line(begun, capsys):
    main(begun)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "4 compared, 0 not in the baseline, worst +0.000 dB"
    assert "dropped" not in out


@pytest.mark.slow
def test_a_drop_is_named_and_ends_in_status_1(begun, capsys):
    def higher(rows):
        steps = [0.05 if number == 3 else 0.01 for number, _ in enumerate(rows)]
        return [
            dataclasses.replace(row, psnr_db=row.psnr_db + step)
            for row, step in zip(rows, steps, strict=True)
        ]

    worse = results.read(begun[-1], Result)[3]
    change_baseline(begun, higher)
    with pytest.raises(WorkError, match=r"^1 PSNRs dropped by more than 0\.02 dB$"):
        main(begun)
    lines = capsys.readouterr().out.splitlines()
    (dropped,) = [line for line in lines if line.startswith("dropped")]
    assert f"second {worse.protocol} x{worse.scale} {worse.model} " in dropped
    assert "-0.05" in dropped
    assert lines[-1] == "4 compared, 0 not in the baseline, worst -0.050 dB"
    main([*begun, "--tolerance-db", "0.1"])
    main([*begun, "--update-baseline"])
    main(begun)


def test_worse_weights_under_the_same_name_are_a_drop(begun, identity_network, tmp_path, capsys):
    other = tmp_path / "identity_rgb.npz"
    with np.load(identity_network("rgb")) as arrays:
        np.savez(other, **{**arrays, "b3": arrays["b3"] + np.float32(0.05)})
    begun[begun.index("--models") + 1] = str(other)
    with pytest.raises(WorkError, match=r"2 PSNRs dropped"):
        main(begun)
    out = capsys.readouterr().out
    assert out.count("the weights of identity_rgb changed: ") == 1
    assert re.search(r"4 compared, 0 not in the baseline, worst -\d+\.\d{3} dB\n$", out)


def test_what_is_not_in_the_baseline_is_named(begun, identity_network, capsys):
    begun.insert(begun.index("--models") + 1, str(identity_network("y")))
    main(begun)
    lines = capsys.readouterr().out.splitlines()
    assert "not in the baseline: first paper-rgb x2 identity_y" in lines
    assert lines[-1].startswith("4 compared, 2 not in the baseline, worst +0.000")


def test_what_was_not_scored_is_named(begun, tmp_path, capsys):
    at = begun.index("--models")
    main([*begun[:at], "--models", "bicubic", *begun[at + 2 :]])
    out = capsys.readouterr().out
    assert "in the baseline, but not scored: first paper-rgb x2 identity_rgb\n" in out
    # A run that can no longer be loaded must not pass for one as good as before.
    (tmp_path / "runs" / "identity_rgb").mkdir(parents=True)
    broken = ["--models", str(tmp_path / "runs" / "identity_rgb"), "srcnn-915"]
    with pytest.raises(WorkError, match=r"^identity_rgb of the baseline was not scored$"):
        main([*begun[:at], *broken, *begun[at + 2 :]])


def test_changed_pictures_are_no_regression(begun, sets, tmp_path):
    Image.new("RGB", (64, 64), "red").save(sets / "first" / "coffee.png")
    before = (tmp_path / "out" / HISTORY).read_bytes()
    with pytest.raises(UsageError, match=r"the pictures are first@.*those of the baseline first@"):
        main(begun)
    assert (tmp_path / "out" / HISTORY).read_bytes() == before
    main([*begun, "--update-baseline"])
    main(begun)


def test_a_picture_that_fails_late_is_named_and_the_others_are_kept(begun, sets, tmp_path, capsys):
    path = sets / "first" / "coffee.png"
    path.write_bytes(path.read_bytes()[:3000])
    arguments = [*begun[:-2], "--update-baseline", *begun[-2:]]
    before = Path(begun[-1]).read_bytes()
    with pytest.raises(WorkError, match=r"coffee\.png is not a readable picture"):
        main(arguments)
    assert Path(begun[-1]).read_bytes() == before
    newest = rows_of(tmp_path / "out")[4:]
    assert len(newest) == 4
    assert {row.images for row in newest if row.dataset.startswith("first")} == {1}
    assert {row.images for row in newest if row.dataset.startswith("second")} == {2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: [], "has no row to compare with"),
        (lambda rows: [dataclasses.replace(row, model="edsr") for row in rows], "nothing of"),
        (lambda rows: [dataclasses.replace(row, protocol="own") for row in rows], "nothing of"),
    ],
)
def test_a_baseline_that_matches_nothing_is_refused(begun, tmp_path, change, reason):
    Path(begun[-1]).touch()
    change_baseline(begun, change)
    Path(begun[-1]).touch()
    before = (tmp_path / "out" / HISTORY).read_bytes()
    with pytest.raises(UsageError, match=reason):
        main(begun)
    assert (tmp_path / "out" / HISTORY).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--benchmarks", "{folder}/none"], "is not a local folder of folders"),
        (
            ["--benchmarks", "{folder}/sets", "--baseline", "{folder}/none.csv"],
            "there is no baseline",
        ),
        (["--benchmarks", "{folder}/sets", "--models", "best"], "best is no run folder"),
        (["--benchmarks", "{folder}/sets", "--output", "{folder}/file"], "is a file"),
        ([], "--benchmarks --data is required"),
        (["--benchmarks", "{folder}/sets", "--update-baseline"], "needs --baseline CSV"),
        (["--benchmarks", "{folder}/sets", "--tolerance-db", "-1"], "--tolerance-db: must be"),
        (
            ["--benchmarks", "{folder}/sets", "--update-baseline", "--baseline", "{folder}/sets"],
            "would replace",
        ),
        (
            ["--data", "none", "--update-baseline", "--baseline", "{folder}/out/history.csv"],
            "would replace",
        ),
    ],
)
def test_bad_input_is_refused_and_nothing_written(sets, tmp_path, arguments, reason):
    (tmp_path / "file").touch()
    filled = [text.format(folder=tmp_path) for text in arguments]
    with pytest.raises(UsageError, match=reason):
        main(["--output", str(tmp_path / "out"), *filled])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_page")
def test_a_network_of_rgb_is_left_out_of_paper_and_said(command, tmp_path, caplog):
    main([*command, "--protocols", "article", "paper", "--output", str(tmp_path / "out")])
    scored = {(row.protocol, row.model) for row in rows_of(tmp_path / "out")}
    assert scored == {
        ("article", "bicubic"), ("article", "identity_rgb"), ("paper", "bicubic"),
    }  # fmt: skip
    assert caplog.text.count("identity_rgb makes RGB and is left out of protocol paper") == 1
    with pytest.raises(UsageError, match="Score it by paper-rgb"):
        main([*command, "--protocols", "paper", "--output", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
