"""A dataset folder -> batches, a pure function of (seed, step).

The order of the crops is that of trainer.dataset.windows: a resumed run reads its window and skips
inside it. Shards are read from start to end, which suits object stores, the next window's while
one is in use; a window is shuffled before anything is decoded. Every other random choice is a
stateless random number keyed by the seed and the crop's or batch's number.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines.pictures.degradation import lr_size
from trainer import files
from trainer.colour import in_channels
from trainer.config import Config
from trainer.dataset import Split, check_frames, windows
from trainer.upscaling import Upscaling, upscaling_of

Tensor = Any
Dataset = Any
Images = npt.NDArray[np.float32]
_CORES = os.cpu_count() or 1
_BATCHES_AHEAD = 2
# AutoGraph would rewrite each function of a dataset, which takes longer than to trace it. None has
# a Python "if" or "for" over tensors.
_as_it_is = tf.autograph.experimental.do_not_convert


def records(split: Split, seed: int, first: int, count: int | None = None) -> Dataset:
    """Serialized examples (string scalars) in training order from crop number ``first`` on.

    ``count`` of them, or without end.
    """

    def order_of_windows() -> Iterator[tuple[list[str], npt.NDArray[np.int64]]]:
        for window in windows(split, seed, first, count):
            for path in filter(files.is_local, window.paths):
                with suppress(OSError):  # TensorFlow says what kind of error it is
                    check_frames(split, path)
            yield window.paths, window.order

    signature = (tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64))
    order = tf.data.Dataset.from_generator(order_of_windows, output_signature=signature)
    read = order.map(_read_window).prefetch(1)
    return read.flat_map(tf.data.Dataset.from_tensor_slices).with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # An iterator that tunes itself may miss that it is not wanted any more: its destructor then
    # waits for the next round of tuning, up to a minute.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _CORES  # apart from the step's
    return options


@_as_it_is
def _read_window(paths: Tensor, order: Tensor) -> Tensor:
    everything = tf.data.TFRecordDataset(paths).batch(tf.int64.max).with_options(_options())
    return tf.gather(everything.get_single_element(), order)


def png_head(size: int) -> bytes:
    """What a square PNG of that size begins with (RFC 2083, sections 3.1, 4.1.1)."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size.to_bytes(4, "big") * 2


def _parse(serialized: Tensor, config: Config, crop_size: int) -> tuple[Tensor, Tensor]:
    """HR float32 [crop size, crop size, C] in 0..1, and the LR PNGs, strings [scales]."""
    names = ["hr", *(f"lr_x{scale}" for scale in config.scales)]
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    example = tf.io.parse_single_example(serialized, features)
    pngs = tf.stack([example[name] for name in names])
    sizes = [crop_size, *(lr_size(crop_size, scale) for scale in config.scales)]
    # Before they are unpacked: memory is taken for as large a picture as its first bytes say.
    heads = tf.strings.substr(pngs, 0, len(png_head(crop_size)))
    are_theirs = tf.reduce_all(tf.equal(heads, [*map(png_head, sizes)]))
    with tf.control_dependencies([tf.debugging.Assert(are_theirs, ["not the crop's PNGs"])]):
        hr, lr_pngs = tf.split(tf.identity(pngs), [1, len(sizes) - 1])
    hr = tf.io.decode_png(hr[0], channels=3)
    hr = tf.cast(tf.ensure_shape(hr, [crop_size, crop_size, 3]), tf.float32) / 255.0
    return in_channels(hr, config.channels), lr_pngs


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

    float32 [per_replica, patch, patch, C] twice, LR patches that much smaller, and [per_replica].
    Consecutive batches belong to consecutive replicas. ``worker`` of ``workers`` takes its part of
    each global batch before anything is decoded.
    """
    crops = config.batch_size // config.patches_per_crop
    first = first_step * crops
    numbered = records(split, config.seed, first).enumerate(first)
    if workers > 1:
        share = crops // workers
        own = _as_it_is(lambda number, _: number % crops // share == worker)
        numbered = numbered.filter(own)

    upscaling = upscaling_of(split.crop_size, config, enlarged=config.takes == "upscaled")

    @_as_it_is
    def cut(number: Tensor, serialized: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _cut_patches(number, serialized, config, split.crop_size, upscaling)

    @_as_it_is
    def join(*parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(tf.reshape(part, [-1, *part.shape[2:]]) for part in parts)

    batch = (per_replica or config.batch_size) // config.patches_per_crop
    patches = numbered.map(cut, _CORES, deterministic=True)
    return patches.batch(batch, drop_remainder=True).map(join).prefetch(_BATCHES_AHEAD)


def _cut_patches(
    number: Tensor, serialized: Tensor, config: Config, crop_size: int, upscaling: Upscaling
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one crop, as training_batches gives them, [patches per crop, ...]."""
    count, ratio = config.patches_per_crop, config.ratio
    hr, lr_pngs = _parse(serialized, config, crop_size)
    key = number if config.scale_per == "crop" else number // (config.batch_size // count)
    scale = _below(len(config.scales), _draw(config.seed, _SCALE, key, []))
    row, column, *turn = tf.unstack(_draw(config.seed, _PLACE, number, [5, count]))
    shrink = _below(upscaling.ways_a_scale, _draw(config.seed, _SHRINK, number, []))
    way = scale * upscaling.ways_a_scale + shrink
    limit = tf.constant(upscaling.limits)[way] // ratio
    rows, columns = (
        _patch_indices(config, crop_size, upscaling, limit, drawn) for drawn in (row, column)
    )
    turn = turn if config.augment else []
    picture, target = upscaling(hr, lr_pngs, way)
    inputs = _cut(picture, rows, columns, turn)
    targets = _cut(target, _refined(rows, ratio), _refined(columns, ratio), turn)
    return inputs, targets, tf.repeat(tf.constant(_loss_weights(config))[scale], count)


