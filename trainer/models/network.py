"""What a network is: pure functions of its weights, so that training, export and tests share them.

Weights are arrays by name: kernels [height, width, in, out] (HWIO), others of any shape.
Pictures are [N, H, W, C] in 0..1: LR, or upscaled to the HR size beforehand. What a network is can
be asked without TensorFlow, which takes seconds to import: functions that compute import it.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Weights = dict[str, npt.NDArray[np.float32]]
Tensor = Any


@dataclass(frozen=True)
class Options:
    """What a recipe can choose about a network; each takes what concerns it."""

    channels: int = 3
    kernels: str = "9-1-5"
    identity_start: bool = False
    scale: int = 2
    """The largest that is trained."""


def he_initial(shapes: Mapping[str, Shape], rng: np.random.Generator) -> Weights:
    """Kernels: normal with variance 2 / fan-in (He et al. 2015, arXiv:1502.01852); others 0."""
    return {
        name: rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape).astype(np.float32)
        if len(shape) == 4
        else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }


def orthogonal_initial(shapes: Mapping[str, Shape], rng: np.random.Generator) -> Weights:
    """Kernels: filters orthogonal to one another, each of norm sqrt(2) (arXiv:1312.6120); others 0.

    Where a layer has more filters than each has numbers, it is the other way round.
    """
    return {
        name: _orthogonal(shape, rng) if len(shape) == 4 else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }


def _orthogonal(shape: Shape, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    fan_in, filters = int(np.prod(shape[:-1])), shape[-1]
    random = rng.normal(size=(max(fan_in, filters), min(fan_in, filters)))
    basis, triangle = np.linalg.qr(random)
    basis *= np.sign(np.diag(triangle))
    matrix = basis if fan_in >= filters else basis.T
    return (np.sqrt(2.0) * matrix.reshape(shape)).astype(np.float32)


Initial = Callable[[Mapping[str, Shape], np.random.Generator], Weights]
INITIAL: dict[str, Initial] = {"he": he_initial, "orthogonal": orthogonal_initial}


class Network(ABC):
    """A network of one shape. Subclasses are frozen dataclasses, one file each."""

    name: ClassVar[str]
    takes: ClassVar[Literal["upscaled", "lr"]] = "upscaled"
    """The picture at its HR size, by bicubic, or the LR picture."""
    stands_bfloat16: ClassVar[bool] = False
    """Whether convolutions in bfloat16 were shown to cost it less than 0.02 dB of PSNR."""
    channels: int
    border_px: int = 0
    """What training_outputs lack of their input on each side."""
    zero_padding: bool = False
    """Of a network whose authors replicate the border: whether these weights want zeros there, as
    most programs but the authors' have it. Shapes do not tell it, a weights file does."""

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """The network a recipe asks for. Raises ValueError for an option it does not have."""
        return cls(channels=options.channels)  # type: ignore[call-arg]

    @classmethod
    def variants(cls) -> Iterator[Self]:
        """One of each set of shapes: a weights file is recognised by them."""
        for channels in (1, 3):
            yield cls(channels=channels)  # type: ignore[call-arg]

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, Shape]:
        """Of the weights by name, in the order of the layers."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Those that its layers can make; none: any."""
        return ()

    @property
    def reach_px(self) -> int:
        """How far an output pixel sees its input on each side, if every layer follows the last."""
        return sum(shape[0] // 2 for shape in self.shapes.values() if len(shape) == 4)

    def with_zero_padding(self) -> Self:
        """Of the same shapes. Raises TypeError where a network has no choice."""
        return dataclasses.replace(self, zero_padding=True)  # type: ignore[type-var]

    def ratio(self, scale: int) -> int:
        """Of the output's sides to the input's."""
        return scale if self.takes == "lr" else 1

    def initial_weights(self, rng: np.random.Generator, initial: Initial = he_initial) -> Weights:
        """Random weights to start from, float32."""
        return initial(self.shapes, rng)

    @abstractmethod
    def __call__(self, weights: Mapping[str, Tensor], images: Tensor, scale: int) -> Tensor:
        """[N, ratio H, ratio W, C], not clipped."""

    def training_outputs(
        self, weights: Mapping[str, Tensor], images: Tensor, scale: int
    ) -> dict[int, Tensor]:
        """What the loss is computed on, by how many times smaller than HR it is.

        Of most networks the output alone, perhaps without border_px of the input.
        """
        return {1: self(weights, images, scale)}


def conv_shapes(sizes: Sequence[int], widths: Sequence[int]) -> dict[str, Shape]:
    """Shapes of w1, b1, w2, ... for square kernels of ``sizes`` between ``widths`` channels."""
    shapes: dict[str, Shape] = {}
    for number, (size, fan, out) in enumerate(zip(sizes, widths, widths[1:], strict=False), 1):
        shapes |= {f"w{number}": (size, size, fan, out), f"b{number}": (out,)}
    return shapes


def pass_on(kernel: npt.NDArray[np.float32], channels: int, gain: float = 1.0) -> None:
    """Makes the first output channels pass the first input channels on, in place."""
    height, width = kernel.shape[:2]
    for channel in range(channels):
        kernel[:, :, :, channel] = 0.0
        kernel[height // 2, width // 2, channel, channel] = gain


def convolutions(weights: Mapping[str, Tensor], images: Tensor, padding: str) -> Tensor:
    """w1, b1, w2, ... one after another, ReLU between them but not after the last.

    They compute in the weights' precision.
    """
    import tensorflow as tf

    images = tf.cast(images, weights["w1"].dtype)
    for number in range(1, len(weights) // 2 + 1):
        if number > 1:
            images = tf.nn.relu(images)
        images = convolution(images, weights[f"w{number}"], weights[f"b{number}"], padding)
    return images


def convolution(
    images: Tensor, kernel: Tensor, bias: Tensor | None = None, padding: str = "SAME"
) -> Tensor:
    """``padding`` is VALID, SAME (zeros) or REPLICATE: the outermost pixels go on."""
    import tensorflow as tf

    if padding == "REPLICATE":
        images = replicate_border(images, kernel.shape[0] // 2)
    images = tf.nn.conv2d(images, kernel, 1, "SAME" if padding == "SAME" else "VALID")
    return images if bias is None else tf.nn.bias_add(images, bias)


def deconvolution(images: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Pixel (y, x) adds kernel[i, j] of itself at (stride y + i, stride x + j); nothing is cut."""
    import tensorflow as tf

    count, height, width = (tf.shape(images)[axis] for axis in range(3))
    rows, columns = (
        (side - 1) * stride + size
        for side, size in zip((height, width), kernel.shape[:2], strict=True)
    )
    shape = tf.stack([count, rows, columns, kernel.shape[3]])
    kernel = tf.transpose(kernel, [0, 1, 3, 2])
    return tf.nn.conv2d_transpose(images, kernel, shape, stride, "VALID")


def pixel_shuffle(images: Tensor, scale: int) -> Tensor:
    """Channel c s s + i s + j becomes channel c at (s y + i, s x + j) (arXiv:1609.05158)."""
    import tensorflow as tf

    channels = images.shape[3] // scale**2
    if channels > 1:  # TensorFlow has the channels in another order
        order = np.arange(images.shape[3]).reshape(channels, -1).T.ravel()
        images = tf.gather(images, order, axis=3)
    return tf.nn.depth_to_space(images, scale)


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
