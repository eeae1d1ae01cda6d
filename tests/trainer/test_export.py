import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.pictures.resampling import pillow_bicubic_matrix, resize
from trainer.export import ModelDescription, export_model, upscale
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr
from trainer.trained import load_model

RNG = np.random.default_rng(0)
LR = RNG.integers(0, 256, (1, 11, 14, 3), np.uint8)


def export(run, network, scales=(2, 3), seed=0):
    channels = "rgb" if network.channels == 3 else "y"
    description = ModelDescription(network.name, channels, scales, "article")
    weights = network.initial_weights(np.random.default_rng(seed))
    export_model(str(run), description, network, weights)
    return description, weights


@pytest.mark.slow
@pytest.mark.parametrize("network", [Srcnn(3, "9-3-5"), Srcnn(1), Vdsr(3)], ids=str)
def test_an_exported_model_reloads_as_it_was(network, tmp_path):
    description, weights = export(tmp_path / "mine", network)
    model = load_model(str(tmp_path / "mine"))
    assert (model.name, model.description) == ("mine", description)
    images = RNG.random((2, 20, 30, network.channels), np.float32)
    output = model(images, 2)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, network(weights, images, 2), atol=1e-5)
    alone = load_model(
        str(shutil.copy(tmp_path / "mine/model/weights.npz", tmp_path / "alone.npz"))
    )
    assert alone.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(alone(images, 2), output)
    assert (alone.description.scales, alone.description.degradation) == ((2, 3), None)


@pytest.mark.slow
@pytest.mark.parametrize("network", [Srcnn(3, identity_start=True), Srcnn(1)], ids=str)
def test_the_saved_model_stands_alone(network, tmp_path):
    export(tmp_path, network)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    assert set(saved.signatures) == {"upscaled", "x2", "x3"}
    images = RNG.random((1, 20, 30, network.channels), np.float32)
    (output,) = saved.signatures["upscaled"](images=tf.constant(images)).values()
    np.testing.assert_allclose(output, load_model(str(tmp_path))(images, 2), atol=1e-5)
    (sr,) = saved.signatures["x3"](lr=tf.constant(LR)).values()
    assert (sr.shape, sr.dtype) == ((1, 33, 42, 3), tf.uint8)


@pytest.mark.slow
def test_the_saved_models_enlargement_is_pillows(tmp_path):
    """A VDSR whose residual is zero gives back what it is given."""
    network = Vdsr(3)
    weights = {name: np.zeros(shape, np.float32) for name, shape in network.shapes.items()}
    export_model(str(tmp_path), ModelDescription("vdsr", "rgb", (3,), None), network, weights)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    (sr,) = saved.signatures["x3"](lr=tf.constant(LR)).values()
    pillow = Image.fromarray(LR[0]).resize((42, 33), Image.Resampling.BICUBIC)
    assert np.abs(sr[0].numpy().astype(int) - np.asarray(pillow)).max() <= 1


@pytest.mark.slow
def test_a_luma_network_keeps_the_colours(tmp_path):
    network = Vdsr(1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in network.shapes.items()}
    export_model(str(tmp_path), ModelDescription("vdsr", "y", (2,), None), network, weights)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    (sr,) = saved.signatures["x2"](lr=tf.constant(LR)).values()
    pillow = Image.fromarray(LR[0]).resize((28, 22), Image.Resampling.BICUBIC)
    assert np.abs(sr[0].numpy().astype(int) - np.asarray(pillow)).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_in_the_graph_has_the_weights_of_resampling(scale):
    images = RNG.uniform(0.4, 0.6, (1, 13, 17, 2)).astype(np.float32)
    expected = resize(images[0], 13 * scale, 17 * scale, pillow_bicubic_matrix)
    np.testing.assert_allclose(upscale(images, scale)[0], expected, atol=1e-6)


@pytest.mark.slow
def test_exporting_again_replaces_the_model(tmp_path):
    export(tmp_path, Srcnn(3), seed=0)
    before = load_model(str(tmp_path)).weights_sha256
    export(tmp_path, Srcnn(3), seed=1)
    assert load_model(str(tmp_path)).weights_sha256 != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
