"""Scores super-resolution models: PSNR and SSIM per scale, reruns, report.

For programs: ``from evaluation import load_model, evaluate, psnr, ssim``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.metrics import psnr_db as psnr
    from evaluation.metrics import ssim
    from evaluation.model import Model, evaluate, load_model

__all__ = ["Model", "evaluate", "load_model", "psnr", "ssim"]

_HOME = {"psnr": ("metrics", "psnr_db"), "ssim": ("metrics", "ssim")}


def __getattr__(name: str) -> Any:
    """Imported when asked for: a command's --help shall not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME.get(name, ("model", name))
    return getattr(import_module(f"{__name__}.{module}"), attribute)
