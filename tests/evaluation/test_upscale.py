import logging
import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from evaluation import upscale
from evaluation.metrics import psnr_db
from evaluation.photo import read_photo
from evaluation.upscale import main
from pipelines.command.cli import Interrupted, UsageError, WorkError
from tests.support import REPOSITORY
from trainer.models.espcn import Espcn


@pytest.fixture
def photo(folder):
    return folder / "coffee.png"


@pytest.fixture
def large(tmp_path):
    return tmp_path / "large.png"


@pytest.fixture
def run(tmp_path):
    """run(*arguments): the command by bicubic."""
    return lambda *arguments: main([*map(str, arguments), "--model", "bicubic"])


def samples(path):
    return read_photo(str(path)).samples


def test_bicubic_is_pillows(photo, large, run):
    run(photo, large, "--scale", "3")
    expected = Image.open(photo).resize((288, 288), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(large)), np.asarray(expected))


@pytest.mark.parametrize("channels", ["rgb", "y"])
def test_a_network_works_on_the_bicubic_picture(photo, large, identity_network, channels):
    main([str(photo), str(large), "--model", str(identity_network(channels)), "--scale", "2"])
    expected = Image.open(photo).resize((192, 192), Image.Resampling.BICUBIC)
    assert psnr_db(np.asarray(Image.open(large)), np.asarray(expected)) > 50


def test_self_ensemble_is_named(photo, large, identity_network, capsys):
    main([str(photo), str(large), "--model", str(identity_network("y")), "--self-ensemble"])
    assert "by identity_y+\n" in capsys.readouterr().out


