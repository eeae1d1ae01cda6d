"""Every network of the registry as ONNX and TFLite, run by the programs that others run them by."""

import numpy as np
import pytest
import tensorflow as tf

from evaluation.pictures import folder_pictures
from evaluation.upscalers import load_upscalers
from pipelines.command.cli import UsageError
from tests.support import SHARED_DATA
from trainer.export import super_resolved
from trainer.export_to import main
from trainer.models import NETWORKS, Options
from trainer.trained import load_model
from trainer.weights_file import write_weights

RNG = np.random.default_rng(0)
WEIGHTS = SHARED_DATA / "weights/lr"
pytestmark = pytest.mark.slow


def run(path, lr):
    """``lr`` [h, w, C] in 0..1, enlarged by the file's graph."""
    if path.suffix == ".onnx":
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        session = runtime.InferenceSession(path)
        (sr,) = session.run(["sr"], {"lr": lr.transpose(2, 0, 1)[None]})
        return sr[0].transpose(1, 2, 0)
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.resize_tensor_input(0, [1, *lr.shape])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], lr[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def in_tensorflow(model, lr, scale):
    """RGB to RGB."""
    weights = model.weights_at(scale)
    sr = super_resolved(
        tf.constant(lr[None]), scale, model.description.channels, model.network,
        lambda images: model.network(weights, images, scale),
    )  # fmt: skip
    return np.clip(sr[0], 0, 1)


@pytest.fixture
def weights_file(tmp_path):
    """A file of a network's random weights."""

    def write(name):
        channels = 3 if name in ("pan", "edsr-baseline") else 1
        network = NETWORKS[name].from_options(Options(channels))
        (tmp_path / f"{name}.npz").write_bytes(
            write_weights(network, network.initial_weights(RNG), (2,))
        )
        return str(tmp_path / f"{name}.npz")

    return write


@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize(
    "name",
    ["srcnn", *(pytest.param(n, marks=pytest.mark.no_cover) for n in NETWORKS if n != "srcnn")],
)
def test_a_file_computes_what_the_network_does(name, to, weights_file, tmp_path):
    if to == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    source, path = weights_file(name), tmp_path / f"some.{to}"
    main([source, "--to", to, "--scale", "2", str(path)])
    model = load_model(source)
    for size in ((17, 12), (9, 23)):
        lr = RNG.random((*size, 3), np.float32)
        np.testing.assert_allclose(run(path, lr), in_tensorflow(model, lr, 2), atol=2e-5)
    if model.description.channels == "y":
        main([source, "--to", to, "--scale", "2", str(path), "--luma", "--overwrite"])
        lr = RNG.uniform(0.3, 0.7, (17, 12, 1)).astype(np.float32)
        if model.network.takes == "lr":
            expected = np.clip(model(lr[None], 2)[0], 0, 1)
            np.testing.assert_allclose(run(path, lr), expected, atol=2e-5)
        assert run(path, lr).shape == (34, 24, 1)


@pytest.mark.no_cover
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is absent")
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize(("file", "scale"), [("fsrcnn_x3", 3), ("pan_x2", 2)])
def test_published_weights_on_set5(file, scale, to, tmp_path):
    if to == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    source, path = str(WEIGHTS / f"{file}.npz"), tmp_path / f"some.{to}"
    main([source, "--to", to, "--scale", str(scale), str(path)])
    model, upscaler = load_model(source), load_upscalers([source])[-1]
    for picture in folder_pictures(str(SHARED_DATA / "benchmarks/set5")):
        lr = picture.rgb[::scale, ::scale][8:72, 8:56]
        sr = run(path, lr.astype(np.float32) / 255)
        assert np.abs(sr - in_tensorflow(model, lr.astype(np.float32) / 255, scale)).max() < 1e-4
        ours = upscaler.enlarge(lr, 255, scale)
        # The colour's bicubic is clipped once more in the graph.
        assert np.mean(np.abs(sr * 255 - ours) > 1) < 0.01


def test_what_a_model_cannot_do_is_refused(weights_file, tmp_path, monkeypatch):
    export = ["--to", "tflite", "--scale"]
    with pytest.raises(UsageError, match="was trained for the scales 2, not 3"):
        main([weights_file("espcn"), *export, "3", str(tmp_path / "some.tflite")])
    with pytest.raises(UsageError, match="pan is a network of RGB: leave --luma out"):
        main([weights_file("pan"), *export, "2", str(tmp_path / "some.tflite"), "--luma"])
    (tmp_path / "some.onnx").touch()
    with pytest.raises(UsageError, match=r"some\.onnx is there already: use --overwrite"):
        main(["srcnn-915", "--to", "onnx", "--scale", "2", str(tmp_path / "some.onnx")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--to onnx needs tf2onnx: pip install .*\[export\]"):
        main(["srcnn-915", "--to", "onnx", "--scale", "2", str(tmp_path / "other.onnx")])
