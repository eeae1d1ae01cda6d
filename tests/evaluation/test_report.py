import dataclasses
import html
import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation import page as pages
from evaluation import results
from evaluation.__main__ import main as evaluate
from evaluation.baseline import key_of
from evaluation.charts import to_png
from evaluation.protocols import PROTOCOLS
from evaluation.report import main
from evaluation.results import Cost, Result
from pipelines.command.cli import UsageError

ROW = Result(
    run_at="2026-11-24T10:00:00+00:00",
    commit="0123456789ab",
    dataset="Set5@0123456789ab",
    split="",
    protocol="paper",
    degradation="bicubic",
    model="srcnn <1>",
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
BICUBIC = dataclasses.replace(
    ROW, model="bicubic", weights="", psnr_db=33.6614, ssim=0.9299, gain_db=0.0
)


def page_of(tmp_path, rows):
    path = tmp_path / "results.csv"
    results.append(str(path), rows)
    main(["--results", str(path), "--output", str(tmp_path / "report.html")])
    return (tmp_path / "report.html").read_text()


def texts(page, tag):
    """What a reader sees of each element of a kind, in order."""
    found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split()) for text in found]


def fetched(page):
    """The addresses of whatever the page would load from elsewhere."""
    page = re.sub(r'<a href="[^"]*"', "", page)  # which waits for a click
    sources = re.findall(r"""(?:src|href)=["']?([^"' >]+)""", page)
    return [source for source in sources if not source.startswith(("data:", "#"))]


def test_the_table_is_as_papers_print_it_beside_the_published_numbers(tmp_path):
    page = page_of(tmp_path, [BICUBIC, ROW])
    assert texts(page, "tr") == [
        "model x2",
        "bicubic 33.66 / .9299",
        "srcnn <1> 36.34 / .9521 +2.68",
        "bicubic, published 33.66 / .9299",
        "SRCNN 9-5-5, published 36.66 / .9542",
        "VDSR, published 37.53 / .9587",
        "FSRCNN, published 37.00",
    ]
    assert texts(page, "b") == ["36.34", ".9521"]
    assert texts(page, "h2") == ["Set5, protocol paper"]
    assert PROTOCOLS["paper"].sentence in texts(page, "p")[1]
    assert "gain over bicubic (dB), paper" in texts(page, "svg")[0]
    assert fetched(page) == []


COST = Cost(
    run_at=ROW.run_at,
    machine="2 cores of a machine",
    model="srcnn <1>",
    weights=ROW.weights,
    scale=2,
    parameters=8129,
    gmac=7.4,
    ms=95.5,
)
VDSR = dataclasses.replace(COST, model="VDSR", weights="", gmac=612.6, ms=6000)


@pytest.mark.slow
def test_psnr_is_drawn_against_what_it_costs():
    lapsrn = dataclasses.replace(VDSR, model="LapSRN")
    other = dataclasses.replace(COST, weights="0" * 12)
    costs = [COST, VDSR, lapsrn, other, dataclasses.replace(VDSR, scale=3)]
    _, gmac, ms = texts(pages.render([BICUBIC, ROW], [], costs=costs), "svg")
    for chart, what in ((gmac, "GMAC"), (ms, "milliseconds")):
        assert f"{what}, 1280x720" in chart and "PSNR at x2 (dB), paper" in chart
        # Of the methods published by this protocol, and the models that were scored.
        assert "VDSR, published" in chart and "srcnn <1>" in chart and "LapSRN" not in chart
    # Nothing is known of what costs that: one chart, of the gains.
    assert pages.render([BICUBIC, ROW], [], costs=[other]).count("<svg") == 1


def test_self_ensemble_costs_eight_times_as_much():
    mean = dataclasses.replace(ROW, model="srcnn <1>+", psnr_db=36.5)
    key = pages.Section(ROW.dataset, ROW.split, ROW.protocol, "")
    points = pages._points(key, [ROW, mean], [COST], lambda cost: cost.gmac)
    assert [(point.name, point.cost) for point in points] == [
        ("srcnn <1>", 7.4), ("srcnn <1>+", 8 * 7.4),
    ]  # fmt: skip


def test_the_last_run_counts_and_the_others_are_history(tmp_path):
    later = dataclasses.replace(ROW, run_at="2026-11-25T10:00:00+00:00", psnr_db=36.5)
    assert page_of(tmp_path, [ROW]).count("<svg") == 1
    page = page_of(tmp_path, [later])
    assert texts(page, "tr")[1] == "srcnn <1> 36.50 / .9521 +2.68"
    assert page.count("<svg") == 2


def test_a_single_point_is_no_history():
    other = dataclasses.replace(ROW, scale=3, shave_px=3, run_at="2026-11-25T10:00:00+00:00")
    assert pages.render([ROW, other], []).count("<svg") == 1  # the gains
    # A run that scored two models made two rows of one time.
    assert pages.render([BICUBIC, ROW], []).count("<svg") == 1


