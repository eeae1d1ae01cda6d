"""Of JPEG files damaged in known ways, how many of those that look damaged are found out.

    python -m benchmarks.damaged_jpegs --photos DIR [--seed 0]

Each photo is damaged once in each way. A picture looks damaged where the mean of a block of 8x8
moves by more than 8 of 256 levels. What is not damaged must stay sound.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from pipelines.pictures.errors import PictureError
from pipelines.pictures.jpeg import decode_jpeg, read_jpeg
from pipelines.pictures.pixels import Pixels

_HOLE_BYTES = 2048
_EOI = b"\xff\xd9"
_VISIBLE_LEVELS = 8

Damage = Callable[[bytes, int, random.Random], bytes]


def _cut(data: bytes, scan: int, rng: random.Random) -> bytes:
    """To a tenth, two tenths, … of the scan."""
    return data[: scan + (len(data) - scan) * rng.randrange(1, 10) // 10]


def _hole(data: bytes, scan: int, filling: Callable[[int], bytes], rng: random.Random) -> bytes:
    size = min(_HOLE_BYTES, (len(data) - scan) // 4)
    start = rng.randrange(scan, len(data) - 2 - size)
    return data[:start] + filling(size) + data[start + size :]


def _zero_tail(data: bytes, scan: int, rng: random.Random) -> bytes:
    kept = _cut(data, scan, rng)
    return kept + bytes(len(data) - len(kept))


def _swap(data: bytes, scan: int, rng: random.Random) -> bytes:
    """Two parts of the scan in each other's place."""
    size = min(_HOLE_BYTES, (len(data) - 2 - scan) // 4)
    first = rng.randrange(scan, len(data) - 2 - 2 * size)
    second = rng.randrange(first + size, len(data) - 1 - size)
    parts = data[:first], data[second : second + size], data[first + size : second]
    return b"".join((*parts, data[first : first + size], data[second + size :]))


DAMAGES: dict[str, Damage] = {
    "cut": _cut,
    "cut, with an end marker": lambda data, scan, rng: _cut(data, scan, rng) + _EOI,
    "a hole of noise": lambda data, scan, rng: _hole(data, scan, rng.randbytes, rng),
    "a hole of zeros": lambda data, scan, rng: _hole(data, scan, bytes, rng),
    "a part lost": lambda data, scan, rng: _hole(data, scan, lambda _: b"", rng),
    "a tail of zeros": _zero_tail,
    "parts swapped": _swap,
}
HARMLESS: dict[str, Damage] = {
    "as it is": lambda data, scan, rng: data,
    "no end marker": lambda data, scan, rng: data.removesuffix(_EOI),
    "bytes after the end": lambda data, scan, rng: data + rng.randbytes(500),
    "zeros before the end": lambda data, scan, rng: (
        data.removesuffix(_EOI) + bytes(rng.randrange(1, 300)) + _EOI
    ),
    "text before the end": lambda data, scan, rng: data.removesuffix(_EOI) + b"made by me" + _EOI,
}


def looks_damaged(pixels: Pixels, sound: Pixels) -> bool:
    """Whether a block differs from the sound picture so that it is seen."""
    if pixels.shape != sound.shape:
        return True
    height, width = (side // 8 * 8 for side in sound.shape[:2])
    difference = np.abs(pixels[:height, :width].astype(np.int16) - sound[:height, :width])
    blocks = difference.reshape(height // 8, 8, width // 8, 8, -1).mean((1, 3, 4))
    return bool((blocks > _VISIBLE_LEVELS).any())


def is_sound(data: bytes) -> bool:
    """What the crawl says of a file."""
    try:
        decode_jpeg(read_jpeg(data))
    except PictureError:
        return False
    return True


def seen(data: bytes) -> Pixels | None:
    """What a viewer shows of a file; None where it shows nothing."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, strict=False)
    except ValueError:
        return None
    return pixels


def count(photos: list[Path], seed: int) -> tuple[dict[str, Counter[str]], int]:
    """By kind, how many look damaged and how many of them are found; and sound ones lost."""
    rng = random.Random(seed)
    found: dict[str, Counter[str]] = {kind: Counter() for kind in DAMAGES}
    lost = 0
    for photo in photos:
        data = photo.read_bytes()
        data = data[: data.rfind(_EOI) + 2]
        jpeg = read_jpeg(data)
        if jpeg.channels != 3:
            continue
        sound, scan = seen(data), len(data) - len(jpeg.bare.partition(b"\xff\xda")[2])
        assert sound is not None, photo
        lost += sum(not is_sound(change(data, scan, rng)) for change in HARMLESS.values())
        for kind, change in DAMAGES.items():
            damaged = change(data, scan, rng)
            pixels = seen(damaged)
            if pixels is not None and looks_damaged(pixels, sound):
                found[kind]["visible"] += 1
                found[kind]["found"] += not is_sound(damaged)
    return found, lost


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.jpg"))
    found, lost = count(photos, options.seed)
    for kind, counts in found.items():
        share = counts["found"] / max(counts["visible"], 1)
        print(f"{kind:25} {counts['found']:5} of {counts['visible']:5} found  {share:7.1%}")
    total = Counter[str]()
    for counts in found.values():
        total.update(counts)
    print(
        f"{'all':25} {total['found']:5} of {total['visible']:5} found  "
        f"{total['found'] / max(total['visible'], 1):7.1%}"
    )
    print(f"sound ones lost: {lost} of {len(HARMLESS) * len(photos)}")


if __name__ == "__main__":
    main()
