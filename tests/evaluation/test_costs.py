import pytest

from evaluation import costs, results
from evaluation.costs import multiplications
from evaluation.models import main
from evaluation.published import METHODS
from evaluation.results import Cost
from pipelines.command.cli import UsageError
from trainer.cards import find_card
from trainer.models.fsrcnn import Fsrcnn

# As the papers of CARN and PAN table them, in GMAC.
TABLED = [
    ("SRCNN 9-5-5", 2, 52.7),
    ("VDSR", 2, 612.6),
    ("VDSR", 3, 612.6),
    ("EDSR-baseline", 2, 316.3),
    ("EDSR-baseline", 3, 160.2),
    ("EDSR-baseline", 4, 114.0),
    ("PAN", 2, 70.5),
    ("PAN", 3, 39.0),
    ("PAN", 4, 28.2),
]


@pytest.mark.parametrize(("method", "scale", "gmac"), TABLED)
def test_multiplications_are_those_of_the_papers(method, scale, gmac):
    (network,) = [one.network_at(scale) for one in METHODS if one.name == method]
    assert multiplications(network, network.shapes, scale) / 1e9 == pytest.approx(gmac, rel=0.005)


def test_a_deconvolution_multiplies_once_for_each_pixel_of_its_input():
    layers = 25 * 56 + 56 * 12 + 4 * 9 * 12 * 12 + 12 * 56
    around = (362 * 642) / (360 * 640)  # a pixel all round is enlarged and cut off again
    expected = 360 * 640 * (layers + around * 81 * 56)
    assert multiplications(Fsrcnn(), Fsrcnn().shapes, 2) == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def small(monkeypatch):
    """Results of 32x48 pixels."""
    monkeypatch.setattr(costs, "HEIGHT_PX", 32)
    monkeypatch.setattr(costs, "WIDTH_PX", 48)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_measures_what_is_named(identity_network, tmp_path, capsys):
    output = str(tmp_path / "costs.csv")
    main(["--measure", str(identity_network("y")), "fsrcnn", "--output", output])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:-1]] == [
        ["identity_y", "x2"], ["identity_y", "x3"], ["identity_y", "x4"],
        *(["fsrcnn", f"x{scale}"] for scale in find_card("fsrcnn").scales),
    ]  # fmt: skip
    assert lines[1].split()[-2:] == ["paper", "paper-rgb"]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert lines[5].split()[2:3] + lines[5].split()[-2:] == ["12,644", "36.99", "-"]
    rows = results.read(output, Cost)
    assert [f"{row.model} x{row.scale}" for row in rows] == [
        " ".join(line.split()[:2]) for line in lines[2:-1]
    ]
    # Which takes the enlarged picture, so that its cost is the same at all scales.
    assert len({(row.ms, row.gmac) for row in rows[:3]}) == 1
    assert all(row.ms > 0 and row.gmac > 0 and len(row.weights) == 12 for row in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_measures_what_ships_and_what_is_published(tmp_path, capsys):
    main(["--measure"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("LapSRN, published x8")]
    assert line.split()[-2:] == ["-", "26.15"]
    (line,) = [line for line in lines if line.startswith("VDSR, published x3")]
    assert line.split()[-2:] == ["33.66", "-"]
    # One network a scale: the last layer of each has a width of its own.
    widths = [line.split()[2] for line in lines if line.startswith("espcn x")]
    assert widths == ["21,284", "22,729", "24,752"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--output", "costs.csv"], "needs --measure"), (["--measure", "none"], "none is no run")],
)
def test_bad_input_is_refused(arguments, reason):
    with pytest.raises(UsageError, match=reason):
        main(arguments)
