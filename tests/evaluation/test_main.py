import csv
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from evaluation.__main__ import main
from evaluation.scoring import Scores
from pipelines.command.cli import UsageError, WorkError
from trainer.export import ModelDescription, export_model
from trainer.models.lapsrn import Lapsrn
from trainer.models.srcnn import Srcnn
from trainer.weights_file import write_weights


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_models_are_scored_at_every_scale(dataset, identity_network, tmp_path, capsys):
    output = tmp_path / "results.csv"
    networks = [str(identity_network(channels)) for channels in ("rgb", "y")]
    main(["--data", str(dataset), "--output", str(output), "--models", "bicubic", *networks])
    rows = rows_of(output)
    models = ["bicubic", "identity_rgb", "identity_y"]
    assert [(row["model"], row["scale"]) for row in rows] == [(m, s) for s in "234" for m in models]
    for row in rows:
        assert (row["protocol"], row["split"], row["images"]) == ("article", "test", "4")
        assert row["dataset"].startswith("data@")
        # The networks give back their bicubic input, unrounded.
        assert float(row["gain_db"]) == pytest.approx(0, abs=0.05)
        assert float(row["psnr_db"]) - float(row["bicubic_psnr_db"]) == pytest.approx(
            float(row["gain_db"]), abs=1e-3
        )
        assert float(row["seconds_per_image"]) > 0
    assert {row["weights"] == "" for row in rows if row["model"] == "bicubic"} == {True}
    assert all(len(row["weights"]) == 12 for row in rows if row["model"] != "bicubic")
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == [word for s in "234" for word in (f"x{s}", "PSNR", "SSIM", "gain")]
    assert [line.split()[0] for line in table[2:5]] == models
    assert f"{float(rows[0]['psnr_db']):.2f}" == table[2].split()[1]


def test_x8_is_scored_where_a_model_is_made_for_it(folder, tmp_path):
    network = Lapsrn(levels=3, layers=5)
    weights = network.initial_weights(np.random.default_rng(0))
    (tmp_path / "lapsrn.npz").write_bytes(write_weights(network, weights, network.scales))
    output = tmp_path / "results.csv"
    main(["--images", str(folder), "--output", str(output), "--protocol", "paper"])
    assert {row["scale"] for row in rows_of(output)} == {"2", "3", "4"}
    models = ["--models", str(tmp_path / "lapsrn.npz"), "--protocol", "paper-rgb"]
    main(["--images", str(folder), "--output", str(output), *models])
    scored = {(row["model"], row["scale"]) for row in rows_of(output)[3:]}
    assert scored == {("bicubic", scale) for scale in "2348"} | {("lapsrn", s) for s in "248"}


def test_self_ensemble_has_rows_of_its_own(folder, identity_network, tmp_path):
    output = tmp_path / "results.csv"
    source = ["--images", str(folder), "--scales", "2", "--output", str(output)]
    main([*source, "--models", str(identity_network("y")), "--self-ensemble"])
    assert [row["model"] for row in rows_of(output)] == ["bicubic", "identity_y+"]


def test_a_network_of_rgb_is_refused_by_paper(folder, identity_network, tmp_path):
    output = tmp_path / "results.csv"
    source = ["--images", str(folder), "--protocol", "paper", "--output", str(output)]
    with pytest.raises(UsageError, match=r"identity_rgb makes RGB.* Score it by paper-rgb"):
        main([*source, "--models", str(identity_network("y")), str(identity_network("rgb"))])
    assert not output.exists()


def test_a_model_worse_than_bicubic_is_named(dataset, tmp_path, caplog):
    weights = Srcnn(1).initial_weights(np.random.default_rng(0))
    np.savez(tmp_path / "new.npz", **weights)
    options = ["--output", str(tmp_path / "results.csv"), "--scales", "2"]
    main(["--data", str(dataset), "--models", str(tmp_path / "new.npz"), *options])
    assert re.search(r"new is worse than bicubic at x2: -\d", caplog.text)


