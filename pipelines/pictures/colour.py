"""Whatever a file's samples mean -> RGB as a viewer shows it on white (sRGB, 8 bits)."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from pipelines.dataset.outcome import Outcome
from pipelines.pictures.errors import PictureError
from pipelines.pictures.metadata import MAX_PROFILE_BYTES

_PROFILES_KEPT = 64
# A profile that moves no colour by more than so many levels is sRGB, whatever its name.
_SAME_LEVELS = 2
_SRGB_GAMMA = 1 / 2.2
# A gamma so near sRGB's shows no difference: encoders write 0.45455.
_SAME_GAMMA = 0.05
# Of floating-point samples: programs that sharpen leave such.
_OVERSHOOT = 0.05
# A picture that reaches no more of its range is one of fewer bits, or a mask.
_DARKEST_WHITE = 1 / 8
TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_PROBE = Image.fromarray(
    np.array(np.meshgrid(*[range(0, 256, 51)] * 3), np.uint8).reshape(3, -1).T[None].copy()
)


def to_rgb(image: Image.Image) -> Image.Image:
    """The RGB picture that a viewer would show on white, as its profile or gamma tells.

    ``image.info`` has them. Raises PictureError where no two viewers would show the same.
    """
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    image = eight_bits(image)
    if image.mode == "CMYK":
        return _applied(image, profile) or image.convert("RGB")
    is_transparent = image.mode in TRANSPARENT_MODES or "transparency" in image.info
    is_grey = image.mode in ("1", "L", "LA", "La")
    rgb = image.convert("RGBA" if is_transparent else "RGB")
    alpha = rgb.getchannel("A") if is_transparent else None
    if profile and not is_grey:
        rgb = _applied(rgb.convert("RGB"), profile) or rgb
    elif table := gamma_table(gamma):
        rgb = rgb.convert("RGB").point(table * 3)
    if alpha is None:
        return rgb
    rgb.putalpha(alpha)
    white = Image.new("RGBA", rgb.size, "white")
    return Image.alpha_composite(white, rgb).convert("RGB")


def changes_colours(profile: bytes | None) -> bool:
    """Whether an RGB picture with this profile looks otherwise than one without."""
    return _transform_of(profile, "RGB") is not None


def _applied(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """A picture by its colour profile; None where that changes nothing, or cannot be read."""
    transform = _transform_of(profile, image.mode)
    return ImageCms.applyTransform(image, transform) if transform else None


@lru_cache(_PROFILES_KEPT)
def _transform_of(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        seen = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(seen, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            probe = ImageCms.applyTransform(_PROBE, transform)
            moved = np.asarray(probe, np.int16) - np.asarray(_PROBE, np.int16)
            if np.abs(moved).max() <= _SAME_LEVELS:
                return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return transform


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits, as the range that its samples fill is meant.

    White is 65535 for 16 bits. Samples of 32 bits are taken for those of 8 or 16 where they are
    such, floating-point ones for 0..1 as well, of which a little more is cut off. Raises
    PictureError where white cannot be told, or where the picture would be all but black.
    """
    if not (image.mode == "F" or image.mode.startswith("I")):
        return image
    samples = np.asarray(image)
    least, most = float(samples.min()), float(samples.max())
    whites, beyond = [65535.0], 0.0
    if not image.mode.startswith("I;16"):
        whites.insert(0, 255.0)
    if image.mode == "F":
        whites.insert(0, 1.0)
        beyond = _OVERSHOOT
    white = next((w for w in whites if -beyond * w <= least and most <= w * (1 + beyond)), None)
    if white is None or ((least or most) and most < white * _DARKEST_WHITE):
        detail = f"samples from {least:g} to {most:g}: no telling what is white"
        raise PictureError(Outcome.UNSUPPORTED_FORMAT, detail, image.size)
    grey = np.empty(samples.shape, np.uint8)
    for row, wide in zip(grey, samples, strict=True):  # one at a time, for the memory's sake
        row[:] = np.clip(wide * (255 / white) + 0.5, 0, 255)
    return Image.fromarray(grey)


def gamma_table(gamma: float | None, white: int = 255) -> list[int] | None:
    """Samples 0..white by that exponent as samples of sRGB's; None where none looks otherwise."""
    if not gamma or abs(gamma / _SRGB_GAMMA - 1) <= _SAME_GAMMA:
        return None
    exponent = _SRGB_GAMMA / gamma
    return [round(white * (level / white) ** exponent) for level in range(white + 1)]
