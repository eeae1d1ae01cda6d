"""A dataset folder -> batches, a pure function of (seed, step).

The order of crops: in each epoch the shards are permuted by the seed and dealt into windows of
some thousand crops, each of which is shuffled as a whole before anything is decoded. The manifest
knows how many crops a shard has, so that a resumed run computes its window, reads it, and skips
inside it. Shards are read from start to end, which suits object stores, the next window's while
one is in use. Every other random choice is a stateless random number keyed by the seed and the
crop's or batch's number.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.dataset.manifest import Manifest
from pipelines.pictures.degradation import lr_size
from pipelines.pictures.resampling import matlab_bicubic_matrix, pillow_bicubic_matrix
from trainer.colour import rgb_to_y
from trainer.config import Config

# About half a gigabyte of records of 130 KB; two windows are in memory.
WINDOW_CROPS = 4096
Tensor = Any
Dataset = Any
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """The record files of one split and how many crops each holds."""

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    crop_size: int

    @classmethod
    def of(cls, manifest: Manifest, directory: str, name: str) -> "Split":
        """Raises UsageError where the split is empty."""
        paths = manifest.shard_paths(directory, name)
        counts = [shard.examples for shard in manifest.split(name).values()]
        return cls(tuple(paths), tuple(counts), manifest.options.crop_size)


@dataclass(frozen=True)
class Window:
    """Some shards that are shuffled together."""

    paths: list[str]
    order: npt.NDArray[np.int64]
    """The crops of the window that are wanted, numbered as they lie in its shards."""


def windows(split: Split, seed: int, first: int, count: int | None = None) -> Iterator[Window]:
    """The order of windows from crop number ``first`` on: ``count`` crops, or without end."""
    epoch, skip = divmod(first, sum(split.counts))
    left = math.inf if count is None else count
    while True:
        for window in _epoch_windows(split, seed, epoch):
            order = window.order[skip:]
            if left < len(order):
                order = order[: int(left)]
            if len(order):
                yield Window(window.paths, order)
                left -= len(order)
            if not left:
                return
            skip = max(skip - len(window.order), 0)
        epoch += 1


def _epoch_windows(split: Split, seed: int, epoch: int) -> Iterator[Window]:
    rng = np.random.default_rng([seed, epoch])
    paths: list[str] = []
    crops = 0
    order = rng.permutation(len(split.paths))
    for position, shard in enumerate(order):
        paths.append(split.paths[shard])
        crops += split.counts[shard]
        if crops >= WINDOW_CROPS or position == len(order) - 1:
            yield Window(paths, rng.permutation(crops))
            paths, crops = [], 0


def records(split: Split, seed: int, first: int, count: int | None = None) -> Dataset:
    """Serialized examples (string scalars) in training order from crop number ``first`` on.

    ``count`` of them, or without end.
    """
    signature = (tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64))
    order = tf.data.Dataset.from_generator(
        lambda: ((window.paths, window.order) for window in windows(split, seed, first, count)),
        output_signature=signature,
    )
    read = order.map(_read_window).prefetch(1)
    return read.flat_map(tf.data.Dataset.from_tensor_slices)


def _read_window(paths: Tensor, order: Tensor) -> Tensor:
    everything = tf.data.TFRecordDataset(paths).batch(tf.int64.max)
    return tf.gather(everything.get_single_element(), order)


class Upscaling(Protocol):
    """Where the network's input comes from: a low resolution of the HR, enlarged again.

    It can do so in some ways, which are numbered: those of the first scale, of the second, ...
    """

    ways_a_scale: int
    """The first of them is the one to validate on."""
    limits: tuple[int, ...]
    """For each way, how many of a crop's rows and columns it covers."""

    @staticmethod
    def overhang(seen: int) -> int:
        """How far patches of this size are drawn past a crop's edge, and moved back to it."""

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """The enlarged LR and its target, float32 [crop size] * 2 + [C] in 0..1.

        ``hr`` is the crop in the network's channels.
        """


