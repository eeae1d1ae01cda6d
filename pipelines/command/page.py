"""The looks of every HTML page: one file that needs nothing else and opens from disk.

A click on a table's head sorts it, one on a picture of ``.panels`` shows it large.
"""

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --text: #1a1a1a; --ground: #fff; --soft: #666; --line: #d8d8d8; --mark: #d02020; }
@media (prefers-color-scheme: dark) { :root {
  --text: #e8e8e8; --ground: #161616; --soft: #a8a8a8; --line: #444; --mark: #ff6060; } }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); }
p { max-width: 62rem; } a { color: inherit; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem; }
.soft, figcaption { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } tbody th { font-weight: normal; }
thead th { border-bottom: 1px solid var(--line); }
@media (max-width: 34rem) {
  th, td { font-size: .8rem; padding: .3rem .4rem; }
}
figure { margin: 0; min-width: 0; } figure img { width: 100%; display: block; }
figcaption { overflow-wrap: anywhere; } .zoom { image-rendering: pixelated; }
.panels img { cursor: zoom-in; }
.sort { cursor: pointer; } .sort:hover { text-decoration: underline; }
[aria-sort=ascending]::after { content: " ▲"; } [aria-sort=descending]::after { content: " ▼"; }
dialog { padding: 1rem; border: 0; max-width: none; max-height: none; cursor: zoom-out;
  color: var(--text); background: var(--ground); }
dialog::backdrop { background: #000a; }
dialog img { display: block; object-fit: contain; width: min(94vw, 86vh); max-height: 86vh; }
"""

SCRIPT = """
const keyed = (element, act) => {  // by mouse, and by Enter
  element.tabIndex = 0;
  element.onclick = act;
  element.onkeydown = event => event.key === 'Enter' && act();
};
const value = cell => {  // 1,200 and 1.5 MB are numbers, – comes last
  const text = cell.innerText.trim(), number = /^[+-]?[\\d,]+(\\.\\d+)?/.exec(text);
  const power = ['KB', 'MB', 'GB', 'TB'].findIndex(unit => text.includes(' ' + unit)) + 1;
  return number ? parseFloat(number[0].replaceAll(',', '')) * 1000 ** power : text;
};
for (const title of document.querySelectorAll('thead th')) {
  const table = title.closest('table');
  if (!title.innerText || table.querySelectorAll('tbody tr').length < 2) continue;
  title.classList.add('sort');
  title.title = 'sort by ' + title.innerText;
  keyed(title, () => {
    const cell = row => value(row.cells[title.cellIndex]);
    const number = row => typeof cell(row) === 'number', was = title.getAttribute('aria-sort');
    // Numbers begin with the largest, words with a.
    const up = was ? was === 'descending' : !number(table.tBodies[0].rows[0]);
    for (const other of title.parentNode.cells) other.removeAttribute('aria-sort');
    title.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    for (const body of table.tBodies)
      body.append(...[...body.rows].sort((a, b) => number(a) !== number(b)
        ? number(b) - number(a)
        : (up ? 1 : -1) * (number(a) ? cell(a) - cell(b) : cell(a).localeCompare(cell(b)))));
  });
}
const large = document.createElement('dialog');
large.onclick = () => large.close();
document.body.append(large);
for (const image of document.querySelectorAll('.panels img')) {
  image.title = image.alt + ': click to enlarge';
  keyed(image, () => {
    const caption = document.createElement('p');
    caption.textContent = image.alt;
    const copy = image.cloneNode();
    copy.removeAttribute('title');
    large.replaceChildren(copy, caption);
    large.showModal();
  });
}
"""


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """The whole page around its body (HTML, without the heading)."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n{body}<script>{{{SCRIPT}{script}}}</script></body></html>\n"
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
