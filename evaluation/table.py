"""The PSNR table of a terminal."""

from collections.abc import Sequence

from evaluation.results import Result


def format_table(rows: Sequence[Result]) -> str:
    """PSNR, SSIM and gain over bicubic: a line a model, a column a scale; ends in a newline."""
    scales = sorted({row.scale for row in rows})
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.model, row.scale): row for row in rows}
    width = max(len(model) for model in models)
    titles = "".join(f"   x{scale} PSNR   SSIM   gain" for scale in scales)
    lines = [" " * width + titles]
    for model in models:
        columns = (_cell(cells.get((model, scale))) for scale in scales)
        lines.append(f"{model:<{width}}" + "".join(columns))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cell(row: Result | None) -> str:
    if row is None:
        return f"{'-':>10} {'-':>6} {'':>6}"
    gain = f"{row.gain_db:+.2f}" if row.weights else ""
    return f"{row.psnr_db:10.2f} {row.ssim:6.4f} {gain:>6}"
