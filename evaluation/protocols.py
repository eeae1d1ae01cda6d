"""The protocols: what a model is given, and which pixels it is scored on.

A protocol turns a picture into a ``Sample`` at a scale. A sample knows its reference (what is
scored against), the baseline, what a network is given, and how the network's output becomes an
image like the reference. All of it is the table in docs/evaluation.md, as code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.colour import FloatArray, replace_y, rgb_to_y
from evaluation.metrics import ImageArray, UInt8Array
from evaluation.pictures import Picture
from pipelines.dataset.options import Degradation
from pipelines.pictures.degradation import degrade
from pipelines.pictures.resampling import (
    matlab_bicubic_matrix,
    pillow_bicubic_matrix,
    resize,
    to_uint8,
)

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample(ABC):
    """A picture at a scale, as a protocol presents it."""

    name: str
    rgb: UInt8Array
    """The HR picture [H, W, 3], for people to look at."""
    reference: ImageArray
    """[H, W] or [H, W, 3]: what a result is scored against."""
    scale: int

    @abstractmethod
    def bicubic(self) -> ImageArray:
        """The baseline, of the reference's shape."""

    @abstractmethod
    def network_input(self, channels: str, takes: str = "upscaled") -> Float32Array:
        """The bicubic-upscaled LR in 0..1: [H, W, 3] for 'rgb', [H, W, 1] for 'y'.

        Or the LR itself, [h, w, C], for a network that ``takes`` 'lr'.
        """

    @abstractmethod
    def result(self, output: Float32Array, channels: str) -> ImageArray:
        """A network's output [H, W, C] as an image of the reference's shape."""

    @abstractmethod
    def in_colour(self, image: ImageArray) -> UInt8Array:
        """A result as RGB [H, W, 3], for people to look at."""

    @property
    @abstractmethod
    def lr(self) -> UInt8Array:
        """The LR picture as RGB [h, w, 3], for people to look at."""


@dataclass(frozen=True)
class Protocol:
    """A way of scoring, by name."""

    name: str
    sentence: str
    """What it scores, for a person to choose by."""
    sample: Callable[[Picture, int], Sample]
    """Of a picture and a scale."""
    shave_px: Callable[[int], int]
    """Of the scale: pixels left out at each side before scoring."""
    degradation: Degradation | None
    """How LR is made; None: as the pictures say."""
    channels: tuple[str, ...] = ("rgb", "y")
    """Of the networks that it can score."""

    def scores(self, channels: str) -> bool:
        """Whether it can a network of these channels; empty for none, as bicubic's."""
        return not channels or channels in self.channels


@dataclass(frozen=True)
class ArticleSample(Sample):
    """RGB, LR in 8 bits as stored, the baseline by Pillow."""

    lr_rgb: UInt8Array

    def bicubic(self) -> UInt8Array:
        """Pillow's own BICUBIC to the HR size, in its integer arithmetic."""
        height, width = self.reference.shape[:2]
        image = Image.fromarray(self.lr_rgb)
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))

    def network_input(self, channels: str, takes: str = "upscaled") -> Float32Array:
        """Pillow's kernel in float32, unrounded but clipped, as in training; LR as stored."""
        rgb = self._upscaled() if takes == "upscaled" else self.lr_rgb.astype(np.float32)
        return (rgb if channels == "rgb" else rgb_to_y(rgb)[..., None]) / 255

    def result(self, output: Float32Array, channels: str) -> UInt8Array:
        """Rounded to 8 bits; of a 'y' network the colour is bicubic."""
        if channels == "rgb":
            return to_uint8(output * 255)
        return to_uint8(replace_y(self._upscaled(), output[..., 0] * 255))

    def in_colour(self, image: ImageArray) -> UInt8Array:
        """The image itself."""
        return image

    @property
    def lr(self) -> UInt8Array:
        """As stored."""
        return self.lr_rgb

    def _upscaled(self) -> Float32Array:
        height, width = self.reference.shape[:2]
        upscaled = resize(self.lr_rgb.astype(np.float32), height, width, pillow_bicubic_matrix)
        return np.clip(upscaled, 0, 255).astype(np.float32, copy=False)


@dataclass(frozen=True)
class PaperSample(Sample):
    """Y alone, rounded first; then LR and upscaled by MATLAB's bicubic, neither rounded.

    There is no RGB for a network to be given, and none in its result.
    """

    lr_y: FloatArray

    def bicubic(self) -> UInt8Array:
        """MATLAB's bicubic, rounded once at the end."""
        return to_uint8(self._upscaled())

    def network_input(self, channels: str, takes: str = "upscaled") -> Float32Array:
        """Upscaled Y / 255 (16/255..235/255), or its LR."""
        y = self._upscaled() if takes == "upscaled" else self.lr_y
        return (y[..., None] / 255).astype(np.float32)

    def result(self, output: Float32Array, channels: str) -> UInt8Array:
        """Y rounded to 8 bits."""
        return to_uint8(output[..., 0] * 255)

    def in_colour(self, image: ImageArray) -> UInt8Array:
        """``image`` as Y, colour by bicubic."""
        return to_uint8(replace_y(_lowpass(self.rgb, self.scale), image.astype(np.float64)))

    @property
    def lr(self) -> UInt8Array:
        """Rounded to 8 bits; the networks get it unrounded."""
        return to_uint8(_small(self.rgb, self.scale))

    def _upscaled(self) -> FloatArray:
        height, width = self.reference.shape[:2]
        return resize(self.lr_y, height, width, matlab_bicubic_matrix)


