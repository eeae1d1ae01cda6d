"""Plots: as SVG that takes its text colour from the page it goes into, and as PNG."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from evaluation.results import Result

# Readable on black and on white.
COLOURS = ("#7f7f7f", "#3f83c9", "#d9822b", "#3f9f6f", "#b3569b", "#8a6fd1")
# Near black in a PNG; in an SVG it stands for the page's own text colour until that is written.
_TEXT = "#010203"
_POINT: dict[str, Any] = {"marker": "o", "markersize": 4}
_CHANGED: dict[str, Any] = {
    "marker": "D", "markersize": 9, "fillstyle": "none", "linestyle": "",
}  # fmt: skip


def gain_chart(rows: Sequence[Result]) -> Figure:
    """Bars of the gain over bicubic in dB, a group a scale, a colour a model."""
    models = list(dict.fromkeys(row.model for row in rows if row.weights))
    scales = sorted({row.scale for row in rows})
    gains = {(row.model, row.scale): row.gain_db for row in rows}
    figure, axes = _figure(height=2.6)
    width = 0.8 / max(len(models), 1)
    for number, model in enumerate(models):
        offset = (number - (len(models) - 1) / 2) * width
        known = [scale for scale in scales if (model, scale) in gains]
        bars = axes.bar(
            [scales.index(scale) + offset for scale in known],
            [gains[model, scale] for scale in known],
            width * 0.9,
            color=_colour(number + 1),
            label=_label(model),
        )
        axes.bar_label(bars, fmt="%+.2f", color=_TEXT, fontsize=8, padding=2)
    axes.set_xticks(range(len(scales)), [f"x{scale}" for scale in scales])
    axes.set_ylabel("gain over bicubic (dB)")
    axes.axhline(0, color=_TEXT, linewidth=0.8)
    axes.margins(y=0.2)
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
    figure, axes = _figure(height=2.6)
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
    axes.set_ylabel(f"{'change' if known else 'PSNR'} at x{scale} (dB)")
    return _with_legend(figure, axes)


def _time(row: Result) -> datetime:
    return datetime.fromisoformat(row.run_at)


def _label(model: str) -> str:
    """Without what matplotlib takes for mathematics, or for a name that is not shown."""
    return model.replace("$", r"\$").removeprefix("_")


def to_svg(figure: Figure) -> str:
    """An element to put into a page."""
    file = io.StringIO()
    # Text stays text, and ids are no random numbers: the same results are the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(_TEXT, "currentColor")


def to_png(figure: Figure) -> bytes:
    """A file to put into a paper or a mail: on white, 1280 pixels wide."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)
    return file.getvalue()


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_TEXT)
    axes.tick_params(colors=_TEXT, labelsize=9)
    return figure, axes


def _with_legend(figure: Figure, axes: Any) -> Figure:
    axes.yaxis.label.set_color(_TEXT)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=_TEXT, fontsize=9)
    return figure
