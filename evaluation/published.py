"""What the papers report, for comparison: PSNR in dB on Y, means over the set.

SRCNN is the 9-5-5 network of Dong et al. 2015 (arXiv:1501.00092), VDSR that of Kim et al. 2016
(arXiv:1511.04587); both and bicubic as tabled in the latter.
"""

from collections.abc import Mapping

# By set and method: x2, x3, x4.
PSNR_DB: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "set5": {
        "bicubic": (33.66, 30.39, 28.42),
        "SRCNN 9-5-5": (36.66, 32.75, 30.48),
        "VDSR": (37.53, 33.66, 31.35),
    },
    "set14": {
        "bicubic": (30.24, 27.55, 26.00),
        "SRCNN 9-5-5": (32.42, 29.28, 27.49),
        "VDSR": (33.03, 29.77, 28.01),
    },
    "bsd100": {
        "bicubic": (29.56, 27.21, 25.96),
        "SRCNN 9-5-5": (31.36, 28.41, 26.90),
        "VDSR": (31.90, 28.82, 27.29),
    },
    "urban100": {
        "bicubic": (26.88, 24.46, 23.14),
        "SRCNN 9-5-5": (29.50, 26.24, 24.52),
        "VDSR": (30.76, 27.14, 25.18),
    },
}
# Set5 alone, as the same table has it.
SSIM: Mapping[str, tuple[float, float, float]] = {
    "bicubic": (0.9299, 0.8682, 0.8104),
    "SRCNN 9-5-5": (0.9542, 0.9090, 0.8628),
    "VDSR": (0.9587, 0.9213, 0.8838),
}
SCALES = (2, 3, 4)


def published(folder: str, protocol: str) -> Mapping[str, Mapping[int, tuple[float, float | None]]]:
    """PSNR in dB, and SSIM where it is known, by method and scale; nothing for other sets.

    ``folder`` is the name of the set, in any case; B100 is BSD100.
    """
    name = {"b100": "bsd100"}.get(folder.lower(), folder.lower())
    if protocol != "paper" or name not in PSNR_DB:
        return {}
    return {
        method: {
            scale: (psnr, SSIM[method][index] if name == "set5" else None)
            for index, (scale, psnr) in enumerate(zip(SCALES, psnrs, strict=True))
        }
        for method, psnrs in PSNR_DB[name].items()
    }