class StoredLr:
    """The dataset's LR pictures, enlarged by Pillow's bicubic.

    The matrices [scales, crop size, largest LR size] and the LR pictures are padded with zeros to
    one size, so that any scale goes through the same two products.
    """

    ways_a_scale = 1

    def __init__(self, crop_size: int, config: Config) -> None:
        scales = config.scales
        self.limits = (crop_size,) * len(scales)
        self._channels = config.channels
        self._shape = (crop_size, crop_size, 3)
        self._size = max(lr_size(crop_size, scale) for scale in scales)
        self._matrices = np.zeros((len(scales), crop_size, self._size), np.float32)
        for matrix, scale in zip(self._matrices, scales, strict=True):
            size = lr_size(crop_size, scale)
            matrix[:, :size] = pillow_bicubic_matrix(size, crop_size)

    @staticmethod
    def overhang(seen: int) -> int:
        """All of a patch: each pixel of a crop is equally often in the part that the loss sees.

        BLUR leaves the border of the LR sharp, and a network that never saw one spoils it.
        """
        return seen - 1

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Clipped after each direction, horizontal first, as Pillow's 8-bit passes are."""
        lr = tf.io.decode_png(lr_pngs[way], channels=3)
        lr = tf.image.pad_to_bounding_box(lr, 0, 0, self._size, self._size)
        matrix = tf.constant(self._matrices)[way]
        planes = tf.transpose(tf.cast(lr, tf.float32) / 255.0, [2, 0, 1])
        wide = _clip(tf.matmul(planes, matrix, transpose_b=True))
        rows = tf.reshape(tf.transpose(wide, [1, 2, 0]), [self._size, -1])
        upscaled = _clip(tf.matmul(matrix, rows))
        return _colours(tf.reshape(upscaled, self._shape), self._channels), hr


