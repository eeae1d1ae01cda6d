import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipelines.command.cli import UsageError, WorkError
from tests.support import SHARED_DATA
from trainer.config import Config
from trainer.export import ModelDescription, export_model
from trainer.models import NETWORKS, Options
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr
from trainer.trained import load_model, starting_weights
from trainer.weights_file import write_weights

PUBLISHED = SHARED_DATA / "weights"
RNG = np.random.default_rng(0)
CARD = """
summary: two networks
architecture: srcnn
channels: y
degradation: bicubic
weights: {tiny-x2.npz: [2], tiny-x3.npz: [3, 4]}
training: {seed: 0}
licence: none
results: []
"""


DESCRIPTION = ModelDescription("srcnn", "rgb", (2, 3), "article")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with the model of DESCRIPTION. Not to be written to."""
    run = tmp_path_factory.mktemp("exported") / "mine"
    weights = Srcnn(3).initial_weights(np.random.default_rng(0))
    export_model(str(run), DESCRIPTION, Srcnn(3), weights)
    return run


def test_a_loaded_model_computes_in_float32_on_a_gpu_too(exported):
    tf.config.experimental.enable_tensor_float_32_execution(True)
    load_model(str(exported))
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


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
    np.testing.assert_allclose(model(images, 2)[:, 8:-8, 8:-8], 0.5, atol=0.02)


def test_a_network_without_biases_is_recognised(tmp_path):
    network = Vdsr(1)
    weights = network.initial_weights(np.random.default_rng(0))
    kernels = {name: w for name, w in weights.items() if name.startswith("w")}
    np.savez(tmp_path / "vdsr.npz", **kernels)
    images = RNG.random((1, 8, 8, 1), np.float32)
    output = load_model(str(tmp_path / "vdsr.npz"))(images, 2)
    np.testing.assert_allclose(output, network(weights, images, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w1": np.zeros((5, 5, 3, 8)), "b1": np.zeros(8)}, r"w1 \[5, 5, 3, 8\], b1 \[8\]"),
        ({"kernel": np.zeros(3)}, r"no known network \(srcnn, vdsr, .*\): kernel \[3\]"),
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
    with pytest.raises(UsageError, match=r"no run folder, no weights file .* shipped models"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"holds neither an exported model .* train it"):
        load_model(str(tmp_path))
    for content in (b"", b"text", b"PK\x03\x04"):
        (tmp_path / "file.npz").write_bytes(content)
        with pytest.raises(UsageError, match="is not a weights file"):
            load_model(str(tmp_path / "file.npz"))


@pytest.mark.parametrize("part", ["", "model", "model/weights.npz"])
def test_a_runs_model_may_be_named_by_its_folder_or_its_weights(part, exported):
    model = load_model(str(exported / part))
    assert (model.name, model.description) == ("mine", DESCRIPTION)


def test_pixels_that_are_not_finite_are_a_failure(tmp_path):
    weights = {name: np.full(shape, 1e20) for name, shape in Srcnn(3).shapes.items()}
    np.savez(tmp_path / "huge.npz", **weights)
    with pytest.raises(WorkError, match="huge gives pixels that are not finite"):
        load_model(str(tmp_path / "huge.npz"))(np.ones((1, 8, 8, 3), np.float32), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "odd"}, "unknown network: odd"),
        ({"channels": "cmyk"}, "unknown network: srcnn, cmyk"),
        ({"channels": "y"}, "are of different networks"),
        ({"architecture": "vdsr"}, "are of different networks"),
        ({"degradation": "rain"}, "is not a model's description"),
        ({"scales": None}, "is not a model's description"),
        ({"colour": 1}, "is not a model's description"),
    ],
)
def test_a_wrong_description_is_refused(change, message, exported, tmp_path):
    run = shutil.copytree(exported, tmp_path / "run")
    path = run / "model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=message):
        load_model(str(run))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A shipped model with two files, and the weights in them."""
    monkeypatch.setattr("trainer.cards.WEIGHTS", tmp_path)
    (tmp_path / "tiny.yaml").write_text(CARD)
    weights = [Srcnn(1).initial_weights(np.random.default_rng(seed)) for seed in (2, 3)]
    for scale, arrays in zip((2, 3), weights, strict=True):
        np.savez(tmp_path / f"tiny-x{scale}.npz", **arrays)
    return weights


def test_a_shipped_model_picks_its_weights_by_scale(tiny):
    model = load_model("tiny")
    assert model.description == ModelDescription("srcnn", "y", (2, 3, 4), "bicubic")
    images = RNG.random((1, 20, 30, 1), np.float32)
    for scale, weights in ((2, tiny[0]), (3, tiny[1]), (4, tiny[1])):
        np.testing.assert_allclose(
            model(images, scale), Srcnn(1)(weights, images, scale), atol=1e-5
        )


def starting(tiny, **options):
    return starting_weights(Config(**{"channels": "y", "from_": "tiny", "scales": (2,), **options}))


def test_a_run_begins_with_the_weights_of_its_scale(tiny):
    for scale, weights in ((2, tiny[0]), (4, tiny[1])):
        found = starting(tiny, scales=(scale,))
        assert all(np.array_equal(found[name], weights[name]) for name in weights)


def test_a_network_of_larger_kernels_begins_as_the_smaller_one(tiny):
    images = RNG.random((1, 24, 30, 1), np.float32)
    grown = Srcnn(1, "9-5-5")(starting(tiny, kernels="9-5-5"), images, 2)
    np.testing.assert_allclose(grown, Srcnn(1)(tiny[0], images, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": "rgb"}, "weights 9x9x1x64 .* recipe's network 9x9x3x64"),
        ({"model": "vdsr"}, "weights 9x9x1x64 1x1x64x32 .* network 3x3x1x64 3x3x64x64"),
        ({"scales": (2, 3)}, "has weights for each of the scales 2,3,4: choose one"),
        ({"from_": "small"}, r"small is no run folder, .* shipped models \(tiny\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tiny, options, message):
    with pytest.raises(UsageError, match=message):
        starting(tiny, **options)


@pytest.mark.parametrize(
    ("name", "scales", "anew"),
    [
        ("edsr-baseline", (2, 3), {"up1_w", "up1_b"}),
        ("edsr-baseline", (2, 4), {"up2_w", "up2_b"}),
        ("espcn", (2, 4), {"w3", "b3"}),
        ("pan", (2, 3), set()),
    ],
)
def test_another_scale_begins_with_what_it_shares(name, scales, anew, tmp_path):
    """As EDSR's authors begin x3 and x4 with x2."""
    channels = 1 if name == "espcn" else 3
    networks = [NETWORKS[name].from_options(Options(channels, scale=scale)) for scale in scales]
    weights = networks[0].initial_weights(np.random.default_rng(1))
    path = tmp_path / "some.npz"
    path.write_bytes(write_weights(networks[0], weights, scales[:1]))
    config = Config(
        model=name, from_=str(path), scales=scales[1:], channels="y" if channels == 1 else "rgb"
    )
    begun = starting_weights(config)
    new = networks[1].initial_weights(np.random.default_rng(config.seed))
    assert begun.keys() == new.keys()
    for part, weight in begun.items():
        assert np.array_equal(weight, new[part] if part in anew else weights[part]), part
