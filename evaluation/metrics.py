"""PSNR and SSIM of images of 0..255, by scikit-image, as the super-resolution papers take them."""

from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
ImageArray = npt.NDArray[Any]
"""An image of 0..255: uint8, or Y that is not rounded."""

# The 11x11 window of Wang et al. 2004 (doi:10.1109/TIP.2003.819861), which SSIM needs whole.
SSIM_WINDOW_PX = 11


def shave(image: npt.NDArray[Any], px: int) -> npt.NDArray[Any]:
    """``image`` [H, W] or [H, W, 3] without ``px`` pixels of each side."""
    return image[px : image.shape[0] - px, px : image.shape[1] - px]


def psnr_db(reference: ImageArray, image: ImageArray) -> float:
    """Peak signal-to-noise ratio over all channels, peak 255; infinite for equal images."""
    from skimage.metrics import peak_signal_noise_ratio  # with scipy it takes half a second

    if np.array_equal(reference, image):
        return float("inf")
    return float(peak_signal_noise_ratio(reference, image, data_range=255))


def ssim(reference: ImageArray, image: ImageArray) -> float:
    """Structural similarity, [H, W] or the mean over the channels of [H, W, 3].

    Gaussian window of sigma 1.5 and no sample covariance, as in Wang et al. 2004.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            reference,
            image,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1 if reference.ndim == 3 else None,
        )
    )