@pytest.mark.slow
def test_the_history_shows_the_baseline_and_what_changed():
    later = dataclasses.replace(ROW, run_at="2026-11-25T10:00:00+00:00")
    same = pages.render([ROW, later], [])
    assert "other weights" not in same and "other code" not in same and "baseline" not in same
    changed = dataclasses.replace(later, weights="0" * 12, commit="fedcba987654")
    line = pages.Line({key_of(ROW): ROW}, 0.02)
    for text in ("other weights", "other code", "baseline, tolerance"):
        assert texts(pages.render([ROW, changed], [], line), "svg")[1].count(text) == 1
    # That of other pictures is no line to hold on to.
    others = pages.Line({key_of(ROW): dataclasses.replace(ROW, dataset="Set5@fff")}, 0.02)
    assert "tolerance" not in pages.render([ROW, later], [], others)


CELLS = {
    str: st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["$a$", "_x", "$^"]),
    int: st.integers(),
    float: st.floats(),
}


def test_letters_that_the_plots_font_lacks_are_no_matter():
    row = dataclasses.replace(ROW, model="\U0001f431", protocol="\U0007162f")
    assert "\U0001f431" in pages.render([row], [])
    ((_, figure),) = pages.plots([row])
    assert to_png(figure)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=8, phases=[Phase.generate])  # each is drawn
def test_whatever_can_be_read_can_be_shown(tmp_path_factory, data):
    path = str(tmp_path_factory.mktemp("results") / "results.csv")
    rows = [ROW, dataclasses.replace(ROW, run_at="2026-11-25T10:00:00+00:00")]
    fields = st.sampled_from(dataclasses.fields(Result))
    for _ in range(data.draw(st.integers(1, 4))):
        field = data.draw(fields)
        when = st.datetimes(timezones=st.timezones()).map(str)
        value = data.draw(when if field.name == "run_at" else CELLS[field.type])
        rows[1] = dataclasses.replace(rows[1], **{field.name: value})
    results.append(path, rows)
    try:
        read = results.read(path, Result)
    except UsageError:
        return
    assert pages.render(read, [], pages.Line({key_of(row): row for row in read}, 0.02))


@pytest.mark.slow
def test_plots_are_files_on_request(tmp_path):
    later = dataclasses.replace(ROW, run_at="2026-11-25T10:00:00+00:00", psnr_db=36.5)
    page_of(tmp_path, [BICUBIC, ROW, later, dataclasses.replace(ROW, shave_px=0)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.csv"]
    options = ["--results", str(tmp_path / "results.csv"), "--output", str(tmp_path / "r.html")]
    main([*options, "--plots", str(tmp_path / "new" / "plots")])
    plots = sorted((tmp_path / "new" / "plots").iterdir())
    assert [path.name for path in plots] == [
        "Set5@0123456789ab_paper_0px_gain.png",
        "Set5@0123456789ab_paper_gain.png",
        "Set5@0123456789ab_paper_history_x2.png",
    ]
    for path in plots:
        with Image.open(path) as image:
            assert (image.format, image.width) == ("PNG", 1280)
            assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_what_cannot_be_compared_has_its_own_table(tmp_path):
    rows = [
        ROW,
        dataclasses.replace(ROW, shave_px=0),
        dataclasses.replace(ROW, protocol="article", shave_px=0),
        dataclasses.replace(ROW, dataset="own@0123", split="test"),
    ]
    assert texts(page_of(tmp_path, rows), "h2") == [
        "Set5, protocol article",
        "Set5, protocol paper",
        "Set5, protocol paper, shave 0 px",
        "own test, protocol paper",
    ]


def test_pictures_are_inside_the_page(tmp_path, dataset, identity_network):
    path, output = tmp_path / "results.csv", tmp_path / "report.html"
    models = ["--models", str(identity_network("rgb"))]
    source = ["--data", str(dataset), *models, "--scales", "2"]
    evaluate([*source, "--output", str(path)])
    main([*source, "--results", str(path), "--output", str(output), "--pictures", "2"])
    page = output.read_text()
    captions = texts(page, "figcaption")
    assert len(captions) == page.count('<img class="zoom" src') + 2 == 2 * 5
    assert "by protocol article" in page
    assert len(re.findall(r'<a href="#picture[12]">', page)) == 2
    assert re.fullmatch(r"identity_rgb \d\d\.\d\d", captions[3])
    assert len(texts(page, "h3")) == 2
    assert fetched(page) == []


def test_whole_pictures_are_linked_from_where_the_page_is(tmp_path, folder, identity_network):
    path, output = tmp_path / "results.csv", tmp_path / "pages" / "report.html"
    output.parent.mkdir()
    source = ["--images", str(folder), "--models", str(identity_network("y")), "--scales", "2"]
    evaluate([*source, "--output", str(path)])
    main([*source, "--results", str(path), "--output", str(output), "--pictures", "1"])
    (address,) = re.findall(r'<a href="([^#"]+)"', output.read_text())
    assert (output.parent / address).resolve() in [*folder.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--results", "{folder}/none.csv"], r"there are no results .*none\.csv"),
        (["--results", "{folder}/empty.csv"], "has no row"),
        (["--results", "{folder}/other.csv"], "other columns"),
        ([], "--results"),
        (["--results", "{folder}/empty.csv", "--plots", "{folder}/other.csv"], "is a file"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, arguments, reason):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "other.csv").write_text("a,b\n")
    output = tmp_path / "report.html"
    with pytest.raises(UsageError, match=reason):
        main([text.format(folder=tmp_path) for text in arguments] + ["--output", str(output)])
    assert not output.exists()
