"""A dataset folder -> batches, a pure function of (seed, step).

The order of crops: in each epoch the shards are permuted by the seed and dealt into windows of
some thousand crops, each of which is shuffled as a whole before anything is decoded. The manifest
knows how many crops a shard has, so that a resumed run computes its window, reads it, and skips
inside it. Shards are read from start to end, which suits object stores. Every other random choice
is a stateless random number keyed by the seed and the crop's or batch's number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.degradation import lr_size
from pipelines.manifest import Manifest
from pipelines.resampling import pillow_bicubic_matrix
from trainer.colour import rgb_to_y
from trainer.config import Config

# About half a gigabyte of records of 130 KB.
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
    crops: int
    seed: int
    skip: int = 0
    """Crops at its beginning that are not wanted."""


def windows(split: Split, seed: int, first: int) -> Iterator[Window]:
    """The endless order of windows from crop number ``first`` on."""
    epoch, skip = divmod(first, sum(split.counts))
    while True:
        for window in _epoch_windows(split, seed, epoch):
            if skip < window.crops:
                yield Window(window.paths, window.crops, window.seed, skip)
            skip = max(skip - window.crops, 0)
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
            yield Window(paths, crops, int(rng.integers(1, 2**62)))
            paths, crops = [], 0


def records(split: Split, seed: int, first: int) -> Dataset:
    """Serialized examples (string scalars) in training order from crop number ``first`` on."""
    signature = (
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64),
    )
    order = tf.data.Dataset.from_generator(
        lambda: ((w.paths, w.crops, w.seed, w.skip) for w in windows(split, seed, first)),
        output_signature=signature,
    )
    return order.flat_map(_read_window)


def _read_window(paths: Tensor, crops: Tensor, seed: Tensor, skip: Tensor) -> Dataset:
    shuffled = tf.data.TFRecordDataset(paths).shuffle(crops, seed, reshuffle_each_iteration=False)
    return shuffled.skip(skip)


@dataclass(frozen=True)
class Upscaling:
    """Stored LR pictures of several scales -> patches of them enlarged by Pillow's bicubic.

    The matrices and the LR pictures are padded with zeros to one size, so that any scale goes
    through the same two products.
    """

    crop_size: int
    scales: tuple[int, ...]

    def matrices(self) -> Tensor:
        """float32 [scales, crop size, largest LR size]."""
        padded = np.zeros((len(self.scales), self.crop_size, self._lr_size), np.float32)
        for matrix, scale in zip(padded, self.scales, strict=True):
            size = lr_size(self.crop_size, scale)
            matrix[:, :size] = pillow_bicubic_matrix(size, self.crop_size)
        return tf.constant(padded)

    @property
    def _lr_size(self) -> int:
        return max(lr_size(self.crop_size, scale) for scale in self.scales)

    def decode(self, lr_pngs: Tensor, index: Tensor) -> Tensor:
        """The LR of scale number ``index``, float32 in 0..1, [largest LR size] * 2 + [3]."""
        lr = tf.io.decode_png(lr_pngs[index], channels=3)
        lr = tf.image.pad_to_bounding_box(lr, 0, 0, self._lr_size, self._lr_size)
        return tf.cast(lr, tf.float32) / 255.0

    def patch(self, lr: Tensor, index: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """These rows and columns of the enlarged LR, float32 [rows, columns, 3] in 0..1.

        Clipped after each direction, horizontal first, as Pillow's 8-bit passes are.
        """
        matrix = self.matrices()[index]
        wide = tf.einsum("xw,hwc->hxc", tf.gather(matrix, columns), lr)
        wide = tf.clip_by_value(wide, 0.0, 1.0)
        patch = tf.einsum("yh,hxc->yxc", tf.gather(matrix, rows), wide)
        return tf.clip_by_value(patch, 0.0, 1.0)


def _parse(serialized: Tensor, scales: tuple[int, ...], crop_size: int) -> tuple[Tensor, Tensor]:
    """HR float32 [crop size, crop size, 3] in 0..1, and the LR PNGs, strings [scales]."""
    names = ["hr", *(f"lr_x{scale}" for scale in scales)]
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    example = tf.io.parse_single_example(serialized, features)
    hr = tf.io.decode_png(example["hr"], channels=3)
    hr = tf.ensure_shape(hr, [crop_size, crop_size, 3])
    return tf.cast(hr, tf.float32) / 255.0, tf.stack([example[name] for name in names[1:]])


def _colours(images: Tensor, channels: str) -> Tensor:
    return images if channels == "rgb" else rgb_to_y(images)


def _draw(seed: int, purpose: int, number: Tensor, count: int, limit: int) -> Tensor:
    """``count`` random whole numbers below ``limit``, the same for the same arguments."""
    key = tf.random.experimental.stateless_fold_in([seed, purpose], number)
    return tf.random.stateless_uniform([count], key, maxval=limit, dtype=tf.int32)


_SCALE, _ROW, _COLUMN, _TURN = range(4)


def training_batches(
    split: Split,
    config: Config,
    first_step: int,
    *,
    per_replica: int | None = None,
    worker: int = 0,
    workers: int = 1,
) -> Dataset:
    """Endless (inputs, targets), float32 [per_replica, patch, patch, C], from a step on.

    Consecutive batches belong to consecutive replicas. ``worker`` of ``workers`` takes its part
    of each global batch before anything is decoded.
    """
    crops = config.batch_size // config.patches_per_crop
    first = first_step * crops
    numbered = records(split, config.seed, first).enumerate(first)
    if workers > 1:
        share = crops // workers
        numbered = numbered.filter(lambda number, _: number % crops // share == worker)

    upscaling = Upscaling(split.crop_size, config.scales)

    def cut(number: Tensor, serialized: Tensor) -> tuple[Tensor, Tensor]:
        return _cut_patches(number, serialized, config, upscaling)

    def join(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(tf.reshape(x, [-1, *x.shape[2:]]) for x in (inputs, targets))

    batch = (per_replica or config.batch_size) // config.patches_per_crop
    patches = numbered.map(cut, tf.data.AUTOTUNE, deterministic=True)
    return patches.batch(batch, drop_remainder=True).map(join).prefetch(tf.data.AUTOTUNE)


def _cut_patches(
    number: Tensor, serialized: Tensor, config: Config, upscaling: Upscaling
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one crop, float32 [patches per crop, patch, patch, C]."""
    crop_size, count = upscaling.crop_size, config.patches_per_crop
    hr, lr_pngs = _parse(serialized, config.scales, crop_size)
    crops = config.batch_size // count
    key = number if config.scale_per == "crop" else number // crops
    scale = _draw(config.seed, _SCALE, key, 1, len(config.scales))[0]
    rows = _patch_indices(config, crop_size, _ROW, number)
    columns = _patch_indices(config, crop_size, _COLUMN, number)
    turns = _draw(config.seed, _TURN, number, count, 8)
    lr = upscaling.decode(lr_pngs, scale)

    def cut(place: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        rows, columns, turn = place
        upscaled = upscaling.patch(lr, scale, rows, columns)
        target = tf.gather(tf.gather(hr, rows), columns, axis=1)
        pair = tf.stack([_colours(upscaled, config.channels), _colours(target, config.channels)])
        return _turn(pair, turn) if config.augment else pair

    pairs = tf.map_fn(cut, (rows, columns, turns), fn_output_signature=tf.float32)
    inputs, targets = tf.unstack(pairs, axis=1)
    return inputs, targets


def _patch_indices(config: Config, crop_size: int, purpose: int, number: Tensor) -> Tensor:
    """The crop's rows or columns that each patch is made of, int32 [patches per crop, patch].

    Each pixel of a crop is equally often in the part of a patch that the loss sees. For that a
    patch reaches past the crop, whose border is replicated there, by what the network cuts off:
    BLUR leaves the border of the LR sharp, and a network that never saw one spoils it.
    """
    size = config.patch_size or crop_size
    reach = config.network().border_px if config.patch_size else 0
    seen = size - 2 * reach
    drawn = _draw(config.seed, purpose, number, config.patches_per_crop, crop_size + seen - 1)
    first = tf.clip_by_value(drawn - (seen - 1), 0, crop_size - seen) - reach
    return tf.clip_by_value(first[:, None] + tf.range(size), 0, crop_size - 1)


def _turn(images: Tensor, turn: Tensor) -> Tensor:
    """One of the eight symmetries of the square on [N, size, size, C]."""
    mirrored = tf.where(turn >= 4, tf.reverse(images, [2]), images)
    return tf.ensure_shape(tf.image.rot90(mirrored, turn % 4), images.shape)


def validation_crops(split: Split, config: Config) -> list[tuple[Images, Images]]:
    """The same few crops for every run: upscaled float32 [scales, H, W, C], and HR [H, W, C]."""
    upscaling = Upscaling(split.crop_size, config.scales)
    every = tf.range(split.crop_size)

    def whole(serialized: Tensor) -> tuple[Tensor, Tensor]:
        hr, lr_pngs = _parse(serialized, config.scales, split.crop_size)
        upscaled = [
            upscaling.patch(upscaling.decode(lr_pngs, index), index, every, every)
            for index in range(len(config.scales))
        ]
        return _colours(tf.stack(upscaled), config.channels), _colours(hr, config.channels)

    count = min(config.validation_crops, sum(split.counts))
    dataset = records(split, seed=0, first=0).take(count).map(whole)
    return list(dataset.as_numpy_iterator())
