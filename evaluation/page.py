"""Results and comparisons as one HTML page that needs nothing else."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from evaluation import slider
from evaluation.baseline import Baseline, key_of
from evaluation.charts import Point, cost_chart, gain_chart, history_chart, to_svg
from evaluation.comparison import Comparison, Panel
from evaluation.protocols import PROTOCOLS
from evaluation.published import published
from evaluation.results import Cost, Result
from evaluation.upscalers import SELF_ENSEMBLE
from pipelines.command.page import data_url, document

OVERVIEW_PX = 240
_AXES: tuple[tuple[str, str, Callable[[Cost], float]], ...] = (
    ("gmac", "GMAC", lambda cost: cost.gmac),
    ("ms", "milliseconds", lambda cost: cost.ms),
)

_STYLE = (
    """
tbody + tbody { border-top: 1px solid var(--line); color: var(--soft); }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
svg { max-width: 100%; height: auto; } svg text { font-family: inherit; }
.panels { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.compare { grid-column: span 2; grid-row: span 2; }
.compare .pair, .compare .pair img { width: 100%; cursor: ew-resize; }
.names { margin-bottom: .25rem; } select { font: inherit; max-width: 48%; }
@media (max-width: 34rem) {
  th, td { white-space: normal; overflow-wrap: anywhere; }
}
.whole { position: relative; }
.whole i { position: absolute; box-sizing: border-box; border: 2px solid var(--mark);
  pointer-events: none; }
"""
    + slider.STYLE
)

_SCRIPT = """
for (const compare of document.querySelectorAll('.compare')) {
  const shown = compare.querySelectorAll('.pair img');
  const panels = compare.parentNode.querySelectorAll('figure .zoom');
  compare.querySelectorAll('select').forEach((select, side) => {
    for (const panel of panels) select.add(new Option(panel.alt));
    select.selectedIndex = side + 1;  // bicubic, the first network
    select.onchange = () => { shown[side].src = panels[select.selectedIndex].src; };
    select.onchange();
  });
}
"""


class Section(NamedTuple):
    """What the rows of one table have in common."""

    dataset: str
    split: str
    protocol: str
    shave: str
    """'6 px', or empty where it is the protocol's own."""


@dataclass(frozen=True)
class Line:
    """The baseline, drawn into the history."""

    rows: Baseline = field(default_factory=dict)
    tolerance_db: float = 0.0

    def at(self, rows: Sequence[Result]) -> dict[str, float]:
        """PSNR in dB by model, of the same pictures as in ``rows``."""
        found = ((row, self.rows.get(key_of(row))) for row in rows)
        return {
            row.model: known.psnr_db
            for row, known in found
            if known is not None and known.dataset == row.dataset
        }


def render(
    rows: Sequence[Result],
    comparisons: Sequence[Comparison],
    baseline: Line = Line(),
    costs: Sequence[Cost] = (),
) -> str:
    """The page. Of rows that repeat, the last counts; all of them make the history."""
    newest = max(rows, key=lambda row: row.run_at)
    sections = (_section(key, group, baseline, costs) for key, group in _grouped(rows))
    body = (
        f'<p class="soft">Last run {escape(newest.run_at)}, code {escape(newest.commit)}. '
        "PSNR in dB / SSIM; below them the gain over bicubic. Best in bold.</p>\n"
        f"{''.join(sections)}{_pictures(comparisons)}"
    )
    return document("Super-resolution results", body, _STYLE, _SCRIPT)


def plots(rows: Sequence[Result], costs: Sequence[Cost] = ()) -> Iterator[tuple[str, Figure]]:
    """The plots of the page, each with the stem of a file name."""
    for section, history in _grouped(rows):
        parts = [part.replace("/", "_").replace(" ", "") for part in section if part]
        for name, figure in _charts(section, history, Line(), costs):
            yield "_".join([*parts, name]), figure


def _grouped(rows: Sequence[Result]) -> Iterator[tuple[Section, list[Result]]]:
    for section, group in groupby(sorted(rows, key=_section_of), key=_section_of):
        yield section, list(group)


def _section_of(row: Result) -> Section:
    protocol = PROTOCOLS.get(row.protocol)
    usual = protocol is not None and protocol.shave_px(row.scale) == row.shave_px
    return Section(row.dataset, row.split, row.protocol, "" if usual else f"{row.shave_px} px")


def _section(
    section: Section, history: Sequence[Result], baseline: Line, costs: Sequence[Cost]
) -> str:
    folder, _, digest = section.dataset.partition("@")
    latest = _latest(history)
    scales = sorted({row.scale for row in latest})
    title = " ".join(part for part in (folder, section.split) if part)
    shave = f", shave {section.shave}" if section.shave else ""
    degradations = sorted({row.degradation for row in latest if row.degradation})
    lr = f", LR by {escape(', '.join(degradations))}" if degradations else ""
    charts = "".join(to_svg(figure) for _, figure in _charts(section, history, baseline, costs))
    protocol = PROTOCOLS.get(section.protocol)
    sentence = f"{escape(protocol.sentence)} " if protocol else ""
    return (
        f"<h2>{escape(title)}, protocol {escape(section.protocol)}{shave}</h2>\n"
        f'<p class="soft">{sentence}{latest[0].images} pictures, {escape(digest)}{lr}.</p>\n'
        f'{_table(section, latest, scales)}<div class="charts">{charts}</div>\n'
    )


def _latest(history: Sequence[Result]) -> list[Result]:
    return list({(row.model, row.scale): row for row in history}.values())


def _charts(
    section: Section, history: Sequence[Result], baseline: Line, costs: Sequence[Cost]
) -> Iterator[tuple[str, Figure]]:
    latest = _latest(history)
    if any(row.weights for row in latest):
        yield "gain", gain_chart(latest)
    for scale in sorted({row.scale for row in latest}):
        rows = [row for row in latest if row.scale == scale]
        for name, what, axis in _AXES:
            points = [*_points(section, rows, [c for c in costs if c.scale == scale], axis)]
            if points:
                chart = cost_chart(points, f"{what}, 1280x720", scale, section.protocol)
                yield f"{name}_x{scale}", chart
    for scale in sorted({row.scale for row in latest}):
        rows = [row for row in history if row.scale == scale]
        if len({row.run_at for row in rows}) > 1:
            lines = baseline.at(rows)
            yield f"history_x{scale}", history_chart(rows, scale, lines, baseline.tolerance_db)


def _points(
    section: Section, rows: Sequence[Result], costs: Sequence[Cost], axis: Callable[[Cost], float]
) -> Iterator[Point]:
    """Of the rows whose cost is known, and of what is published for the same pictures."""
    known = {cost.weights or cost.model: axis(cost) for cost in costs}
    for row in rows:
        if row.weights in known:
            times = SELF_ENSEMBLE if row.model.endswith("+") else 1
            yield Point(row.model, known[row.weights] * times, row.psnr_db, is_published=False)
    folder = section.dataset.partition("@")[0]
    for method, values in published(folder, section.protocol).items():
        if method in known and costs[0].scale in values:
            psnr_db, _ = values[costs[0].scale]
            yield Point(method, known[method], psnr_db, is_published=True)


def _table(section: Section, rows: Sequence[Result], scales: Sequence[int]) -> str:
    cells = {(row.model, row.scale): row for row in rows}
    best = {
        scale: (
            max(row.psnr_db for row in rows if row.scale == scale),
            max(row.ssim for row in rows if row.scale == scale),
        )
        for scale in scales
    }
    ours = [
        (model, [_cell(cells.get((model, scale)), best[scale]) for scale in scales])
        for model in dict.fromkeys(row.model for row in rows)
    ]
    folder = section.dataset.partition("@")[0]
    theirs = [
        (f"{method}, published", [_published_cell(values.get(scale)) for scale in scales])
        for method, values in published(folder, section.protocol).items()
        if values.keys() & set(scales)
    ]
    head = "".join(f"<th>x{scale}</th>" for scale in scales)
    return (
        f'<div class="scroll"><table><thead><tr><th>model</th>{head}</tr></thead>'
        f"{_body(ours)}{_body(theirs)}</table></div>\n"
    )


def _body(lines: Iterable[tuple[str, Sequence[str]]]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in lines
    )
    return f"<tbody>{rows}</tbody>" if rows else ""


def _cell(row: Result | None, best: tuple[float, float]) -> str:
    if row is None:
        return "–"
    psnr = _bold(f"{row.psnr_db:.2f}", row.psnr_db == best[0])
    ssim = _bold(_ssim(row.ssim), row.ssim == best[1])
    gain = f'<br><span class="soft">{row.gain_db:+.2f}</span>' if row.weights else ""
    return f"{psnr} / {ssim}{gain}"


def _published_cell(values: tuple[float, float | None] | None) -> str:
    if values is None:
        return "–"
    psnr, ssim = values
    return f"{psnr:.2f}" if ssim is None else f"{psnr:.2f} / {_ssim(ssim)}"


def _ssim(value: float) -> str:
    """'.9299', as papers print it."""
    return f"{value:.4f}".removeprefix("0")


def _bold(text: str, bold: bool) -> str:
    return f"<b>{text}</b>" if bold else text


def _pictures(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    protocol = escape(comparisons[0].protocol)
    links = ", ".join(
        f'<a href="#picture{number}">{escape(comparison.picture)} x{comparison.scale}</a> '
        f"{comparison.gain_db:+.2f}"
        for number, comparison in enumerate(comparisons, 1)
    )
    shown = (_comparison(*numbered) for numbered in enumerate(comparisons, 1))
    return (
        '<h2>Pictures</h2>\n<p class="soft">Those with the largest gain, then those with the '
        f"smallest. PSNR in dB by protocol {protocol}, of the whole picture.</p>\n"
        f'<p class="soft">{links}</p>\n{"".join(shown)}'
    )


def _comparison(number: int, comparison: Comparison) -> str:
    title = f"{comparison.picture}, x{comparison.scale}, {comparison.gain_db:+.2f} dB"
    panels = "".join(map(_panel, comparison.panels))
    choices = "".join(f'<select aria-label="{side}"></select>' for side in ("left", "right"))
    pair = slider.slider('<img class="zoom" alt="left"><img class="zoom" alt="right">', "slider")
    return (
        f'<h3 id="picture{number}">{escape(title)}</h3>\n'
        f'<div class="panels">{_overview(comparison)}'
        f'<div class="compare"><div class="names">{choices}</div>{pair}</div>{panels}</div>\n'
    )


def _overview(comparison: Comparison) -> str:
    image = Image.fromarray(comparison.overview)
    left, top, right, bottom = comparison.box
    box = {
        "left": left / image.width,
        "top": top / image.height,
        "width": (right - left) / image.width,
        "height": (bottom - top) / image.height,
    }
    style = ";".join(f"{name}:{share:.2%}" for name, share in box.items())
    image.thumbnail((OVERVIEW_PX, OVERVIEW_PX))
    return (
        f'<figure><div class="whole"><img src="{_png_url(image)}" '
        f'alt="{escape(comparison.picture)}"><i style="{style}"></i></div>'
        f"<figcaption>{_linked('whole picture', comparison.source)}</figcaption></figure>"
    )


def _linked(text: str, address: str) -> str:
    return f'<a href="{escape(address)}" rel="noreferrer">{text}</a>' if address else text


def _panel(panel: Panel) -> str:
    caption = panel.title if panel.psnr_db is None else f"{panel.title} {panel.psnr_db:.2f}"
    image = Image.fromarray(panel.image)
    return (
        f'<figure><img class="zoom" src="{_png_url(image)}" alt="{escape(panel.title)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _png_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return data_url(file.getvalue())
