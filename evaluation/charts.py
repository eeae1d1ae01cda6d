"""Plots: as SVG that takes its text colour from the page it goes into, and as PNG."""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from evaluation.results import Result

# Readable on black and on white.
COLOURS = ("#7f7f7f", "#3f83c9", "#d9822b", "#3f9f6f", "#b3569b", "#8a6fd1")
_MARKERS = "osD^v"
# As wide as a phone, so that its text is not shrunk there; on a wide page several are side by side.
_WIDTH_INCHES = 4.0
_BAR_INCHES = 0.24
_TEXT_PT, _SMALL_PT = 10, 9
_PNG_PX = 1280
# Near black in a PNG; in an SVG it stands for the page's own text colour until that is written.
_TEXT = "#010203"
_POINT: dict[str, Any] = {"marker": "o", "markersize": 4}
_CHANGED: dict[str, Any] = {
    "marker": "D", "markersize": 9, "fillstyle": "none", "linestyle": "",
}  # fmt: skip


class Point(NamedTuple):
    """A model or a published method, at one scale."""

    name: str
    cost: float
    psnr_db: float
    is_published: bool


def gain_chart(rows: Sequence[Result]) -> Figure:
    """Bars of the gain over bicubic in dB, a group a scale, a colour a model."""
    models = list(dict.fromkeys(row.model for row in rows if row.weights))
    scales = sorted({row.scale for row in rows})
    gains = {(row.model, row.scale): row.gain_db for row in rows}
    count = max(len(models), 1)
    figure, axes = _figure(height=_BAR_INCHES * len(scales) * (count + 1) + 0.9)
    for number, model in enumerate(models):
        offset = (number - (count - 1) / 2) / (count + 1)
        known = [scale for scale in scales if (model, scale) in gains]
        bars = axes.barh(
            [scales.index(scale) + offset for scale in known],
            [gains[model, scale] for scale in known],
            0.9 / (count + 1),
            color=_colour(number + 1),
            label=_label(model),
        )
        axes.bar_label(bars, fmt="%+.2f", color=_TEXT, fontsize=_SMALL_PT, padding=3)
    axes.set_yticks(range(len(scales)), [f"x{scale}" for scale in scales])
    axes.invert_yaxis()
    axes.set_xlabel(f"gain over bicubic (dB), {_protocols(rows)}")
    axes.axvline(0, color=_TEXT, linewidth=0.8)
    axes.margins(x=0.15)
    return _with_legend(figure, axes)


def cost_chart(points: Sequence[Point], what: str, scale: int, protocol: str) -> Figure:
    """PSNR in dB against a cost on a logarithmic axis; published ones are hollow."""
    figure, axes = _figure(height=3.2)
    names = list(dict.fromkeys(point.name for point in points))
    for point in points:
        axes.plot(
            [point.cost],
            [point.psnr_db],
            color=_colour(names.index(point.name)),
            label=_label(point.name) + (", published" if point.is_published else ""),
            marker=_MARKERS[names.index(point.name) % len(_MARKERS)],
            markersize=8,
            fillstyle="none" if point.is_published else "full",
            linestyle="",
        )
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.grid(color=_TEXT, alpha=0.15, linewidth=0.8)
    axes.set_xlabel(what)
    axes.set_ylabel(f"PSNR at x{scale} (dB), {protocol}")
    return _with_legend(figure, axes)


def history_chart(
    rows: Sequence[Result],
    scale: int,
    baseline_db: Mapping[str, float] | None = None,
    tolerance_db: float = 0.0,
) -> Figure:
    """PSNR in dB over time at one scale, a line a model.

    With ``baseline_db`` by model the change since then, of the models that it has: models are
    decibels apart, a tolerance is hundredths. Other weights under the same name are marked, and
    another commit.
    """
    figure, axes = _figure(height=3)
    known = baseline_db or {}
    models = list(dict.fromkeys(row.model for row in rows))
    rows = sorted((row for row in rows if row.scale == scale), key=_time)
    rows = [row for row in rows if row.model in known or not known]
    labels = {name: name for name in ("other weights", "other code")}
    for number, model in enumerate(models):
        own = [row for row in rows if row.model == model]
        changed = [row for was, row in pairwise(own) if row.weights != was.weights]
        for marked, style in ((own, _POINT), (changed, _CHANGED)):
            if marked:
                axes.plot(
                    [_time(row) for row in marked],
                    [row.psnr_db - known.get(model, 0.0) for row in marked],
                    color=_colour(number),
                    label=_label(model) if marked is own else labels.pop("other weights", None),
                    **style,
                )
    if known:
        axes.axhline(0, color=_TEXT, linestyle="--", linewidth=0.8)
        axes.axhspan(-tolerance_db, 0, color=_TEXT, alpha=0.1, label="baseline, tolerance")
    for was, row in pairwise(rows):
        if row.commit != was.commit:
            label = labels.pop("other code", None)
            axes.axvline(_time(row), color=_TEXT, linestyle=":", linewidth=0.8, label=label)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis.get_offset_text().set_color(_TEXT)
    axes.set_ylabel(f"{'change' if known else 'PSNR'} at x{scale} (dB), {_protocols(rows)}")
    return _with_legend(figure, axes)


def _protocols(rows: Iterable[Result]) -> str:
    """'paper': rows of one chart have one."""
    return _label(", ".join(dict.fromkeys(row.protocol for row in rows)))


def _time(row: Result) -> datetime:
    return datetime.fromisoformat(row.run_at)


def _label(model: str) -> str:
    """Without what matplotlib takes for mathematics, or for a name that is not shown."""
    return model.replace("$", r"\$").removeprefix("_")


def to_svg(figure: Figure) -> str:
    """An element to put into a page."""
    file = io.StringIO()
    # Text stays text, and ids are no random numbers: the same results are the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}), _any_letters():
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(_TEXT, "currentColor")


def to_png(figure: Figure) -> bytes:
    """A file to put into a paper or a mail: on white, 1280 pixels wide."""
    file = io.BytesIO()
    with _any_letters():
        figure.savefig(file, format="png", dpi=_PNG_PX / _WIDTH_INCHES)
    return file.getvalue()


@contextmanager
def _any_letters() -> Iterator[None]:
    """A name may have letters that matplotlib's font lacks. A browser shows them, a PNG a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_TEXT)
    axes.tick_params(colors=_TEXT, labelsize=_TEXT_PT)
    return figure, axes


def _with_legend(figure: Figure, axes: Any) -> Figure:
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_TEXT, fontsize=_TEXT_PT)
    figure.legend(
        loc="outside upper left", ncols=2, frameon=False, labelcolor=_TEXT, fontsize=_TEXT_PT,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
    return figure