@pytest.mark.parametrize("channels", ["rgb", "y"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB"])
def test_grey_stays_grey(tmp_path, photo, large, identity_network, channels, mode):
    grey = Image.open(photo).convert("L")
    grey.convert(mode).save(tmp_path / "grey.png")
    main([str(tmp_path / "grey.png"), str(large), "--model", str(identity_network(channels))])
    with Image.open(large) as image:
        assert image.mode == mode
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels == pixels[..., :1]).all()
    expected = np.asarray(grey.resize((192, 192), Image.Resampling.BICUBIC))
    assert psnr_db(pixels[..., 0].astype(np.uint8), expected) > 50


def test_transparency_is_bicubic_and_bleeds_no_colour(tmp_path, large, run):
    rgba = np.zeros((30, 30, 4), np.uint8)
    rgba[...] = 0, 255, 0, 0
    rgba[8:22, 8:22] = 250, 10, 10, 255
    Image.fromarray(rgba).save(tmp_path / "cut out.png")
    run(tmp_path / "cut out.png", large, "--scale", "4")
    with Image.open(large) as image:
        alpha = np.asarray(image.getchannel("A"))
        visible = np.asarray(image)[alpha > 0]
    expected = Image.fromarray(rgba[..., 3]).resize((120, 120), Image.Resampling.BICUBIC)
    assert np.array_equal(alpha, np.asarray(expected))
    assert (visible[:, :3] == (250, 10, 10)).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay(tmp_path, run, suffix):
    grey = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / f"in{suffix}")
    run(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    enlarged = samples(tmp_path / f"out{suffix}")
    assert enlarged.dtype == np.uint16
    assert len(np.unique(enlarged)) > 2000


def test_white_of_fewer_bits_is_told(tmp_path, run, caplog):
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(tmp_path / "in.png")
    run(tmp_path / "in.png", tmp_path / "out.png")
    assert "in.png: no sample of its 16 bits is above 4095, which is taken for white" in caplog.text
    assert (samples(tmp_path / "out.png") == 4000).all()
    run(tmp_path / "in.png", tmp_path / "out.jpg")
    assert abs(int(samples(tmp_path / "out.jpg")[0, 0, 0]) - 249) <= 1


def test_memory_does_not_grow_with_the_picture(tmp_path, large, run):
    peaks = []
    for height in (400, 1600):
        path = tmp_path / f"{height}.png"
        Image.linear_gradient("L").resize((300, height)).save(path)
        tracemalloc.start()
        run(path, large, "--scale", "8", "--overwrite")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The larger result has 31 MB, the smaller 8.
    assert peaks[1] < peaks[0] + 5_000_000


def test_what_is_there_is_replaced_only_when_asked(photo, large, run, tmp_path):
    run(photo, large)
    before = large.read_bytes()
    with pytest.raises(UsageError, match=r"large\.png is there already: .* or --overwrite"):
        run(photo, large, "--scale", "3")
    with pytest.raises(UsageError, match=r"coffee\.png is INPUT itself: choose another name"):
        run(photo, photo)
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(UsageError, match=r"page\.html is there already"):
        run(photo, tmp_path / "new.png", "--compare", page)
    assert large.read_bytes() == before
    run(photo, large, "--scale", "3", "--overwrite")
    assert samples(large).shape == (288, 288, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{folder}/none.png", "{folder}/out.png"], r"there is no picture .*none\.png"),
        (["-", "{folder}/out.png"], "there is no picture -"),
        (["{photo}", "-"], "no suffix is not written"),
        (["{photo}", "{folder}"], "is a folder"),
        (["{photo}", "{folder}/out.xyz"], r"\.xyz is not written, use \.png"),
        (["{photo}", "{folder}/a/out.png"], "there is no folder"),
        (["{photo}", "{folder}/out.png", "--model", "best"], "best is no run folder"),
        (["{photo}", "{folder}/out.png", "--scale", "1"], "--scale: must be a whole number of at"),
        (["{photo}", "{folder}/out.png", "--scale", "65"], "--scale: must be a whole number of at"),
        (["{photo}", "{folder}/out.png", "--scale", "5"], "fsrcnn has weights for x2, x3, x4"),
        (["{photo}", "{folder}/out.png", "--compare", "{folder}/a.jpg"], "use .html or .png"),
        (["{photo}", "{folder}/a.png", "--compare", "{folder}/a.png"], "a file of its own"),
        (["{folder}", "{folder}/out", "--compare", "{folder}/a.html"], "for one picture"),
        (["{folder}", "{folder}/out.png"], "is a picture's name, but INPUT a folder"),
        (["{folder}", "{photo}"], "is a picture's name|is a file"),
        (["{folder}", "{folder}/."], "is the folder of the pictures themselves"),
        (["{empty}", "{folder}/out"], r"empty has no picture \(\.avif"),
        (["{photo}"], "OUTPUT"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, folder, photo, arguments, reason):
    (tmp_path / "empty").mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=reason):
        places = {"photo": photo, "folder": folder, "empty": tmp_path / "empty"}
        main([text.format(**places) for text in arguments])
    assert sorted(folder.iterdir()) == before


def test_a_scale_that_the_name_does_not_say_is_warned_of(photo, large, identity_network, caplog):
    weights = identity_network("rgb").read_bytes()
    path = photo.parent / "srcnn_x2.npz"
    path.write_bytes(weights)
    main([str(photo), str(large), "--model", str(path)])
    assert "expect a loss" not in caplog.text
    main([str(photo), str(large), "--model", str(path), "--scale", "4", "--overwrite"])
    assert "srcnn_x2 was trained for x2: expect a loss at x4" in caplog.text


def test_a_network_of_one_scale_takes_the_picture_as_it_is(photo, large):
    network = Espcn(channels=1, scale=3)
    path = photo.parent / "espcn.npz"
    np.savez(path, **network.initial_weights(np.random.default_rng(0)))
    main([str(photo), str(large), "--model", str(path), "--scale", "3"])
    assert samples(large).shape == (288, 288, 3)
    with pytest.raises(UsageError, match="--scale 2: espcn has weights for x3 alone"):
        main([str(photo), str(large), "--model", str(path), "--overwrite"])


def test_a_folder_is_enlarged_and_what_is_there_left(folder, tmp_path, run, caplog, capsys):
    caplog.set_level(logging.INFO)
    Image.open(folder / "coffee.png").save(folder / "flat.bmp")
    Image.open(folder / "coffee.png").save(folder / "anim.GIF")
    (folder / "._coffee.png").write_bytes(b"of another system")
    (folder / "notes.txt").write_text("no picture")
    target = tmp_path / "new" / "large"
    run(folder, target)
    names = ["anim.png", "astronaut.png", "chelsea.png", "coffee.png", "flat.bmp", "rocket.png"]
    assert [path.name for path in sorted(target.iterdir())] == names
    assert capsys.readouterr().out.count("192x192 pixels by bicubic") == 6
    assert "upscale: 221,184 of 221,184 pixels (100 %)" in caplog.text

    (target / "coffee.png").unlink()
    kept = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    run(folder, target)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "has 5 of 6 already; --overwrite makes them anew" in caplog.text
    assert (target / "coffee.png").exists()
    with pytest.raises(UsageError, match=r"anim\.png is 192x192 pixels, not 288x288: choose"):
        run(folder, target, "--scale", "3")
    run(folder, target, "--scale", "3", "--overwrite")
    assert samples(target / "anim.png").shape == (288, 288, 3)


def test_all_bad_pictures_of_a_folder_are_named_before(folder, tmp_path, run):
    (folder / "text.png").write_text("text")
    frames = [Image.new("L", (9, 9), grey) for grey in (0, 200)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (9, 9)).save(folder / "coffee.gif")
    with pytest.raises(
        UsageError, match=r"coffee\.png and .*coffee\.gif.*film\.gif is.*text\.png is"
    ):
        run(folder, tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_a_picture_that_fails_costs_no_other(folder, tmp_path, run):
    whole = (folder / "coffee.png").read_bytes()
    (folder / "coffee.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkError, match=r"1 of 4 failed: .*coffee\.png is not a readable picture"):
        run(folder, tmp_path / "large")
    assert len([*(tmp_path / "large").iterdir()]) == 3


def test_an_interruption_leaves_no_half_picture(folder, photo, tmp_path, run, monkeypatch):
    calls = []

    def interrupted(*_):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return read_photo(*_)

    monkeypatch.setattr(upscale, "read_photo", interrupted)
    with pytest.raises(KeyboardInterrupt):  # the same command goes on
        run(folder, tmp_path / "large")
    assert len([*(tmp_path / "large").iterdir()]) == 2
    with pytest.raises(Interrupted, match="begins anew"):
        run(photo, tmp_path / "one.png")
    assert not [*tmp_path.glob("one.png*")]


@pytest.mark.slow
def test_a_process_that_is_interrupted_goes_on(folder, tmp_path):
    for number in range(30):
        Image.effect_noise((400, 400), 60).save(folder / f"{number}.png")
    command = [sys.executable, "-m", "evaluation.upscale", str(folder), str(tmp_path / "large")]
    command += ["--model", "bicubic", "--scale", "4"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 3
    assert errors.endswith("interrupted: the same command goes on from here\n")
    assert 1 <= len([*(tmp_path / "large").iterdir()]) < 34
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "of 34 already" in again.stderr
    assert len([*(tmp_path / "large").iterdir()]) == 34
