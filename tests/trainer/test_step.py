"""The step alone, on batches made here."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipelines.pictures.resampling import matlab_bicubic_matrix, resize
from trainer.config import Config
from trainer.step import TrainingStep, initial_checkpoint

CONFIG = Config(
    channels="y",
    batch_size=4,
    patch_size=16,
    learning_rate=1e-3,
    identity_start=True,
    precision="float32",
)
RNG = np.random.default_rng(0)
BATCH = tuple(RNG.random((2, 4, 16, 16, 1), np.float32))


def trained(config, count, *, calls=1, batches=None, begin=None):
    """Checkpoint and outcomes [steps, 3] after ``count`` steps in so many calls."""
    begin = begin or initial_checkpoint(config)
    step = TrainingStep(tf.distribute.get_strategy(), config, begin)
    batches = batches or [(*BATCH, np.ones(4, np.float32))] * count
    parts = [np.stack(part) for part in zip(*batches, strict=True)]
    iterator = iter(tf.data.Dataset.from_tensor_slices(tuple(parts)))
    outcomes = [step(iterator, first, count // calls) for first in range(0, count, count // calls)]
    return step.update(begin), np.concatenate(outcomes)


def assert_equal(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, vars(one), vars(other))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["srcnn", "vdsr"])
def test_many_steps_a_call_are_as_many_calls(model):
    config = dataclasses.replace(CONFIG, model=model, identity_start=False, average=0.9)
    assert_equal(trained(config, 6)[0], trained(config, 6, calls=6)[0])


def test_the_loss_is_the_mean_square_error_on_the_networks_output():
    _, outcomes = trained(CONFIG, 1)
    network, weights = CONFIG.network(), initial_checkpoint(CONFIG).weights
    output = network.training_outputs(weights, BATCH[0], 2)[1]
    expected = np.mean(np.square(output - BATCH[1][:, 6:-6, 6:-6]))
    np.testing.assert_allclose(outcomes[0], [expected, 1, 0], rtol=1e-5)


@pytest.mark.parametrize("loss", ["l1", "charbonnier"])
def test_other_losses(loss):
    config = dataclasses.replace(CONFIG, loss=loss)
    _, outcomes = trained(config, 1)
    output = config.network().training_outputs(initial_checkpoint(config).weights, BATCH[0], 2)[1]
    errors = np.abs(output - BATCH[1][:, 6:-6, 6:-6])
    expected = np.mean(errors if loss == "l1" else np.sqrt(errors**2 + 1e-6))
    np.testing.assert_allclose(outcomes[0], [expected, 1, 0], rtol=1e-5)


@pytest.mark.slow
def test_every_level_of_lapsrn_has_a_loss():
    """Against the HR made small, all divided by the values of the last level."""
    config = Config(
        model="lapsrn", channels="y", lr="luma", scales=(4,), patch_size=16, batch_size=4,
        loss="charbonnier", precision="float32",
    )  # fmt: skip
    lr, hr = BATCH[0][:, :4, :4], BATCH[1]
    _, outcomes = trained(config, 1, batches=[(lr, hr, np.ones(4, np.float32))])
    outputs = config.network().training_outputs(initial_checkpoint(config).weights, lr, 4)
    small = np.stack([resize(image, 8, 8, matlab_bicubic_matrix) for image in hr])
    errors = [np.sqrt((outputs[2] - small) ** 2 + 1e-6), np.sqrt((outputs[1] - hr) ** 2 + 1e-6)]
    expected = sum(map(np.sum, errors)) / hr.size
    np.testing.assert_allclose(outcomes[0], [expected, 1, 0], rtol=1e-5)


def test_weights_of_patches_weigh_their_errors():
    weights = np.array([2.0, 0.0, 0.0, 0.0], np.float32)
    _, outcomes = trained(CONFIG, 1, batches=[(*BATCH, weights)])
    begin = initial_checkpoint(CONFIG).weights
    output = CONFIG.network().training_outputs(begin, BATCH[0][:1], 2)[1]
    expected = np.sum(np.square(output - BATCH[1][:1, 6:-6, 6:-6])) * 2 / (4 * 4 * 4)
    assert outcomes[0, 0] == pytest.approx(expected, rel=1e-5)


def test_a_bad_step_changes_nothing():
    good = (*BATCH, np.ones(4, np.float32))
    bad = (BATCH[0] * np.nan, *good[1:])
    config = dataclasses.replace(CONFIG, average=0.9)
    before, _ = trained(config, 1)
    after, outcomes = trained(config, 2, batches=[good, bad])
    assert_equal(after, before)
    assert outcomes[:, 1:].tolist() == [[1, 0], [0, 1]]


def test_the_norm_over_all_gradients_is_clipped():
    """SGD's first step is the learning rate times the gradient."""
    config = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=1.0, clip_norm=1e-3)
    begin = initial_checkpoint(config)
    after, _ = trained(config, 1)
    moved = [after.weights[name] - old for name, old in begin.weights.items()]
    assert np.sqrt(sum(np.sum(np.square(m)) for m in moved)) == pytest.approx(1e-3, rel=1e-2)


def test_the_average_follows_the_weights():
    config = dataclasses.replace(CONFIG, average=0.5)
    begin = initial_checkpoint(config)
    after, _ = trained(config, 1)
    decay = 0.1  # (1 + 0) / (10 + 0)
    for name, mean in after.average.items():
        old, new = begin.weights[name], after.weights[name]
        np.testing.assert_allclose(mean, decay * old + (1 - decay) * new, rtol=1e-5, atol=1e-7)
    assert after.result is after.average


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_compiled_by_xla_as_on_a_gpu_is_the_same(monkeypatch, optimizer):
    config = dataclasses.replace(
        CONFIG, optimizer=optimizer, clip_norm=0.1, weight_decay=1e-4, average=0.9
    )
    plain, expected = trained(config, 3)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    compiled, outcomes = trained(config, 3)
    np.testing.assert_allclose(outcomes, expected, rtol=1e-4)
    for one, other in ((compiled.weights, plain.weights), (compiled.average, plain.average)):
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_float32_weights_nearly_alike(precision):
    full, expected = trained(CONFIG, 5)
    low, outcomes = trained(dataclasses.replace(CONFIG, precision=precision), 5)
    assert outcomes[:, 1].any() and not outcomes[:, 2].any()
    np.testing.assert_allclose(outcomes[0, 0], expected[0, 0], rtol=0.01)
    assert all(weight.dtype == np.float32 for weight in low.weights.values())
    assert not np.array_equal(low.weights["w1"], full.weights["w1"])


def test_float16_finds_a_scale_of_the_loss_that_does_not_overflow():
    config = dataclasses.replace(CONFIG, precision="float16", optimizer="sgd")
    begin = initial_checkpoint(config)
    begin = dataclasses.replace(begin, health=np.array([0, 0, 2.0**30, 0], np.float32))
    after, outcomes = trained(config, 30, begin=begin)
    overflows = int(np.sum(outcomes[:, 1] == 0))
    assert 0 < overflows < 30
    assert not outcomes[:, 2].any()
    assert after.health[2] == 2.0 ** (30 - overflows)
