"""A part of a picture before and after, on a page with a slider or as a picture."""

import io
from dataclasses import replace
from html import escape
from pathlib import PurePath

import numpy as np
from PIL import Image

from evaluation.enlarging import enlarged
from evaluation.metrics import UInt8Array
from evaluation.photo import Photo
from evaluation.saving import eight_bits
from evaluation.slider import STYLE, slider
from evaluation.upscalers import Bicubic, Upscaler
from pipelines.command.cli import UsageError
from pipelines.command.page import data_url, document

# Shown pixel for pixel, on a page that has room for it.
PART_PX = 960
_SUFFIXES = (".html", ".png")
_GAP_PX = 4

_STYLE = f"{STYLE}.names {{ max-width: {PART_PX}px; }}\n"


def check_suffix(path: str) -> None:
    """Raises UsageError for what is neither a page nor a PNG picture."""
    if PurePath(path).suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--compare {path}: it is a page or a picture, use .html or .png")


def before_after(path: str, photo: Photo, upscaler: Upscaler, scale: int) -> bytes:
    """The file ``path``: the middle of a picture by bicubic and by ``upscaler``.

    A page on which a slider moves over the two, or one picture with them side by side.
    """
    name = escape(upscaler.name)
    before, after = (_middle(photo, each, scale) for each in (Bicubic(), upscaler))
    if PurePath(path).suffix.lower() == ".png":
        gap = np.full((len(before), _GAP_PX, before.shape[2]), 255, np.uint8)
        return _png(np.concatenate([before, gap, after], axis=1))
    height, width = before.shape[:2]
    images = "".join(
        f'<img src="{data_url(_png(image))}" width="{width}" height="{height}" alt="{title}">'
        for image, title in ((before, "bicubic"), (after, name))
    )
    body = (
        f'<div class="names"><span>bicubic</span><span>{name}</span></div>\n'
        f"{slider(images, 'how much of bicubic is shown')}"
        f'<p class="soft">Move over the picture, or use the arrow keys. {width}x{height} pixels '
        f"of the middle, x{scale}.</p>\n"
    )
    return document("Before and after", body, _STYLE).encode()


def _middle(photo: Photo, upscaler: Upscaler, scale: int) -> UInt8Array:
    """In 8 bits, at most PART_PX square, by itself as it is in the whole picture."""
    most, reach_px = max(PART_PX // scale, 1), upscaler.lr_reach_px(scale)
    around, inner = [], []
    for side in photo.samples.shape[:2]:
        shown = min(side, most)
        start = (side - shown) // 2
        first = max(start - reach_px, 0)
        around.append(slice(first, start + shown + reach_px))
        inner.append(slice((start - first) * scale, (start - first + shown) * scale))
    part = replace(photo, samples=photo.samples[tuple(around)])
    image = np.concatenate([*enlarged(part, upscaler, scale)])
    return eight_bits(image[tuple(inner)], photo.white)


def _png(image: UInt8Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()
