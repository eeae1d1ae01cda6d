"""The page with the slider, as a browser shows it."""

import re

import numpy as np
import pytest
from PIL import Image

from evaluation.before_after import PART_PX, before_after
from evaluation.metrics import psnr_db
from evaluation.photo import Photo
from evaluation.upscale import main
from evaluation.upscalers import Bicubic

# Moves the slider as a hand would, and tells what is shown then.
MOVE = """<script>
const input = document.querySelector('.pair input'), images = [...document.images];
const over = images[1];
const seen = at => {
  input.value = at;
  input.dispatchEvent(new Event('input'));
  return getComputedStyle(over).clipPath;
};
const [left, right] = images.map(image => image.getBoundingClientRect());
document.title = JSON.stringify([
  images.map(image => image.naturalWidth), left.x === right.x && left.width === right.width,
  seen(0), seen(75), input.getBoundingClientRect().width === left.width,
  document.documentElement.scrollWidth <= window.innerWidth]);
</script>"""


@pytest.fixture
def compared(folder, tmp_path, identity_network):
    """compared(name): what --compare NAME writes."""

    def write(name):
        path = tmp_path / name
        model = ["--model", str(identity_network("y")), "--compare", str(path)]
        main([str(folder / "coffee.png"), str(tmp_path / "large.png"), *model])
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_the_slider_uncovers_one_picture_over_the_other(compared, browse, width):
    page = compared("pair.html")
    page.write_text(page.read_text().replace("</body>", f"{MOVE}</body>"))
    document, console = browse(page, "--dump-dom", f"--window-size={width},900")
    assert console == []
    title = re.search(r"<title>(.*?)</title>", document).group(1)
    inset = "inset(0px 0px 0px {}%)"
    assert title.replace('"', "") == (
        f"[[192,192],true,{inset.format(0)},{inset.format(75)},true,true]"
    )
    assert "identity_y" in document


def test_a_picture_has_both_side_by_side(compared, tmp_path):
    with Image.open(compared("pair.png")) as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] == 192
    before, after = pixels[:, :192], pixels[:, -192:]
    assert psnr_db(before, after) > 50
    with Image.open(tmp_path / "large.png") as large:
        assert np.array_equal(np.asarray(large), after)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_of_a_large_picture_the_middle_is_shown(tmp_path, channels):
    samples = np.random.default_rng(0).integers(0, 65536, (700, 20, channels)).astype(np.uint16)
    data = before_after("a.png", Photo(samples, 65535, channels < 3), Bicubic(), 2)
    (tmp_path / "a.png").write_bytes(data)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * 40 + 4, PART_PX)
        assert len(image.getbands()) == channels