def test_results_of_pictures_on_request(folder, tmp_path):
    output, pictures = tmp_path / "results.csv", tmp_path / "pictures.csv"
    source = ["--images", str(folder), "--protocol", "paper", "--scales", "3"]
    main([*source, "--output", str(output), "--per-image", str(pictures)])
    rows = rows_of(pictures)
    assert [row["picture"] for row in rows] == sorted(path.name for path in folder.iterdir())
    mean = sum(float(row["psnr_db"]) for row in rows) / len(rows)
    assert mean == pytest.approx(float(rows_of(output)[0]["psnr_db"]), abs=1e-3)


def test_shave_is_written_down_and_matters(dataset, tmp_path):
    output = tmp_path / "results.csv"
    for shave in ([], ["--shave", "6"]):
        main(["--data", str(dataset), "--scales", "2", "--output", str(output), *shave])
    whole, shaved = rows_of(output)
    assert (whole["shave_px"], shaved["shave_px"]) == ("0", "6")
    assert whole["psnr_db"] != shaved["psnr_db"]


def test_a_warning_where_the_degradations_differ(make_dataset, photos, tmp_path, caplog):
    network = Srcnn(3)
    run = tmp_path / "srcnn"
    export_model(
        str(run),
        ModelDescription("srcnn", "rgb", (2,), "bicubic"),
        network,
        network.initial_weights(np.random.default_rng(0)),
    )
    arguments = ["--data", str(make_dataset(photos)), "--output", str(tmp_path / "results.csv")]
    main([*arguments, "--models", str(run)])
    assert "srcnn was trained on LR by bicubic and is scored on LR by article" in caplog.text
    assert "srcnn is skipped at x3" in caplog.text
    rows = rows_of(tmp_path / "results.csv")
    assert [row["scale"] for row in rows if row["model"] == "srcnn"] == ["2"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "{empty}"], r"has no dataset\.json"),
        (["--data", "{dataset}", "--split", "validation"], "validation split .* has no example"),
        (["--images", "{empty}"], "has no picture"),
        (["--data", "{dataset}", "--images", "{empty}"], "not allowed with"),
        ([], "--data --images is required"),
        (["--data", "{dataset}", "--scales", "2,7"], "--scales 7: .* stored at 2,3,4 only"),
        (
            ["--images", "{empty}", "--scales", "2,200"],
            "--scales: must be .* below 17, not '2,200'",
        ),
        (["--data", "{dataset}", "--scales", "two"], "--scales: must be a list of whole numbers"),
        (["--data", "{dataset}", "--shave", "-1"], "--shave: must be a whole number of at least 0"),
        (["--data", "{dataset}", "--shave", "90"], "too few to score"),
        (["--data", "{dataset}", "--protocol", "journal"], "invalid choice: 'journal'"),
        (["--data", "{dataset}", "--models", "edsr"], "edsr is no run folder"),
        (["--data", "{dataset}", "--models", "{empty}"], "holds neither an exported model"),
        (["--data", "{dataset}", "--model", "bicubic"], "unknown option --model: did you mean"),
        (["--data", "{dataset}", "--output", "{empty}"], "is a folder"),
        (["--data", "{dataset}", "--per-image", "{output}"], "are the same file"),
        (["--data", "{dataset}", "--output", "{empty}/a/b.csv"], "there is no folder"),
        (["--data", "gs://bucket/set"], "gs://bucket/set: only local folders and s3://"),
        (["--data", "{dataset}", "--output", "http://host/a.csv"], "only local folders and s3://"),
        (["--images", "s3://bucket/set5"], "s3://bucket/set5 is not a local folder"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(dataset, tmp_path, arguments, reason):
    empty, output = tmp_path / "empty", tmp_path / "results.csv"
    empty.mkdir()
    filled = [text.format(empty=empty, dataset=dataset, output=output) for text in arguments]
    with pytest.raises(UsageError, match=reason):
        main(["--output", str(output), *filled])
    assert not output.exists()
    assert not any(empty.iterdir())


def test_two_models_of_one_name_are_refused(dataset, identity_network, tmp_path):
    path = identity_network("rgb")
    other = tmp_path / path.name
    other.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="two models are called 'identity_rgb'"):
        main(["--data", str(dataset), "--models", str(path), str(other)])


