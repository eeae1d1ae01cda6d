"""What the papers report, for comparison: means over the set, on Y.

``source`` is where a method is from, by its arXiv number. SRCNN 9-5-5, VDSR and bicubic are as
tabled in VDSR's paper, the others as in their own, EDSR-baseline as by its authors' code. Methods
of ``paper-rgb`` are compared by papers that round no Y: docs/evaluation.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.models import NETWORKS, Network, Options

ByScale = Mapping[int, float]


@dataclass(frozen=True)
class Method:
    """A method as published."""

    name: str
    source: str
    protocol: str
    psnr_db: Mapping[str, ByScale]
    """By the name of a set."""
    ssim: ByScale = field(default_factory=dict)
    """Of Set5 alone."""
    network: str = ""
    """In the registry; empty where it is none."""
    channels: int = 1
    kernels: str = Options.kernels

    def network_at(self, scale: int) -> Network:
        """The network that it is at a scale, to know what it costs."""
        options = Options(channels=self.channels, kernels=self.kernels, scale=scale)
        return NETWORKS[self.network].from_options(options)


METHODS = (
    Method(
        "bicubic",
        "1511.04587",
        "paper",
        {
            "set5": {2: 33.66, 3: 30.39, 4: 28.42},
            "set14": {2: 30.24, 3: 27.55, 4: 26.00},
            "bsd100": {2: 29.56, 3: 27.21, 4: 25.96},
            "urban100": {2: 26.88, 3: 24.46, 4: 23.14},
        },
        {2: 0.9299, 3: 0.8682, 4: 0.8104},
    ),
    Method(
        "SRCNN 9-5-5",
        "1501.00092",
        "paper",
        {
            "set5": {2: 36.66, 3: 32.75, 4: 30.48},
            "set14": {2: 32.42, 3: 29.28, 4: 27.49},
            "bsd100": {2: 31.36, 3: 28.41, 4: 26.90},
            "urban100": {2: 29.50, 3: 26.24, 4: 24.52},
        },
        {2: 0.9542, 3: 0.9090, 4: 0.8628},
        network="srcnn",
        kernels="9-5-5",
    ),
    Method(
        "VDSR",
        "1511.04587",
        "paper",
        {
            "set5": {2: 37.53, 3: 33.66, 4: 31.35},
            "set14": {2: 33.03, 3: 29.77, 4: 28.01},
            "bsd100": {2: 31.90, 3: 28.82, 4: 27.29},
            "urban100": {2: 30.76, 3: 27.14, 4: 25.18},
        },
        {2: 0.9587, 3: 0.9213, 4: 0.8838},
        network="vdsr",
    ),
    Method(
        "FSRCNN",
        "1608.00367",
        "paper",
        {
            "set5": {2: 37.00, 3: 33.16, 4: 30.71},
            "set14": {2: 32.63, 3: 29.43, 4: 27.59},
        },
        network="fsrcnn",
    ),
    Method(
        "LapSRN",
        "1704.03915",
        "paper-rgb",
        {
            "set5": {2: 37.52, 4: 31.54, 8: 26.15},
            "set14": {2: 33.08, 4: 28.19, 8: 24.44},
            "bsd100": {2: 31.80, 4: 27.32},
        },
        network="lapsrn",
    ),
    Method(
        "EDSR-baseline",
        "1707.02921",
        "paper-rgb",
        {
            "set5": {2: 37.99, 3: 34.37, 4: 32.09},
            "set14": {2: 33.57, 3: 30.28, 4: 28.58},
            "bsd100": {2: 32.16, 3: 29.09, 4: 27.57},
            "urban100": {2: 31.98, 3: 28.15, 4: 26.04},
        },
        network="edsr-baseline",
        channels=3,
    ),
    Method(
        "PAN",
        "2010.01073",
        "paper-rgb",
        {
            "set5": {2: 38.00, 3: 34.40, 4: 32.13},
            "set14": {2: 33.59, 3: 30.36, 4: 28.61},
            "bsd100": {2: 32.18, 3: 29.11, 4: 27.59},
            "urban100": {2: 32.01, 3: 28.11, 4: 26.11},
        },
        network="pan",
        channels=3,
    ),
)


def published(folder: str, protocol: str) -> Mapping[str, Mapping[int, tuple[float, float | None]]]:
    """PSNR in dB, and SSIM where it is known, by method and scale; nothing for other sets.

    ``folder`` is the name of the set, in any case; B100 is BSD100.
    """
    name = {"b100": "bsd100"}.get(folder.lower(), folder.lower())
    return {
        method.name: {
            scale: (psnr_db, method.ssim.get(scale) if name == "set5" else None)
            for scale, psnr_db in method.psnr_db[name].items()
        }
        for method in METHODS
        if method.protocol == protocol and name in method.psnr_db
    }
