import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.command.cli import UsageError
from pipelines.pictures.resampling import pillow_bicubic_matrix, resize
from tests.conftest import SHARED_DATA
from trainer.export import ModelDescription, export_model, load_model, upscale
from trainer.models.network import weights_by_name
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr

PUBLISHED = SHARED_DATA / "weights"
RNG = np.random.default_rng(0)
LR = RNG.integers(0, 256, (1, 11, 14, 3), np.uint8)


def export(run, network, scales=(2, 3), seed=0):
    channels = "rgb" if network.channels == 3 else "y"
    description = ModelDescription(network.name, channels, scales, "article")
    weights = network.initial_weights(np.random.default_rng(seed))
    export_model(str(run), description, network, weights)
    return description, weights


@pytest.mark.parametrize("network", [Srcnn(3, "9-3-5"), Srcnn(1), Vdsr(3)], ids=str)
def test_an_exported_model_reloads_as_it_was(network, tmp_path):
    description, weights = export(tmp_path / "mine", network)
    model = load_model(str(tmp_path / "mine"))
    assert (model.name, model.description) == ("mine", description)
    images = RNG.random((2, 20, 30, network.channels), np.float32)
    output = model(images)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, network(weights, images), atol=1e-5)
    alone = load_model(str(tmp_path / "mine/model/weights.npz"))
    assert alone.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(alone(images), output)
    assert (alone.description.scales, alone.description.degradation) == ((), None)


@pytest.mark.parametrize("network", [Srcnn(3, identity_start=True), Srcnn(1)], ids=str)
def test_the_saved_model_stands_alone(network, tmp_path):
    export(tmp_path, network)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    assert set(saved.signatures) == {"upscaled", "x2", "x3"}
    images = RNG.random((1, 20, 30, network.channels), np.float32)
    (output,) = saved.signatures["upscaled"](images=tf.constant(images)).values()
    np.testing.assert_allclose(output, load_model(str(tmp_path))(images), atol=1e-5)
    (sr,) = saved.signatures["x3"](lr=tf.constant(LR)).values()
    assert (sr.shape, sr.dtype) == ((1, 33, 42, 3), tf.uint8)


def test_the_saved_models_enlargement_is_pillows(tmp_path):
    """A VDSR whose residual is zero gives back what it is given."""
    network = Vdsr(3)
    weights = [np.zeros(shape, np.float32) for shape in network.shapes]
    export_model(str(tmp_path), ModelDescription("vdsr", "rgb", (3,), None), network, weights)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    (sr,) = saved.signatures["x3"](lr=tf.constant(LR)).values()
    pillow = Image.fromarray(LR[0]).resize((42, 33), Image.Resampling.BICUBIC)
    assert np.abs(sr[0].numpy().astype(int) - np.asarray(pillow)).max() <= 1


def test_a_luma_network_keeps_the_colours(tmp_path):
    network = Vdsr(1)
    weights = [np.zeros(shape, np.float32) for shape in network.shapes]
    export_model(str(tmp_path), ModelDescription("vdsr", "y", (2,), None), network, weights)
    saved = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    (sr,) = saved.signatures["x2"](lr=tf.constant(LR)).values()
    pillow = Image.fromarray(LR[0]).resize((28, 22), Image.Resampling.BICUBIC)
    assert np.abs(sr[0].numpy().astype(int) - np.asarray(pillow)).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_in_the_graph_has_the_weights_of_resampling(scale):
    images = RNG.uniform(0.4, 0.6, (1, 13, 17, 2)).astype(np.float32)
    expected = resize(images[0], 13 * scale, 17 * scale, pillow_bicubic_matrix)
    np.testing.assert_allclose(upscale(images, scale)[0], expected, atol=2e-5)


def test_a_loaded_model_computes_in_float32_on_a_gpu_too(tmp_path):
    tf.config.experimental.enable_tensor_float_32_execution(True)
    export(tmp_path, Srcnn(3), seed=0)
    load_model(str(tmp_path))
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_exporting_again_replaces_the_model(tmp_path):
    export(tmp_path, Srcnn(3), seed=0)
    before = load_model(str(tmp_path)).weights_sha256
    export(tmp_path, Srcnn(3), seed=1)
    assert load_model(str(tmp_path)).weights_sha256 != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"{PUBLISHED} is absent")
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        *((f"srcnn_9-1-5_91images_x{scale}", "srcnn") for scale in (2, 3, 4)),
        ("vdsr_nobias_twtygqyy", "vdsr"),
    ],
)
def test_published_weights_are_recognised(name, architecture):
    model = load_model(str(PUBLISHED / f"{name}.npz"))
    assert model.name == name
    assert model.description == ModelDescription(architecture, "y", (), None)
    images = np.full((1, 32, 32, 1), 0.5, np.float32)
    np.testing.assert_allclose(model(images)[:, 8:-8, 8:-8], 0.5, atol=0.02)


def test_a_network_without_biases_is_recognised(tmp_path):
    network = Vdsr(1)
    weights = network.initial_weights(np.random.default_rng(0))
    kernels = {name: w for name, w in weights_by_name(weights).items() if name.startswith("w")}
    np.savez(tmp_path / "vdsr.npz", **kernels)
    images = RNG.random((1, 8, 8, 1), np.float32)
    output = load_model(str(tmp_path / "vdsr.npz"))(images)
    np.testing.assert_allclose(output, network(weights, images), atol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w1": np.zeros((5, 5, 3, 8)), "b1": np.zeros(8)}, r"w1 \[5, 5, 3, 8\], b1 \[8\]"),
        ({"kernel": np.zeros(3)}, r"no known network \(srcnn, vdsr\): kernel \[3\]"),
        ({"w1": np.array(3.0)}, r"w1 \[\]"),
        ({}, "no known network"),
    ],
)
def test_unknown_weights_are_refused_with_their_shapes(arrays, message, tmp_path):
    path = tmp_path / "unknown.npz"
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=message):
        load_model(str(path))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="neither a run folder nor a weights file"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"holds no exported model .* finish its training"):
        load_model(str(tmp_path))
    for content in (b"", b"text", b"PK\x03\x04"):
        (tmp_path / "file.npz").write_bytes(content)
        with pytest.raises(UsageError, match="is not a weights file"):
            load_model(str(tmp_path / "file.npz"))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UsageError, match="is not a weights file"):
        load_model(str(tmp_path / "array.npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "edsr"}, "unknown network: edsr"),
        ({"channels": "cmyk"}, "unknown network: srcnn, cmyk"),
        ({"channels": "y"}, "are of different networks"),
        ({"architecture": "vdsr"}, "are of different networks"),
        ({"degradation": "rain"}, "is not a model's description"),
        ({"scales": None}, "is not a model's description"),
        ({"colour": 1}, "is not a model's description"),
    ],
)
def test_a_wrong_description_is_refused(change, message, tmp_path):
    export(tmp_path, Srcnn(3))
    path = tmp_path / "model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=message):
        load_model(str(tmp_path))