def _cut(picture: Tensor, rows: Tensor, columns: Tensor, turn: Sequence[Tensor]) -> Tensor:
    """Patches [N, size, size, C] of these rows and columns, int32 [N, size] each, turned."""
    places = rows[:, :, None] * picture.shape[1] + columns[:, None, :]
    if turn:
        places = _turn(places, turn)
    return tf.gather(tf.reshape(picture, [-1, picture.shape[-1]]), places)


def _refined(indices: Tensor, ratio: int) -> Tensor:
    """The HR pixels of each LR pixel, int32 [N, ratio * size] of [N, size]."""
    if ratio == 1:
        return indices
    fine = indices[:, :, None] * ratio + tf.range(ratio)
    return tf.reshape(fine, [-1, indices.shape[1] * ratio])


def _loss_weights(config: Config) -> npt.NDArray[np.float32]:
    """Of each scale, 1 on average, so that they do not change the learning rate's meaning."""
    weights = np.array(config.scale_weights or [1.0] * len(config.scales), np.float32)
    return weights / weights.mean()


def _patch_indices(
    config: Config, crop_size: int, upscaling: Upscaling, limit: Tensor, drawn: Tensor
) -> Tensor:
    """The input's rows or columns that each patch is made of, int32 [patches per crop, patch].

    The part of a patch that the loss sees lies inside the crop. A patch reaches past the crop,
    whose border is replicated there, by what the network cuts off. Whatever lies past ``limit`` is
    border as well.
    """
    size = (config.patch_size or crop_size) // config.ratio
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
    """What all scales cover of a crop as the network's channels, float32 in 0..1."""

    lr: Images
    """[scales, H, W, C]: the LR's pixels, each enlarged to a square."""
    inputs: Images
    """[scales, h, w, C]: what the network is given."""
    upscaled: Images
    """[scales, H, W, C]"""
    hr: Images
    """[H, W, C]"""


def validation_crops(split: Split, config: Config) -> list[ValidationCrop]:
    """The same few crops for every run."""
    size = split.crop_size
    upscaling = upscaling_of(size, config, enlarged=True)
    given = upscaling_of(size, config, enlarged=config.takes == "upscaled")
    ways = range(0, len(upscaling.limits), upscaling.ways_a_scale)
    covered = min(upscaling.limits[way] for way in ways)
    seen = covered // config.ratio

    @_as_it_is
    def whole(serialized: Tensor) -> ValidationCrop:
        hr, lr_pngs = _parse(serialized, config, size)
        lr, inputs, upscaled = [], [], []
        for index, way in enumerate(ways):
            picture, target = upscaling(hr, lr_pngs, tf.constant(way))
            upscaled.append(picture[:covered, :covered])
            inputs.append(given(hr, lr_pngs, tf.constant(way))[0][:seen, :seen])
            pixels = tf.io.decode_png(lr_pngs[index], channels=3)
            pixels = tf.image.resize(pixels, [size, size], "nearest")[:covered, :covered]
            lr.append(in_channels(tf.cast(pixels, tf.float32) / 255.0, config.channels))
        return ValidationCrop(
            tf.stack(lr), tf.stack(inputs), tf.stack(upscaled), target[:covered, :covered]
        )

    count = min(config.validation_crops, sum(split.counts))
    dataset = records(split, seed=0, first=0, count=count).map(whole)
    return [ValidationCrop(*crop) for crop in dataset.as_numpy_iterator()]
