"""What a network is: pure functions of its weights, so that training, export and tests share them.

Weights are a list w1, b1, w2, b2, ...: kernels are [height, width, in, out] (HWIO), biases [out].
Pictures are [N, H, W, C] in 0..1, upscaled to the HR size beforehand. What a network is can be
asked without TensorFlow, which takes seconds to import: functions that compute import it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Weights = list[npt.NDArray[np.float32]]
Tensor = Any


@dataclass(frozen=True)
class Options:
    """What a recipe can choose about a network; each takes what concerns it."""

    channels: int = 3
    kernels: str = "9-1-5"
    identity_start: bool = False


class Network(ABC):
    """A network of one shape. Subclasses are frozen dataclasses, one file each."""

    name: ClassVar[str]
    stands_bfloat16: ClassVar[bool] = False
    """Whether convolutions in bfloat16 were shown to cost it less than 0.02 dB of PSNR."""
    border_px: int
    """What training_output lacks of its input on each side."""

    @classmethod
    @abstractmethod
    def from_options(cls, options: Options) -> Self:
        """The network a recipe asks for. Raises ValueError for an option it does not have."""

    @classmethod
    @abstractmethod
    def from_shapes(cls, shapes: list[Shape]) -> Self | None:
        """The network of these weights, or None where they are another's."""

    @property
    @abstractmethod
    def shapes(self) -> list[Shape]:
        """Of the weights, in order."""

    @property
    def reach_px(self) -> int:
        """How far an output pixel sees its input on each side, if every layer follows the last."""
        return sum(shape[0] // 2 for shape in self.shapes if len(shape) == 4)

    @abstractmethod
    def initial_weights(self, rng: np.random.Generator) -> Weights:
        """Random weights to start from, float32."""

    @abstractmethod
    def training_output(self, weights: Sequence[Tensor], images: Tensor) -> Tensor:
        """[N, H - 2 border_px, W - 2 border_px, C]: what the loss is computed on."""

    @abstractmethod
    def __call__(self, weights: Sequence[Tensor], images: Tensor) -> Tensor:
        """[N, H, W, C], at full size, not clipped."""


def conv_shapes(sizes: Sequence[int], widths: Sequence[int]) -> list[Shape]:
    """Shapes of w1, b1, ... for square kernels of ``sizes`` between ``widths`` channels."""
    layers = zip(sizes, widths, widths[1:], strict=False)
    return [shape for size, fan, out in layers for shape in ((size, size, fan, out), (out,))]


def he_initial(shapes: Sequence[Shape], rng: np.random.Generator) -> Weights:
    """Normal with variance 2 / fan-in, biases 0 (He et al. 2015, arXiv:1502.01852)."""
    return [
        np.zeros(shape, np.float32)
        if len(shape) == 1
        else rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape).astype(np.float32)
        for shape in shapes
    ]


def weights_by_name(weights: Sequence[npt.NDArray[np.float32]]) -> dict[str, Any]:
    """w1, b1, w2, b2, ...: the names in a weights file."""
    return {f"{'wb'[index % 2]}{index // 2 + 1}": weight for index, weight in enumerate(weights)}


def convolutions(weights: Sequence[Tensor], images: Tensor, padding: str) -> Tensor:
    """The layers one after another, ReLU between them but not after the last.

    ``padding`` is VALID, SAME (zeros) or REPLICATE: each layer's input is continued by its
    outermost pixels. They compute in the weights' precision.
    """
    import tensorflow as tf

    images = tf.cast(images, weights[0].dtype)
    for index in range(0, len(weights), 2):
        if index:
            images = tf.nn.relu(images)
        if padding == "REPLICATE":
            images = replicate_border(images, weights[index].shape[0] // 2)
        images = tf.nn.bias_add(
            tf.nn.conv2d(images, weights[index], 1, "SAME" if padding == "SAME" else "VALID"),
            weights[index + 1],
        )
    return images


def replicate_border(images: Tensor, border_px: int) -> Tensor:
    """``images`` [N, H, W, C] with its outermost pixels repeated on each side."""
    import tensorflow as tf

    if not border_px:
        return images
    for axis in (1, 2):
        size = tf.shape(images)[axis]
        indices = tf.clip_by_value(tf.range(-border_px, size + border_px), 0, size - 1)
        images = tf.gather(images, indices, axis=axis)
    return images
