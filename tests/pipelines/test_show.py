import base64
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.lease import Lease
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import write_table
from pipelines.dataset.tfrecord import read_records
from pipelines.inspect.dataset_page import render
from pipelines.inspect.selection import choose
from pipelines.inspect.summary import summarize
from pipelines.lists.list_file import Source
from pipelines.lists.plan import prepare
from pipelines.show import main
from tests.support import REPOSITORY

# Counts what is really visible into the title, which --dump-dom then shows.
COUNT = """<script>
const drawn = [...document.images].filter(
  image => image.naturalWidth > 1 && image.getBoundingClientRect().width > 40);
const sizes = new Set(
  [...document.images].map(image => Math.round(image.getBoundingClientRect().width)));
document.title = [drawn.length, sizes.size, document.querySelectorAll('table').length,
  document.documentElement.scrollWidth <= window.innerWidth].join(' ');
</script>"""


def every_example(data: Path) -> list[tuple[str, Example]]:
    manifest = Manifest.load(str(data))
    found = []
    for split in ("train", "validation", "test"):
        for name in manifest.split(split):
            with (data / "examples" / f"{name}.tfrecord").open("rb") as file:
                found += [(name, Example.from_bytes(record)) for record in read_records(file)]
    return found


def test_the_page_holds_pictures_ids_and_every_outcome(photo_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    main([str(photo_dataset), "--output", str(output), "--count", "1000"])
    html = output.read_text()
    pictures = [
        base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,(.*?)"', html)
    ]
    examples = every_example(photo_dataset)
    assert pictures == [png for _, e in examples for png in (e.hr, *e.lr.values())]
    for _, example in examples:
        assert f"<b>{example.image_id}</b>" in html
    for word, count in (("ok", 16), ("not_an_image", 2)):
        assert f"<tr><th>{word}</th><td>{count}</td>" in html
        assert Outcome(word).sentence in html
    assert not re.search(r"<script [^>]*src|<link|src=\"(?!data:)|url\(", html)


def test_an_outcome_of_another_version_is_shown(photo_dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photo_dataset, tmp_path / "set")
    text = (data / "dataset.json").read_text()
    (data / "dataset.json").write_text(text.replace('"not_an_image"', '"melted"'))
    main([str(data), "--output", str(tmp_path / "page.html")])
    assert "<tr><th>melted</th><td>2</td>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("count", [1, 3, 10, 32, 1000])
def test_examples_are_chosen_evenly(photo_dataset: Path, count: int) -> None:
    every = every_example(photo_dataset)
    folder, manifest = DatasetFolder(str(photo_dataset)), Manifest.load(str(photo_dataset))
    chosen = [every.index(found) for found in choose(folder, manifest, count)]
    assert len(chosen) == min(count, len(every))
    steps = [after - before for before, after in itertools.pairwise(chosen)]
    assert chosen[0] == 0
    assert max(steps, default=1) - min(steps, default=1) <= 1
    assert chosen[-1] + max(steps, default=len(every)) >= len(every)


def test_lines_are_summed_by_host_family_and_class(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    size = {"width": 3, "height": 4, "num_bytes": 5}
    rows = [
        Row(Outcome.OK, "n01440764_1", "http://farm4.static.flickr.com/1.jpg", **size),
        Row(Outcome.TIMED_OUT, "n01440764_2", "https://live.staticflickr.com:443/2.jpg"),
        Row(Outcome.OK, "n01440765/3.png", "http://me:pw@WWW.example.co.uk:8080", **size),
        Row(Outcome.UNSUPPORTED_URL, "no class", "http://"),
        Row(Outcome.CORRUPT, "n014407659", "a/path.png"),
        Row(Outcome.MALFORMED_LINE, line=b"\xff"),
    ]
    (tmp_path / "outcomes").mkdir()
    with (tmp_path / "outcomes" / "train-00000-of-00001.parquet").open("wb") as file:
        write_table(file, rows)
    summary = summarize(folder)
    assert summary.families == {
        "flickr.com": {"ok": 1, "timed_out": 1},
        "example.co.uk": {"ok": 1},
        "": {"unsupported_url": 1},
    }
    assert summary.wnids == {"n01440764": {"ok": 1, "timed_out": 1}, "n01440765": {"ok": 1}}
    assert summary.sizes().tolist() == [[3, 4, 5], [3, 4, 5]]


@pytest.mark.slow
def test_the_page_does_not_depend_on_the_locale(photo_dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "pipelines.show", photo_dataset, "--output", page]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(command, check=True, env=os.environ | ascii_only, cwd=REPOSITORY)
    assert "▲" in page.read_text("utf-8")


def test_texts_of_strangers_are_escaped(photo_dataset: Path) -> None:
    _, example = every_example(photo_dataset)[0]
    hostile = '<script>alert("&")</script>'
    evil = Example(hostile, hostile, "", Crop(0, 0, 1, 1), example.hr, example.lr)
    folder, manifest = DatasetFolder(str(photo_dataset)), Manifest.load(str(photo_dataset))
    summary = summarize(folder)
    summary.families[hostile][hostile] += 1
    html = render(folder, manifest, summary, [("train-0", evil)])
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;") > 5


def test_a_dataset_that_is_built_is_shown_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal again and again, until nobody builds there."""
    source = tmp_path / "urls.tsv"
    source.write_text("n01440764_1\thttp://a.com/1.jpg\n")
    folder = DatasetFolder(str(tmp_path / "set"))
    prepare(folder, DatasetOptions(), Source(str(source)))
    arguments = [folder.root, "--output", str(tmp_path / "page.html")]
    with Lease(folder) as lease:
        main(arguments)
        assert "stage      start" in capsys.readouterr().out

        def end(_: float) -> None:
            lease.__exit__()

        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(time, "sleep", end)
        main(arguments)
    first, again = capsys.readouterr().out.split("\x1b[3F\x1b[J")
    assert "stage      start" in first
    assert "nobody builds here; 0 of 1 lines are fetched" in again
    assert not (tmp_path / "page.html").exists()


def test_bad_input_is_refused(photo_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished dataset"):
        main([str(tmp_path)])
    with pytest.raises(UsageError, match="there is no folder"):
        main([str(photo_dataset), "--output", str(tmp_path / "no" / "page.html")])
    with pytest.raises(UsageError, match="unknown option --cuont"):
        main([str(photo_dataset), "--cuont", "3"])


@pytest.mark.parametrize("kind", ["examples", "outcomes"])
@pytest.mark.parametrize("size", [0, 100, None])
def test_a_broken_dataset_is_told_in_one_line(
    photo_dataset: Path, tmp_path: Path, kind: str, size: int | None
) -> None:
    data = shutil.copytree(photo_dataset, tmp_path / "set")
    path = sorted((data / kind).iterdir())[-1]
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    if (kind, size) == ("outcomes", None):
        main([str(data), "--output", str(tmp_path / "page.html")])  # it cannot be missed here
        return
    with pytest.raises(WorkError, match=rf"{path.name}.*python -m pipelines\.verify"):
        main([str(data), "--output", str(tmp_path / "page.html")])


@pytest.mark.slow
def test_a_browser_shows_it_wide_and_narrow_light_and_dark(
    photo_dataset: Path, tmp_path: Path, browse: Callable[..., tuple[str, list[str]]]
) -> None:
    page = tmp_path / "page.html"
    main([str(photo_dataset), "--output", str(page), "--count", "6"])
    corners = []
    for number, options in enumerate(([], ["--blink-settings=preferredColorScheme=0"])):
        picture = tmp_path / f"{number}.png"
        browse(page, f"--screenshot={picture}", *options)
        with Image.open(picture) as image:
            corners.append(sum(image.convert("RGB").getpixel((2, 2))))  # type: ignore[arg-type]
    assert corners[0] > 700
    assert corners[1] < 100
    page.write_text(page.read_text().replace("</body>", f"{COUNT}</body>"))
    for width in (1000, 500):
        size = f"--window-size={width},900"
        document, console = browse(page, "--dump-dom", size)
        assert console == []
        title = re.search(r"<title>(.*?)</title>", document)
        # All pictures in one size, and the page itself never scrolls sideways.
        assert title
        assert title[1] == "18 1 5 true"
