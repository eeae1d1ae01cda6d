"""The looks of every HTML page: one file that needs nothing else and opens from disk."""

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --text: #1a1a1a; --ground: #fff; --soft: #666; --line: #d8d8d8; --mark: #d02020; }
@media (prefers-color-scheme: dark) { :root {
  --text: #e8e8e8; --ground: #161616; --soft: #a8a8a8; --line: #444; --mark: #ff6060; } }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem; }
.soft, figcaption { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } tbody th { font-weight: normal; }
thead th { border-bottom: 1px solid var(--line); }
figure { margin: 0; min-width: 0; } figure img { width: 100%; display: block; }
figcaption { overflow-wrap: anywhere; } .zoom { image-rendering: pixelated; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """The whole page around its body (HTML, without the heading)."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n{body}</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts that scrolls by itself where it is wide; the first column names a row."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>\n"
    )


def data_url(png: bytes) -> str:
    """A PNG file as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