class LumaLr:
    """The HR's Y in 8 bits, made small and large again by MATLAB's bicubic, as the papers do it.

    A crop is used up to a multiple of the scale; LR is not rounded. With ``scale_augment`` the crop
    may be shrunk to a HR of its own first. The two steps to the LR and back are one matrix a way,
    [crop size, crop size], padded with zeros; so is the shrinking.
    """

    def __init__(self, crop_size: int, config: Config) -> None:
        sizes = [int(crop_size * factor + 0.5) for factor in config.shrink_factors]
        self.ways_a_scale = len(sizes)
        self.limits = tuple(size // scale * scale for scale in config.scales for size in sizes)
        self._shrink = np.zeros((len(sizes), crop_size, crop_size), np.float32)
        for matrix, size in zip(self._shrink, sizes, strict=True):
            matrix[:size] = matlab_bicubic_matrix(crop_size, size)
        self._degrade = np.zeros((len(self.limits), crop_size, crop_size), np.float32)
        scales = np.repeat(config.scales, len(sizes)).tolist()
        for matrix, size, scale in zip(self._degrade, self.limits, scales, strict=True):
            down = matlab_bicubic_matrix(size, size // scale)
            matrix[:size, :size] = matlab_bicubic_matrix(size // scale, size) @ down

    @staticmethod
    def overhang(seen: int) -> int:
        """A little: a crop's edge is seldom a picture's."""
        return seen // 8

    def __call__(self, hr: Tensor, lr_pngs: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """Of Y, which ``hr`` is."""
        y = _rounded(hr[..., 0])
        if self.ways_a_scale > 1:
            y = _rounded(_both_sides(self._shrink, way % self.ways_a_scale, y))
        return _both_sides(self._degrade, way, y)[..., None], y[..., None]


def _both_sides(matrices: Images, index: Tensor, image: Tensor) -> Tensor:
    """``image`` [H, W] resized by one of the matrices."""
    matrix = tf.constant(matrices)[index]
    return tf.matmul(matrix, tf.matmul(image, matrix, transpose_b=True))


def _rounded(image: Tensor) -> Tensor:
    """To 8 bits, still in 0..1."""
    return _clip(tf.floor(image * 255.0 + 0.5) / 255.0)


def _clip(images: Tensor) -> Tensor:
    """To 0..1: in a tenth of tf.clip_by_value's time, which is not vectorized."""
    return tf.minimum(tf.maximum(images, 0.0), 1.0)


def upscaling_of(crop_size: int, config: Config) -> Upscaling:
    """What the recipe's ``lr`` asks for."""
    return (StoredLr if config.lr == "stored" else LumaLr)(crop_size, config)


def _parse(serialized: Tensor, config: Config, crop_size: int) -> tuple[Tensor, Tensor]:
    """HR float32 [crop size, crop size, C] in 0..1, and the LR PNGs, strings [scales]."""
    names = ["hr", *(f"lr_x{scale}" for scale in config.scales)]
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    example = tf.io.parse_single_example(serialized, features)
    hr = tf.io.decode_png(example["hr"], channels=3)
    hr = tf.cast(tf.ensure_shape(hr, [crop_size, crop_size, 3]), tf.float32) / 255.0
    return _colours(hr, config.channels), tf.stack([example[name] for name in names[1:]])


def _colours(images: Tensor, channels: str) -> Tensor:
    return images if channels == "rgb" else rgb_to_y(images)


def _draw(seed: int, purpose: int, number: Tensor, shape: list[int]) -> Tensor:
    """Random numbers, float32 in 0..1 without 1, the same for the same arguments."""
    key = tf.random.experimental.stateless_fold_in([seed, purpose], number)
    return tf.random.stateless_uniform(shape, key)


def _below(limit: Tensor, drawn: Tensor) -> Tensor:
    """What was drawn as whole numbers, int32 from 0 to ``limit`` - 1."""
    return tf.cast(drawn * tf.cast(limit, tf.float32), tf.int32)


_SCALE, _PLACE, _SHRINK = range(3)


def training_batches(
    split: Split,
    config: Config,
    first_step: int,
    *,
    per_replica: int | None = None,
    worker: int = 0,
    workers: int = 1,
) -> Dataset:
    """Endless (inputs, targets, weights in the loss) from a step on.

    float32 [per_replica, patch, patch, C] twice and [per_replica]. Consecutive batches belong to
    consecutive replicas. ``worker`` of ``workers`` takes its part of each global batch before
    anything is decoded.
    """
    crops = config.batch_size // config.patches_per_crop
    first = first_step * crops
    numbered = records(split, config.seed, first).enumerate(first)
    if workers > 1:
        share = crops // workers
        numbered = numbered.filter(lambda number, _: number % crops // share == worker)

    upscaling = upscaling_of(split.crop_size, config)

    def cut(number: Tensor, serialized: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _cut_patches(number, serialized, config, split.crop_size, upscaling)

    def join(*parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(tf.reshape(part, [-1, *part.shape[2:]]) for part in parts)

    batch = (per_replica or config.batch_size) // config.patches_per_crop
    patches = numbered.map(cut, tf.data.AUTOTUNE, deterministic=True)
    batches = patches.batch(batch, drop_remainder=True).map(join).prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.private_threadpool_size = os.cpu_count() or 1  # apart from the step's
    return batches.with_options(options)


def _cut_patches(
    number: Tensor, serialized: Tensor, config: Config, crop_size: int, upscaling: Upscaling
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one crop, float32 [patches per crop, patch, patch, C] twice and [patches per crop]."""
    count = config.patches_per_crop
    hr, lr_pngs = _parse(serialized, config, crop_size)
    key = number if config.scale_per == "crop" else number // (config.batch_size // count)
    scale = _below(len(config.scales), _draw(config.seed, _SCALE, key, []))
    row, column, *turn = tf.unstack(_draw(config.seed, _PLACE, number, [5, count]))
    shrink = _below(upscaling.ways_a_scale, _draw(config.seed, _SHRINK, number, []))
    way = scale * upscaling.ways_a_scale + shrink
    limit = tf.constant(upscaling.limits)[way]
    rows, columns = (
        _patch_indices(config, crop_size, upscaling, limit, drawn) for drawn in (row, column)
    )
    places = rows[:, :, None] * crop_size + columns[:, None, :]
    if config.augment:
        places = _turn(places, turn)
    inputs, targets = (
        tf.gather(tf.reshape(picture, [-1, picture.shape[-1]]), places)
        for picture in upscaling(hr, lr_pngs, way)
    )
    return inputs, targets, tf.repeat(tf.constant(_loss_weights(config))[scale], count)


def _loss_weights(config: Config) -> npt.NDArray[np.float32]:
    """Of each scale, 1 on average, so that they do not change the learning rate's meaning."""
    weights = np.array(config.scale_weights or [1.0] * len(config.scales), np.float32)
    return weights / weights.mean()


def _patch_indices(
    config: Config, crop_size: int, upscaling: Upscaling, limit: Tensor, drawn: Tensor
) -> Tensor:
    """The crop's rows or columns that each patch is made of, int32 [patches per crop, patch].

    The part of a patch that the loss sees lies inside the crop. A patch reaches past the crop,
    whose border is replicated there, by what the network cuts off. Whatever lies past ``limit`` is
    border as well.
    """
    size = config.patch_size or crop_size
    reach = config.network().border_px if config.patch_size else 0
    seen = size - 2 * reach
    overhang = upscaling.overhang(seen)
    first = _below(limit - seen + 1 + 2 * overhang, drawn) - overhang
    first = tf.clip_by_value(first, 0, tf.maximum(limit - seen, 0)) - reach
    return tf.clip_by_value(first[:, None] + tf.range(size), 0, limit - 1)


def _turn(places: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """Each of [N, size, size] in one of the square's eight symmetries, by three numbers [N]."""
    upside_down, mirrored, transposed = (number[:, None, None] < 0.5 for number in drawn)
    places = tf.where(upside_down, tf.reverse(places, [1]), places)
    places = tf.where(mirrored, tf.reverse(places, [2]), places)
    return tf.where(transposed, tf.transpose(places, [0, 2, 1]), places)


class ValidationCrop(NamedTuple):
    """A whole crop as the network's channels, float32 in 0..1."""

    lr: Images
    """[scales, H, W, C]: the LR's pixels, each enlarged to a square."""
    upscaled: Images
    """[scales, H, W, C]"""
    hr: Images
    """[H, W, C]"""


def validation_crops(split: Split, config: Config) -> list[ValidationCrop]:
    """The same few crops for every run."""
    size = split.crop_size
    upscaling = upscaling_of(size, config)

    def whole(serialized: Tensor) -> ValidationCrop:
        hr, lr_pngs = _parse(serialized, config, size)
        lr, upscaled = [], []
        for index, way in enumerate(range(0, len(upscaling.limits), upscaling.ways_a_scale)):
            every = tf.minimum(tf.range(size), upscaling.limits[way] - 1)
            picture, target = upscaling(hr, lr_pngs, tf.constant(way))
            upscaled.append(tf.gather(tf.gather(picture, every), every, axis=1))
            pixels = tf.io.decode_png(lr_pngs[index], channels=3)
            pixels = tf.image.resize(pixels, [size, size], "nearest")
            lr.append(_colours(tf.cast(pixels, tf.float32) / 255.0, config.channels))
        return ValidationCrop(tf.stack(lr), tf.stack(upscaled), target)

    count = min(config.validation_crops, sum(split.counts))
    dataset = records(split, seed=0, first=0, count=count).map(whole)
    return [ValidationCrop(*crop) for crop in dataset.as_numpy_iterator()]
