import numpy as np
import pytest
from PIL import Image

from evaluation.metrics import psnr_db
from evaluation.upscale import main
from pipelines.command.cli import UsageError


@pytest.fixture
def photo(folder):
    return folder / "coffee.png"


def test_bicubic_is_pillows(photo, tmp_path):
    main([str(photo), str(tmp_path / "large.png"), "--model", "bicubic", "--scale", "3"])
    expected = Image.open(photo).resize((288, 288), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "large.png")), np.asarray(expected))


@pytest.mark.parametrize("channels", ["rgb", "y"])
def test_a_network_works_on_the_bicubic_picture(photo, tmp_path, identity_network, channels):
    output = tmp_path / "large.png"
    main([str(photo), str(output), "--model", str(identity_network(channels)), "--scale", "2"])
    expected = Image.open(photo).resize((192, 192), Image.Resampling.BICUBIC)
    assert psnr_db(np.asarray(Image.open(output)), np.asarray(expected)) > 50


def test_grey_and_odd_sizes(tmp_path):
    Image.new("L", (7, 5), 77).save(tmp_path / "grey.png")
    main([str(tmp_path / "grey.png"), str(tmp_path / "large.jpg"), "--scale", "4"])
    with Image.open(tmp_path / "large.jpg") as large:
        assert (large.format, large.size) == ("JPEG", (28, 20))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{folder}/none.png", "{folder}/out.png"], "none.png is not a readable picture"),
        (["{photo}", "{folder}/out.xyz"], "no picture format is known by '.xyz'"),
        (["{photo}", "{folder}/a/out.png"], "there is no folder"),
        (["{photo}", "{folder}/out.png", "--model", "best"], "best is no run folder"),
        (
            ["{photo}", "{folder}/out.png", "--scale", "1"],
            "--scale: must be a whole number of at least 2",
        ),
        (["{photo}"], "OUTPUT"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(folder, photo, arguments, reason):
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=reason):
        main([text.format(photo=photo, folder=folder) for text in arguments])
    assert sorted(folder.iterdir()) == before
