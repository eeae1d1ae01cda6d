import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.dataset.examples import Example
from pipelines.dataset.manifest import Manifest
from pipelines.pictures.resampling import matlab_bicubic_matrix, resize
from trainer.config import Config
from trainer.dataset import Split, windows
from trainer.input import records, training_batches, validation_crops

CONFIG = Config(batch_size=4, patch_size=20, patches_per_crop=2, augment=True, scale_per="crop")


@pytest.fixture
def split(dataset):
    return split_of(dataset, "train")


def split_of(dataset, name):
    return Split.of(Manifest.load(str(dataset)), str(dataset), name)


def batches(split, config, first, count, **worker):
    dataset = training_batches(split, config, first, **worker).take(count)
    return [batch[:2] for batch in dataset.as_numpy_iterator()]


def assert_equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def ids(split, seed, first, count):
    examples = map(Example.from_bytes, records(split, seed, first).take(count).as_numpy_iterator())
    return [example.image_id for example in examples]


@pytest.mark.slow
def test_a_batch_is_a_pure_function_of_seed_and_step(split):
    """Whatever step a run begins at: inside an epoch, across epochs, across windows."""
    whole = batches(split, CONFIG, 0, 14)
    assert whole[0][0].shape == whole[0][1].shape == (4, 20, 20, 3)
    for first in (1, 5, 6, 13):
        assert_equal(batches(split, CONFIG, first, 1), [whole[first]])


def test_another_seed_gives_other_batches(split):
    other = Config(**{**vars(CONFIG), "seed": 1})
    assert not np.array_equal(batches(split, CONFIG, 0, 1), batches(split, other, 0, 1))


