"""The report as a browser shows it: everything there, nothing fetched, no error."""

import json
import re

import pytest
from PIL import Image

from evaluation.__main__ import main as evaluate
from evaluation.report import main

# Counts what is really visible into the title, which --dump-dom then shows.
COUNT = """<script>
const drawn = [...document.images].filter(
  image => image.naturalWidth > 1 && image.getBoundingClientRect().width > 40);
document.title = [drawn.length, document.images.length, document.querySelectorAll('table').length,
  document.querySelectorAll('svg').length,
  document.documentElement.scrollWidth <= window.innerWidth].join(' ');
</script>"""


@pytest.fixture
def report(tmp_path, dataset, identity_network):
    source = ["--data", str(dataset), "--models", str(identity_network("rgb")), "--scales", "2,3"]
    results = ["--results", str(tmp_path / "results.csv")]
    evaluate([*source, "--output", results[1]])
    main([*source, *results, "--pictures", "2", "--output", str(tmp_path / "report.html")])
    return tmp_path / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1000, 500])
def test_tables_and_pictures_are_shown_without_an_error(report, browse, width):
    report.write_text(report.read_text().replace("</body>", f"{COUNT}</body>"))
    document, console = browse(report, "--dump-dom", f"--window-size={width},900")
    assert console == []
    title = re.search(r"<title>(.*?)</title>", document)
    images = 2 * 2 * (5 + 2)  # two are in each slider
    # The page itself never scrolls sideways.
    assert title.group(1) == f"{images} {images} 1 1 true"


# What the first and the second column show after a click on each head; then what the slider and the
# enlarged panel show.
USE = """<script>
const rows = document.querySelector('tbody').rows, heads = document.querySelectorAll('thead th');
rows[1].cells[1].innerText = '128.5 / .9';
const orders = [1, 1, 0, 0].map(column => {
  heads[column].click();
  return rows[0].cells[0].innerText;
});
const panels = [...document.querySelector('.panels').querySelectorAll('figure .zoom')];
const left = document.querySelector('select'), shown = document.querySelector('.pair img');
const bicubic = shown.src === panels[1].src;
left.selectedIndex = 3;
left.onchange();
panels[3].click();
const dialog = document.querySelector('dialog[open] img');
document.title = JSON.stringify([...orders, bicubic, shown.src === panels[3].src,
  dialog.src === panels[3].src, dialog.getBoundingClientRect().width > 600]);
</script>"""


@pytest.mark.slow
def test_a_click_sorts_and_enlarges_and_the_slider_compares(report, browse):
    report.write_text(report.read_text().replace("</body>", f"{USE}</body>"))
    document, console = browse(report, "--dump-dom", "--window-size=1000,900")
    assert console == []
    found = json.loads(re.search(r"<title>(.*?)</title>", document).group(1))
    # Numbers begin with the largest, names with a.
    assert found[:4] == ["identity_rgb", "bicubic", "bicubic", "identity_rgb"]
    assert found[4:] == [True] * 4


@pytest.mark.slow
def test_an_error_would_be_seen(report, browse):
    broken = report.read_text().replace("</body>", "<img src=http://example.org/a.png></body>")
    report.write_text(broken.replace("</body>", "<script>missing()</script></body>"))
    _, console = browse(report, "--dump-dom")
    assert any("missing is not defined" in line for line in console)


@pytest.mark.slow
def test_it_follows_the_readers_light_or_dark(report, browse, tmp_path):
    corners = []
    for number, options in enumerate(([], ["--blink-settings=preferredColorScheme=0"])):
        picture = tmp_path / f"{number}.png"
        browse(report, f"--screenshot={picture}", *options)
        with Image.open(picture) as image:
            corners.append(sum(image.convert("RGB").getpixel((2, 2))))
    assert corners[0] > 700
    assert corners[1] < 100