def test_weights_at_scales_that_they_do_not_name_are_warned_of(
    folder, identity_network, tmp_path, caplog
):
    for name in ("made_x3", "vdsr"):
        (tmp_path / f"{name}.npz").write_bytes(identity_network("y").read_bytes())
    models = ["--models", *(str(tmp_path / f"{name}.npz") for name in ("made_x3", "vdsr"))]
    main(["--images", str(folder), *models, "--output", str(tmp_path / "r.csv")])
    assert "made_x3 is made for x3, says its name, and is scored at x2, x4: " in caplog.text
    assert "vdsr does not say for which scales it was made" in caplog.text


def rows_but_for_time(path):
    return [{**row, "run_at": "", "seconds_per_image": ""} for row in rows_of(path)]


def test_an_interrupted_evaluation_goes_on(folder, identity_network, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("evaluation.scoring.BATCH_PX", 1)  # a picture at a time
    caplog.set_level("INFO")
    source = ["--images", str(folder), "--scales", "2,3", "--models", str(identity_network("y"))]
    options = ["--output", str(tmp_path / "whole.csv"), "--per-image", str(tmp_path / "w.csv")]
    main([*source, *options])
    calls, add = [], Scores.of

    def interrupted(scores, samples):
        if len(calls) == 10:  # in the third picture, four calls each
            raise KeyboardInterrupt
        calls.append(samples)
        return add(scores, samples)

    monkeypatch.setattr(Scores, "of", interrupted)
    options = ["--output", str(tmp_path / "r.csv"), "--per-image", str(tmp_path / "p.csv")]
    with pytest.raises(KeyboardInterrupt):
        main([*source, *options])
    assert not (tmp_path / "r.csv").exists()
    monkeypatch.setattr(Scores, "of", lambda *what: (calls.append(what), add(*what))[1])
    main([*source, *options])
    assert "going on: 2 of 4 pictures are scored" in caplog.text
    assert len(calls) == 4 * 4
    assert rows_but_for_time(tmp_path / "r.csv") == rows_but_for_time(tmp_path / "whole.csv")
    assert rows_but_for_time(tmp_path / "p.csv") == rows_but_for_time(tmp_path / "w.csv")
    assert not list(tmp_path.glob("*unfinished*"))


def test_what_was_scored_on_other_pictures_is_not_taken(folder, tmp_path, monkeypatch):
    arguments = ["--images", str(folder), "--scales", "2", "--output", str(tmp_path / "r.csv")]
    monkeypatch.setattr("evaluation.results.append", lambda *what: sys.exit("killed"))
    with pytest.raises(SystemExit):
        main(arguments)
    monkeypatch.undo()
    Image.new("RGB", (96, 96), "red").save(folder / "astronaut.png")
    main(arguments)
    main([*arguments, "--shave", "0"])
    one, other = rows_but_for_time(tmp_path / "r.csv")
    assert one == other


def test_all_bad_pictures_are_named_before_the_first_is_scored(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "evaluation.__main__.load_upscalers", lambda *names, **options: pytest.fail("work")
    )
    Image.new("RGB", (12, 12)).save(folder / "tiny.png")
    (folder / "text.jpg").write_text("no picture")
    with pytest.raises(UsageError, match=r"tiny\.png has 12x12 .*; .*text\.jpg is not a readable"):
        main(["--images", str(folder), "--output", str(tmp_path / "r.csv"), "--protocol", "paper"])
    assert not (tmp_path / "r.csv").exists()


def test_what_fails_later_is_named_and_all_else_is_kept(folder, tmp_path, capsys):
    path = folder / "coffee.png"
    path.write_bytes(path.read_bytes()[:-1000])
    pictures = tmp_path / "p.csv"
    arguments = ["--images", str(folder), "--scales", "2", "--output", str(tmp_path / "r.csv")]
    with pytest.raises(WorkError, match=r"^1 not scored, all else is: .*coffee\.png is not a read"):
        main([*arguments, "--per-image", str(pictures)])
    assert [row["picture"] for row in rows_of(pictures)] == [
        "astronaut.png", "chelsea.png", "rocket.png",
    ]  # fmt: skip
    assert [row["images"] for row in rows_of(tmp_path / "r.csv")] == ["3"]
    assert "added to" in capsys.readouterr().out


def test_a_model_that_fails_costs_no_other_its_rows(folder, identity_network, tmp_path):
    with np.load(identity_network("y")) as arrays:
        weights = {name: array * np.float32(1e30) for name, array in arrays.items()}
    np.savez(tmp_path / "burst.npz", **weights)
    models = ["--models", str(tmp_path / "burst.npz"), str(identity_network("rgb"))]
    output = tmp_path / "r.csv"
    with pytest.raises(WorkError, match=r"^1 not scored, all else is: burst at x2: .* not finite"):
        main(["--images", str(folder), "--scales", "2", *models, "--output", str(output)])
    assert [row["model"] for row in rows_of(output)] == ["bicubic", "identity_rgb"]


def test_a_run_that_is_none_yet_is_left_out(folder, identity_network, tmp_path, caplog):
    (tmp_path / "runs" / "unfinished").mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").write_text("stray")
    runs = sorted(map(str, (tmp_path / "runs").iterdir()))
    arguments = ["--images", str(folder), "--scales", "2", "--output", str(tmp_path / "r.csv")]
    main([*arguments, "--models", str(identity_network("rgb")), *runs])
    assert [row["model"] for row in rows_of(tmp_path / "r.csv")] == ["bicubic", "identity_rgb"]
    assert "left out: " in caplog.text and "notes.txt is not a weights file" in caplog.text
    with pytest.raises(UsageError, match="nowhere is no run folder"):
        main([*arguments, "--models", str(identity_network("rgb")), "nowhere"])


@pytest.mark.slow
def test_bicubic_alone_needs_no_tensorflow(dataset, tmp_path):
    code = (
        "import sys; from evaluation.__main__ import main; main(sys.argv[1:]); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    arguments = ["--data", str(dataset), "--output", str(tmp_path / "results.csv")]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0


def test_the_exit_status_of_bad_input_is_2_and_the_reason_the_last_line(tmp_path):
    command = [sys.executable, "-m", "evaluation", "--data", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path} is not a finished dataset")


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        pytest.param("srcnn_9-1-5_91images_x2", 2, 36.34, marks=pytest.mark.slow),
        pytest.param("srcnn_9-1-5_91images_x3", 3, 32.39, marks=pytest.mark.slow),
        ("srcnn_9-1-5_91images_x4", 4, 30.08),
    ],
)
def test_published_srcnn_has_its_psnr_on_set5(shared_data, tmp_path, name, scale, expected):
    assert _psnr_on_set5(shared_data, tmp_path, name, str(scale)) == {
        str(scale): pytest.approx(expected, abs=0.01)
    }


@pytest.mark.slow
@pytest.mark.no_cover
def test_published_vdsr_has_its_psnr_on_set5(shared_data, tmp_path):
    assert _psnr_on_set5(shared_data, tmp_path, "vdsr_nobias_twtygqyy", "2,3,4") == {
        "2": pytest.approx(37.59, abs=0.01),
        "3": pytest.approx(33.75, abs=0.01),
        "4": pytest.approx(31.43, abs=0.01),
    }


def _psnr_on_set5(shared_data, tmp_path, name, scales):
    output = tmp_path / "results.csv"
    source = ["--images", str(shared_data / "benchmarks" / "set5"), "--protocol", "paper"]
    weights = str(shared_data / "weights" / f"{name}.npz")
    main([*source, "--models", weights, "--scales", scales, "--output", str(output)])
    return {row["scale"]: float(row["psnr_db"]) for row in rows_of(output) if row["model"] == name}
