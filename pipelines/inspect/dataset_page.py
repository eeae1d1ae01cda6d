"""The page of python -m pipelines.show: a contact sheet, and what became of the list."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from pipelines.command import page
from pipelines.dataset.examples import Example
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import SPLITS
from pipelines.dataset.outcome import Outcome, most_frequent, sentence_of
from pipelines.inspect.summary import Summary

_FOLDERS = ("examples", "outcomes", "fetched", "plan")
_UNITS = ("KB", "MB", "GB", "TB")
_TOP = 20
_PERCENTILES = (5, 50, 95)
_STYLE = """
.sheet { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); }
.panels { display: grid; gap: .25rem; grid-template-columns: repeat(var(--panels), 1fr); }
.panels span { display: block; color: var(--soft); font-size: .75rem; text-align: center; }
@media (max-width: 30rem) { .sheet { grid-template-columns: 1fr; }
  .panels { grid-template-columns: 1fr 1fr; } }
td.text { text-align: left; white-space: normal; min-width: min(16rem, 34vw); }
"""


def render(
    folder: DatasetFolder,
    manifest: Manifest,
    summary: Summary,
    examples: Sequence[tuple[str, Example]],
) -> str:
    """The page."""
    options = manifest.options
    total = sum(shard.examples for shard in manifest.shards.values())
    scales = ", ".join(f"x{scale}" for scale in options.scales)
    body = [
        f'<p class="soft">{total:,} examples of {manifest.source["lines"]:,} lines; HR of '
        f"{options.crop_size} px, LR {scales} by degradation {options.degradation}.</p>\n",
        _splits(manifest),
        "<h2>What became of the list</h2>\n",
        _outcomes(manifest.outcomes),
        "<h2>Examples</h2>\n",
        f'<p class="soft">{len(examples)} of them, evenly chosen: HR, and LR enlarged to the same '
        "size, pixel by pixel. A click enlarges one.</p>\n",
        _sheet(examples, 1 + len(options.scales)),
        "<h2>Pictures</h2>\n",
        _sizes(summary),
        _top("host family", "Hosts", summary.families),
        _top("class", "Classes", summary.wnids),
        "<h2>Files</h2>\n",
        _files(folder),
    ]
    return page.document(folder.root.rpartition("/")[2], "".join(body), _STYLE)


def _sheet(examples: Sequence[tuple[str, Example]], panels: int) -> str:
    cards = "".join(_card(shard, example) for shard, example in examples)
    return f'<div class="sheet" style="--panels:{panels}">{cards}</div>\n'


def _card(shard: str, example: Example) -> str:
    pictures = {"HR": example.hr} | {f"LR x{scale}": png for scale, png in example.lr.items()}
    images = "".join(
        f'<div><img class="zoom" src="{page.data_url(png)}" '
        f'alt="{name} of {escape(example.image_id)}"><span>{name}</span></div>'
        for name, png in pictures.items()
    )
    crop = example.crop
    return (
        f'<figure><div class="panels">{images}</div><figcaption>'
        f"<b>{escape(example.image_id)}</b> {shard.partition('-')[0]}, crop at {crop.x}, {crop.y}"
        f"<br>{_linked(example.url)}</figcaption></figure>"
    )


def _linked(url: str) -> str:
    """A link where it is one that a browser follows."""
    text = escape(url)
    if not url.startswith(("http://", "https://")):
        return text
    return f'<a href="{text}" rel="noreferrer">{text}</a>'


def _splits(manifest: Manifest) -> str:
    rows = []
    for split in SPLITS:
        shards = manifest.split(split).values()
        size = sum(shard.num_bytes for shard in shards)
        examples = manifest.num_examples(split)
        each = _bytes(size // examples) if examples else "–"
        rows.append((split, f"{len(shards):,}", f"{examples:,}", _bytes(size), each))
    return page.table(("split", "shards", "examples", "size", "an example"), rows)


def _files(folder: DatasetFolder) -> str:
    found = {name: folder.sizes(name).values() for name in _FOLDERS}
    rows = [
        (f"{name}/", f"{len(sizes):,}", _bytes(sum(sizes)))
        for name, sizes in found.items()
        if sizes
    ]
    return page.table(("folder", "files", "size"), rows)


def _sizes(summary: Summary) -> str:
    sizes = summary.sizes()
    found = np.percentile(sizes, _PERCENTILES, axis=0, method="nearest").T.tolist()
    least, most = sizes.min(axis=0).tolist(), sizes.max(axis=0).tolist()
    show = (_px, _px, _bytes)
    rows = [
        (name, *(text(int(value)) for value in (low, *middle, high)))
        for name, text, low, middle, high in zip(
            ("width", "height", "file"), show, least, found, most, strict=True
        )
    ]
    head = ("of those in the dataset", "least", *(f"{p} %" for p in _PERCENTILES), "most")
    return page.table(head, rows)


def _px(count: int) -> str:
    return f"{count:,} px"


def _outcomes(totals: Mapping[str, int]) -> str:
    every = sum(totals.values())
    rows = "".join(
        f"<tr><th>{word}</th><td>{count:,}</td><td>{100 * count / every:.1f} %</td>"
        f'<td class="text">{escape(sentence_of(word))}</td></tr>'
        for word, count in most_frequent(totals)
    )
    return (
        '<div class="scroll"><table><thead><tr><th>outcome</th><th>lines</th><th>share</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _top(what: str, title: str, groups: Mapping[str, Counter[str]]) -> str:
    """The groups with the most lines, each with how many of them are in the dataset."""
    if not groups:
        return ""
    ordered = sorted(groups, key=lambda name: (-groups[name].total(), name))
    rows = []
    for name in ordered[:_TOP]:
        outcomes = groups[name]
        good, every = outcomes[Outcome.OK], outcomes.total()
        others = Counter({word: n for word, n in outcomes.items() if word != Outcome.OK})
        cause = ", ".join(f"{word} {count:,}" for word, count in others.most_common(2))
        rows.append((name, f"{every:,}", f"{good:,}", f"{100 * good / every:.1f} %", cause))
    return (
        f'<h3>{title}</h3>\n<p class="soft">{len(ordered):,}; those with the most lines.</p>\n'
        + page.table((what, "lines", "in the dataset", "share", "mostly lost to"), rows)
    )


def _bytes(count: int) -> str:
    """'110.3 KB': 1 KB is 1,000 bytes."""
    if count < 1000:
        return f"{count} bytes"
    power = min(int(np.log10(count) / 3), len(_UNITS))
    return f"{count / 1000**power:,.1f} {_UNITS[power - 1]}"
