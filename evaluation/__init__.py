"""Scores super-resolution models: PSNR and SSIM per scale, reruns, report."""
