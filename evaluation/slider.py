"""Two pictures one over the other, and a slider that shows more of one or of the other."""

STYLE = """
.pair { position: relative; --at: 50%; width: fit-content; max-width: 100%; }
.pair img { display: block; width: auto; max-width: 100%; }
.pair img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.pair i { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; }
.pair:focus-within { outline: 2px solid var(--mark); outline-offset: 2px; }
.names { display: flex; justify-content: space-between; }
"""


def slider(images: str, label: str) -> str:
    """Around two ``img`` elements of one size: the left one is shown up to the slider."""
    return (
        f'<div class="pair">{images}<i></i><input type="range" min="0" max="100" step="0.1" '
        f'value="50" aria-label="{label}" '
        "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\"></div>\n"
    )