def test_each_epoch_has_every_crop_once_in_another_order(split):
    order = ids(split, 0, 0, 36)
    epochs = [order[start : start + 12] for start in (0, 12, 24)]
    assert all(len(set(epoch)) == 12 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_windows_mix_shards_and_a_resumed_run_starts_inside_one(split, monkeypatch):
    monkeypatch.setattr("trainer.dataset.WINDOW_CROPS", 8)
    first, second = itertools.islice(windows(split, 0, 0), 2)
    assert [len(window.paths) for window in (first, second)] == [2, 1]
    assert [sorted(window.order) for window in (first, second)] == [[*range(8)], [*range(4)]]
    resumed = next(windows(split, 0, 9))
    assert resumed.paths == second.paths
    np.testing.assert_array_equal(resumed.order, second.order[1:])
    shards = [int(image_id.rpartition("_")[2]) % 3 for image_id in ids(split, 0, 0, 8)]
    assert len(set(shards)) == 2
    assert shards != sorted(shards)
    assert ids(split, 0, 9, 10) == ids(split, 0, 0, 19)[9:]


@pytest.mark.slow
def test_workers_divide_each_batch(split):
    config = Config(**{**vars(CONFIG), "batch_size": 8})
    parts = [
        batches(split, config, 3, 2, per_replica=4, worker=worker, workers=2) for worker in (0, 1)
    ]
    joined = [
        tuple(np.concatenate(pair) for pair in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, batches(split, config, 3, 2))


def test_consecutive_replicas_get_consecutive_parts(split):
    halves = batches(split, CONFIG, 2, 2, per_replica=2)
    joined = tuple(np.concatenate(pair) for pair in zip(*halves, strict=True))
    assert_equal([joined], batches(split, CONFIG, 2, 1))


def test_patches_are_cut_and_turned_alike_from_input_and_target(make_dataset):
    """A crop of two slopes tells where a patch is from, and bicubic leaves slopes as they are."""
    y, x = np.mgrid[0:48, 0:48] * 5
    crop = Image.fromarray(np.stack([y, x, y // 2 + x // 2], axis=-1).astype(np.uint8))
    split = split_of(make_dataset({"train": [crop]}), "train")
    config = Config(
        batch_size=64, patches_per_crop=64, patch_size=16, augment=True, scale_per="crop"
    )
    ((inputs, targets),) = batches(split, config, 0, 1)
    inner = np.s_[:, 4:12, 4:12]
    central = [t[8, 8, 0] < 0.7 and t[8, 8, 1] < 0.7 for t in targets]
    assert sum(central) > 20
    assert np.abs(inputs[inner] - targets[inner])[central].mean() < 0.03
    turns = collections.Counter(
        tuple(np.sign([t[8, 8, 0] - t[7, 8, 0], t[8, 8, 0] - t[8, 7, 0], t[8, 8, 1] - t[8, 7, 1]]))
        for t in targets
    )
    assert len(turns) == 6, "eight symmetries; two pairs differ only in the unlisted direction"
    assert len({t[0].tobytes() for t in targets}) > 32


def test_the_loss_sees_every_pixel_of_a_crop_equally_often(make_dataset):
    """A crop that is white at its border and black inside, 28 % and 72 % of it."""
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[3:-3, 3:-3] = 0
    split = split_of(make_dataset({"train": [Image.fromarray(pixels)]}), "train")
    config = Config(batch_size=400, patches_per_crop=400, patch_size=22, scale_per="crop")
    ((_, targets),) = batches(split, config, 0, 1)
    seen = targets[:, 6:-6, 6:-6]
    assert seen.mean() == pytest.approx(1 - 34**2 / 40**2, abs=0.05)


def test_patches_at_the_edge_are_continued_by_replication(make_dataset, crops):
    split = split_of(make_dataset({"train": crops(1, 40)}), "train")
    config = Config(batch_size=50, patches_per_crop=50, patch_size=22, scale_per="crop")
    ((inputs, targets),) = batches(split, config, 0, 1)
    for images in (inputs, targets):
        left = images[[np.ptp(image[:, :7], axis=1).max() == 0 for image in images]]
        assert len(left) > 3


@pytest.mark.slow
def test_one_scale_a_batch_or_mixed_scales(split):
    """Inputs of flatter scales are further from their targets: x2 and x4 of the same crops."""
    config = Config(batch_size=12, scales=(2, 4))
    levels = [np.mean((i - t) ** 2) for i, t in batches(split, config, 0, 12)]
    assert max(levels) > 1.3 * min(levels)
    assert np.ptp([round(level, 5) for level in levels]) > 0
    assert len({round(float(level), 5) for level in levels}) == 2
    mixed = Config(batch_size=12, scales=(2, 4), scale_per="crop")
    assert len({round(float(np.mean((i - t) ** 2)), 5) for i, t in batches(split, mixed, 0, 6)}) > 2


def test_luma(split):
    config = Config(batch_size=4, channels="y")
    ((inputs, targets),) = batches(split, config, 0, 1)
    ((_, rgb),) = batches(split, Config(batch_size=4), 0, 1)
    assert inputs.shape == targets.shape == (4, 48, 48, 1)
    expected = (rgb * [65.481, 128.553, 24.966]).sum(axis=-1, keepdims=True) / 255 + 16 / 255
    np.testing.assert_allclose(targets, expected, atol=1e-5)


@pytest.mark.slow
def test_validation_crops_are_few_fixed_and_whole(dataset):
    split = split_of(dataset, "validation")
    crops = validation_crops(split, Config(validation_crops=2))
    shapes = [*[(3, 48, 48, 3)] * 3, (48, 48, 3)]
    assert [[part.shape for part in crop] for crop in crops] == [shapes] * 2
    assert_equal(crops, validation_crops(split, Config(validation_crops=2, seed=5)))
    assert len(validation_crops(split, Config(validation_crops=99))) == 3


def test_validation_crops_of_luma_end_where_their_lr_does(make_dataset, crops):
    """An x3 of 40 px covers 39: a pixel more would be compared with what is not its own."""
    split = split_of(make_dataset({"validation": crops(1, 40)}), "validation")
    config = Config(channels="y", lr="luma", scales=(2, 3), scale_augment=True, patch_size=20)
    (crop,) = validation_crops(split, config)
    assert [part.shape[-3:-1] for part in crop] == [(39, 39)] * 4
    lr = resize(crop.hr[..., 0], 13, 13, matlab_bicubic_matrix)
    expected = resize(lr, 39, 39, matlab_bicubic_matrix)
    np.testing.assert_allclose(crop.upscaled[1, ..., 0], expected, atol=1e-5)


def test_a_missing_shard_is_an_error_of_the_data(dataset, tmp_path):
    split = Split((str(tmp_path / "gone.tfrecord"),), (4,), 48)
    with pytest.raises(tf.errors.NotFoundError):
        batches(split, CONFIG, 0, 1)


def test_scale_augmentation_shrinks_the_hr_before_lr_is_made(make_dataset, crops):
    """To five sizes, in which the same protocol makes LR."""
    (crop,) = crops(1, 40)
    split = split_of(make_dataset({"train": [crop]}), "train")
    config = Config(
        batch_size=1, channels="y", lr="luma", scales=(2,), scale_augment=True, patch_size=37
    )
    whole = np.asarray(crop, np.float64) @ [65.481, 128.553, 24.966] / 255 + 16
    shrunk = [
        np.clip(np.round(resize(np.round(whole), size, size, matlab_bicubic_matrix)), 0, 255)
        for size in (40, 36, 32, 28, 24)
    ]
    seen = set()
    for inputs, targets in batches(split, config, 0, 60):
        target = np.round(targets[0, 6:-6, 6:-6, 0] * 255)
        places = [_find(target[:10, :10], hr) for hr in shrunk]
        (factor,) = [n for n, place in enumerate(places) if place is not None]
        seen.add(factor)
        y, x = places[factor]
        hr = shrunk[factor] / 255
        size = len(hr)
        lr = resize(hr, size // 2, size // 2, matlab_bicubic_matrix)
        upscaled = resize(lr, size, size, matlab_bicubic_matrix)
        np.testing.assert_allclose(
            inputs[0, 6:16, 6:16, 0], upscaled[y : y + 10, x : x + 10], atol=1e-5
        )
    assert seen == {0, 1, 2, 3, 4}


def _find(patch, picture):
    """Where the picture has the patch, within a level of rounding, or None."""
    views = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)
    found = np.argwhere(np.abs(views - patch).max(axis=(2, 3)) <= 1)
    return tuple(found[0]) if len(found) == 1 else None


def test_few_luma_patches_lie_at_a_crops_edge(make_dataset):
    """A slope tells how far to the right a patch lies."""
    slope = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None] * 5, (48, 48, 3))
    split = split_of(make_dataset({"train": [Image.fromarray(slope)]}), "train")
    config = Config(
        model="vdsr", channels="y", lr="luma", scales=(2,), batch_size=400, patches_per_crop=400,
        patch_size=20,
    )  # fmt: skip
    ((_, targets),) = batches(split, config, 0, 1)
    top = targets[:, 0, 0, 0]
    for edge in (top.min(), top.max()):
        assert 0.03 < np.mean(top == edge) < 0.15


def test_each_scale_has_its_weight_in_the_loss(split):
    """One on average; the x4 of a crop is farther from it than its x2."""
    config = Config(batch_size=12, scales=(2, 4), scale_weights=(3.0, 1.0))
    drawn = training_batches(split, config, 0).take(12).as_numpy_iterator()
    errors = {1.5: [], 0.5: []}
    for inputs, targets, weights in drawn:
        (weight,) = set(weights.tolist())
        errors[weight].append(np.mean((inputs - targets) ** 2))
    assert max(errors[1.5]) < min(errors[0.5])


def test_neighbours_in_the_dataset_are_apart_in_training(make_dataset):
    """Records lie sorted by image, so by class; a batch has what the whole window has."""
    pictures = [Image.new("RGB", (16, 16), (n, n, n)) for n in range(240)]
    split = split_of(make_dataset({"train": pictures}, shards=4), "train")
    order = [int(image_id.rpartition("_")[2]) for image_id in ids(split, 0, 0, 240)]
    assert sorted(order) == list(range(240))
    position = np.argsort(order)
    assert abs(np.corrcoef(np.arange(240), position)[0, 1]) < 0.2
    shards = np.array(order).reshape(-1, 40) % 4
    assert all(len(set(batch)) == 4 for batch in shards.tolist())
    assert np.mean(np.abs(np.diff(position))) > 60  # 80 for a perfect shuffle


def test_what_lies_past_the_last_multiple_of_the_scale_is_border(make_dataset, crops):
    split = split_of(make_dataset({"train": crops(1, 40)}), "train")
    config = Config(batch_size=1, channels="y", lr="luma", scales=(3,))
    for images in batches(split, config, 0, 1)[0]:
        np.testing.assert_array_equal(images[:, 39], images[:, 38])
        np.testing.assert_array_equal(images[:, :, 39], images[:, :, 38])


def test_all_eight_symmetries_are_drawn(make_dataset):
    y, x = np.mgrid[0:16, 0:16]
    crop = Image.fromarray(np.stack([y, 10 * x, y], axis=-1).astype(np.uint8))
    split = split_of(make_dataset({"train": [crop]}), "train")
    config = Config(batch_size=64, patches_per_crop=64, augment=True, scale_per="crop")
    ((_, targets),) = batches(split, config, 0, 1)
    assert len({target.tobytes() for target in targets}) == 8


def test_no_iterator_tunes_itself(split):
    """Its destructor might wait a minute for the next round."""
    for dataset in (training_batches(split, CONFIG, 0), records(split, 0, 0)):
        assert dataset.options().autotune.enabled is False