@dataclass(frozen=True)
class PaperRgbSample(Sample):
    """Of papers since 2017: results are 8-bit RGB pictures, of which the unrounded Y is compared.

    Networks on RGB get LR in 8 bits, rounded after each direction, as MATLAB's imresize gives it
    of an 8-bit picture and authors distribute it; networks on Y that of unrounded LR.
    """

    lr_rgb: UInt8Array

    def bicubic(self) -> ImageArray:
        """MATLAB's bicubic of the 8-bit LR."""
        return _y(_eight_bit(self.lr, *self.rgb.shape[:2]))

    def network_input(self, channels: str, takes: str = "upscaled") -> Float32Array:
        """RGB of the 8-bit LR, or Y of the unrounded one."""
        height, width = self.rgb.shape[:2]
        lr = self.lr.astype(np.float64) if channels == "rgb" else _small(self.rgb, self.scale)
        rgb = lr if takes == "lr" else resize(lr, height, width, matlab_bicubic_matrix)
        return ((rgb if channels == "rgb" else rgb_to_y(rgb)[..., None]) / 255).astype(np.float32)

    def result(self, output: Float32Array, channels: str) -> ImageArray:
        """Y of the rounded picture; of a 'y' network the colour is bicubic."""
        if channels == "rgb":
            return _y(to_uint8(output * 255))
        colour = _lowpass(self.rgb, self.scale)
        return _y(to_uint8(replace_y(colour, output[..., 0].astype(np.float64) * 255)))

    def in_colour(self, image: ImageArray) -> UInt8Array:
        """``image`` as Y, colour by bicubic."""
        return to_uint8(replace_y(_lowpass(self.rgb, self.scale), image))

    @property
    def lr(self) -> UInt8Array:
        """Rounded after each direction, rows first."""
        return self.lr_rgb


def _y(rgb: UInt8Array) -> FloatArray:
    """Unrounded, 16..235."""
    return rgb_to_y(rgb.astype(np.float64))


def _eight_bit(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """MATLAB's imresize of an 8-bit picture."""
    rows = to_uint8(resize(image.astype(np.float64), height, image.shape[1], matlab_bicubic_matrix))
    return to_uint8(resize(rows.astype(np.float64), height, width, matlab_bicubic_matrix))


def _lowpass(image: ImageArray, scale: int) -> FloatArray:
    """``image`` down and up again by MATLAB's bicubic, float64, unrounded."""
    height, width = image.shape[:2]
    return resize(_small(image, scale), height, width, matlab_bicubic_matrix)


def _small(image: ImageArray, scale: int) -> FloatArray:
    """``image`` down by MATLAB's bicubic, float64, unrounded."""
    height, width = (side // scale for side in image.shape[:2])
    return resize(image.astype(np.float64), height, width, matlab_bicubic_matrix)


def article_sample(picture: Picture, scale: int) -> ArticleSample:
    """The whole picture; LR as stored, made by the article's degradation where there is none."""
    rgb = picture.rgb
    lr = picture.lr.get(scale)
    if lr is None:
        lr = degrade(rgb, [scale], Degradation.ARTICLE)[scale]
    return ArticleSample(name=picture.name, rgb=rgb, reference=rgb, scale=scale, lr_rgb=lr)


def paper_sample(picture: Picture, scale: int) -> PaperSample:
    """Cropped to a multiple of the scale. A grey picture is its own Y, as it is in the papers."""
    height, width = (side // scale * scale for side in picture.hr.shape[:2])
    hr, rgb = picture.hr[:height, :width], picture.rgb[:height, :width]
    y = hr if hr.ndim == 2 else to_uint8(rgb_to_y(hr.astype(np.float64)))
    return PaperSample(picture.name, rgb, y, scale, lr_y=_small(y, scale))


def paper_rgb_sample(picture: Picture, scale: int) -> PaperRgbSample:
    """Cropped to a multiple of the scale. A grey picture is one of three equal channels."""
    height, width = (side // scale * scale for side in picture.hr.shape[:2])
    rgb = picture.rgb[:height, :width]
    lr = _eight_bit(rgb, height // scale, width // scale)
    return PaperRgbSample(picture.name, rgb, _y(rgb), scale, lr_rgb=lr)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "article",
            "All of RGB, every pixel, LR as the dataset stores it; no paper has it.",
            article_sample,
            lambda scale: 0,
            None,
        ),
        Protocol(
            "paper",
            "Y alone in 8 bits, made of unrounded Y, as papers on SRCNN and VDSR report it.",
            paper_sample,
            lambda scale: scale,
            Degradation.BICUBIC,
            channels=("y",),
        ),
        Protocol(
            "paper-rgb",
            "The unrounded Y of an RGB result, as papers since 2017 report it; for networks of "
            "RGB and of Y.",
            paper_rgb_sample,
            lambda scale: scale,
            Degradation.BICUBIC,
        ),
    )
}
