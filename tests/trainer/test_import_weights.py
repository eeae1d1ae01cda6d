"""Files in the layouts of the usual repositories, written here name by name."""

import numpy as np
import pytest
import scipy.io
import tensorflow as tf

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

from pipelines.command.cli import UsageError  # noqa: E402
from trainer.import_weights import main  # noqa: E402
from trainer.models import NETWORKS  # noqa: E402
from trainer.models.edsr import Edsr  # noqa: E402
from trainer.models.espcn import Espcn  # noqa: E402
from trainer.models.fsrcnn import Fsrcnn, FsrcnnS  # noqa: E402
from trainer.models.lapsrn import Lapsrn  # noqa: E402
from trainer.models.pan import Pan  # noqa: E402
from trainer.models.srcnn import Srcnn  # noqa: E402
from trainer.models.vdsr import Vdsr  # noqa: E402
from trainer.trained import load_model  # noqa: E402
from trainer.weights_file import read_weights  # noqa: E402

RNG = np.random.default_rng(0)


def numbered(form, numbers):
    return [form.format(number) for number in numbers]


def edsr(block, first, trunk, ups, last):
    blocks = [form.format(number) for number in range(16) for form in block]
    return [first, *blocks, trunk, *ups, last]


PAN_BLOCK = ("conv1_a", "k1.0", "conv1_b", "PAConv.k2", "PAConv.k3", "PAConv.k4", "conv3")
PAN_UP = ("upconv{}", "att{}.conv", "HRconv{}")
LAPSRN_LEVEL = [f"convt_F{{0}}.0.cov_block.{n}" for n in range(0, 21, 2)]
# The modules of the kernels in the order of ours, and of the slopes.
TORCH = {
    "yjn870/SRCNN-pytorch": (Srcnn(1, "9-5-5"), numbered("conv{}", (1, 2, 3)), []),
    "Lornatang/SRCNN-PyTorch": (Srcnn(1), ["features.0", "map.0", "reconstruction"], []),
    "twtygqyy/pytorch-vdsr": (
        Vdsr(1),
        ["input", *numbered("residual_layer.{}.conv", range(18)), "output"],
        [],
    ),
    "Lornatang/VDSR-PyTorch": (
        Vdsr(1),
        ["conv1.0", *numbered("trunk.{}.conv", range(18)), "conv2"],
        [],
    ),
    "yjn870/FSRCNN-pytorch": (
        Fsrcnn(1, channel_slopes=True),
        ["first_part.0", *numbered("mid_part.{}", (0, 2, 4, 6, 8, 10)), "last_part"],
        ["first_part.1", *numbered("mid_part.{}", (1, 3, 5, 7, 9, 11))],
    ),
    "yjn870/FSRCNN-pytorch, small": (
        FsrcnnS(1, channel_slopes=True),
        ["first_part.0", *numbered("mid_part.{}", (0, 2, 4)), "last_part"],
        ["first_part.1", *numbered("mid_part.{}", (1, 3, 5))],
    ),
    "Lornatang/FSRCNN-PyTorch": (
        Fsrcnn(1, channel_slopes=True),
        [
            *("feature_extraction.0", "shrink.0"),
            *(*numbered("map.{}", (0, 2, 4, 6)), "expand.0", "deconv"),
        ],
        ["feature_extraction.1", "shrink.1", *numbered("map.{}", (1, 3, 5, 7)), "expand.1"],
    ),
    "yjn870/ESPCN-pytorch": (
        Espcn(1, 3),
        ["first_part.0", "first_part.2", "last_part.0"],
        [],
    ),
    "Lornatang/ESPCN-PyTorch": (
        Espcn(1, 2),
        ["feature_maps.0", "feature_maps.2", "sub_pixel.0"],
        [],
    ),
    "twtygqyy/pytorch-LapSRN": (
        Lapsrn(2, 10, up_size=4),
        [
            "conv_input",
            *(
                form.format(level)
                for level in (1, 2)
                for form in (*LAPSRN_LEVEL, "convt_R{}", "convt_I{}")
            ),
        ],
        [],
    ),
    "zhaohengyuan1/PAN": (
        Pan(2),
        [
            "conv_first",
            *(f"SCPA_trunk.{number}.{part}" for number in range(16) for part in PAN_BLOCK),
            "trunk_conv",
            *(form.format(number) for number in (1, 2) for form in PAN_UP),
            "conv_last",
        ],
        [],
    ),
    "sanghyun-son/EDSR-PyTorch": (
        Edsr(4),
        edsr(
            ("body.{}.body.0", "body.{}.body.2"),
            "head.0", "body.16", ["tail.0.0", "tail.0.2"], "tail.1",
        ),
        [],
    ),
    "XPixelGroup/BasicSR": (
        Edsr(2),
        edsr(
            ("body.{}.conv1", "body.{}.conv2"),
            "conv_first", "conv_after_body", ["upsample.0"], "conv_last",
        ),
        [],
    ),
}  # fmt: skip
ZEROS = ("srcnn", "fsrcnn", "fsrcnn-s", "espcn")


def random_weights(network):
    """Of all arrays, biases and slopes too."""
    shapes = network.shapes.items()
    return {name: RNG.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}


def as_torch(network, weights, modules, slopes):
    """A state_dict: convolutions [out, in, h, w], deconvolutions [in, out, h, w]."""
    kernels = [name for name, weight in weights.items() if weight.ndim == 4]
    tensors = {}
    for name, module in zip(kernels, modules, strict=True):
        is_deconvolution = module in ("last_part", "deconv") or "convt_I" in module
        is_deconvolution |= module.endswith("cov_block.20")
        axes = (2, 3, 0, 1) if is_deconvolution else (3, 2, 0, 1)
        tensors[f"{module}.weight"] = np.ascontiguousarray(weights[name].transpose(axes))
        bias = f"{name[:-1]}b" if name.endswith("w") else name[::-1].replace("w", "b", 1)[::-1]
        if bias in weights:
            tensors[f"{module}.bias"] = weights[bias] * (
                255 if network.name == "edsr-baseline" else 1
            )
    named = [name for name in weights if name.startswith("a") and weights[name].ndim == 1]
    for name, module in zip(named if slopes else [], slopes, strict=True):
        tensors[f"{module}.weight"] = weights[name]
    return tensors


def imported(path, name, *options):
    main([str(path), "--network", name, str(path.parent / "out.npz"), *options])
    return read_weights(str(path.parent / "out.npz"))


def assert_equal(found, weights):
    for name, weight in weights.items():
        np.testing.assert_allclose(found.weights[name], weight, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("source", TORCH)
def test_a_state_dict_of_a_repository_is_read(source, tmp_path):
    network, modules, slopes = TORCH[source]
    weights = random_weights(network)
    tensors = as_torch(network, weights, modules, slopes)
    if source.startswith("sanghyun"):
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            tensors[f"{name}.weight"] = np.eye(3, dtype=np.float32)[..., None, None]
            tensors[f"{name}.bias"] = sign * 255 * np.array([0.4488, 0.4371, 0.4040], np.float32)
    safetensors.save_file(tensors, tmp_path / "some.safetensors")
    found = imported(tmp_path / "some.safetensors", network.name)
    expected = network.with_zero_padding() if network.name in ZEROS else network
    assert (found.network, found.scales) == (expected, network.scales)
    assert_equal(found, weights)


def test_every_network_has_a_layout():
    assert {network.name for network, *_ in TORCH.values()} == set(NETWORKS)


def columns(kernel, is_deconvolution=False):
    """[in, height * width, out], each kernel column after column, as FSRCNN.m reads it."""
    order = (3, 1, 0, 2) if is_deconvolution else (2, 1, 0, 3)
    turned = kernel.transpose(order)
    return turned.reshape(turned.shape[0], -1, turned.shape[3])


def test_srcnn_of_its_authors(tmp_path):
    network = Srcnn(1, "9-3-5")
    weights = random_weights(network)
    content = {f"weights_conv{n}": columns(weights[f"w{n}"]) for n in (1, 2, 3)}
    content["weights_conv1"] = content["weights_conv1"][0]  # 81 x 64
    content |= {f"biases_conv{n}": weights[f"b{n}"][:, None] for n in (1, 2, 3)}
    scipy.io.savemat(tmp_path / "x3.mat", content)
    found = imported(tmp_path / "x3.mat", "srcnn", "--scales", "3")
    assert (found.network, found.scales) == (network, (3,))
    assert_equal(found, weights)


@pytest.mark.parametrize("network", [Fsrcnn(1), FsrcnnS(1)], ids=str)
def test_fsrcnn_of_its_authors(network, tmp_path):
    weights = random_weights(network)
    last = sum(name.startswith("w") for name in weights)
    cells = {name: np.empty(last, object) for name in ("weights_conv", "biases_conv")}
    cells["prelu_conv"] = np.empty(last - 1, object)
    for n in range(1, last + 1):
        cells["weights_conv"][n - 1] = columns(weights[f"w{n}"], n == last)
        cells["biases_conv"][n - 1] = weights[f"b{n}"][:, None]
        if n < last:
            cells["prelu_conv"][n - 1] = float(weights[f"a{n}"][0])
    scipy.io.savemat(tmp_path / "x2.mat", cells)
    found = imported(tmp_path / "x2.mat", network.name)
    assert (found.network, found.scales) == (network, ())
    assert_equal(found, weights)


def test_vdsr_of_its_authors(tmp_path):
    weights = random_weights(Vdsr(1))
    model = {part: np.empty(20, object) for part in ("weight", "bias")}
    for n in range(1, 21):
        kernel = weights[f"w{n}"]
        model["weight"][n - 1] = kernel[..., 0] if n == 20 else kernel
        model["bias"][n - 1] = weights[f"b{n}"][None]
    scipy.io.savemat(tmp_path / "VDSR_Official.mat", {"model": model})
    found = imported(tmp_path / "VDSR_Official.mat", "vdsr")
    assert found.network == Vdsr(1)
    assert_equal(found, weights)


@pytest.mark.parametrize("network", [Lapsrn(1, 10), Lapsrn(3, 5)], ids=str)
def test_lapsrn_of_its_authors(network, tmp_path):
    """A MatConvNet DagNN, whose first level is the last one; learning rates lie beside values."""
    weights = random_weights(network)
    params = []
    for ours, weight in weights.items():
        level, _, part = ours.rpartition("_") if ours.startswith("in") else ours.partition("_")
        name = f"input_conv_{'f' if part == 'w' else 'b'}"
        if level != "in":
            kind = "b" if part.startswith("b") or part.endswith("_b") else "f"
            theirs = {"up": "upconv", "res": "residual_conv", "img": "img_up"}.get(
                part[:-2], f"conv{part[1:]}"
            )
            name = f"level{network.levels + 1 - int(level[1:])}_{theirs}_{kind}"
        value = weight
        if "_up" in name and weight.ndim == 4:
            value = weight.swapaxes(2, 3)
        params.append({"name": name, "value": value, "learningRate": 1.0})
    scipy.io.savemat(tmp_path / "LapSRN_x2.mat", {"net": {"params": params, "layers": []}})
    found = imported(tmp_path / "LapSRN_x2.mat", "lapsrn")
    assert (found.network, found.scales) == (network, network.scales)
    assert_equal(found, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["some.h5", "some.weights.h5"])
@pytest.mark.parametrize("network", ["srcnn", "vdsr"])
def test_what_keras_saves_computes_the_same(network, name, tmp_path):
    import keras

    layers = [(64, 9), (32, 5), (1, 5)] if network == "srcnn" else [*[(64, 3)] * 19, (1, 3)]
    convolutions = [
        keras.layers.Conv2D(
            width, size, padding="same", activation="relu" if n < len(layers) else None,
            bias_initializer="random_normal",
        )
        for n, (width, size) in enumerate(layers, 1)
    ]  # fmt: skip
    theirs = keras.Sequential([keras.Input((None, None, 1)), *convolutions])
    (theirs.save_weights if "weights" in name else theirs.save)(tmp_path / name)
    imported(tmp_path / name, network)
    images = RNG.random((1, 20, 24, 1), np.float32)
    expected = theirs(images).numpy() + (images if network == "vdsr" else 0)
    output = load_model(str(tmp_path / "out.npz"))(images, 2)
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_fsrcnn_with_zeros_at_the_border(scale, tmp_path):
    """PyTorch's ConvTranspose2d(56, 1, 9, scale, padding=4, output_padding=scale - 1)."""
    network = Fsrcnn(1, channel_slopes=True, zero_padding=True)
    weights = random_weights(network)
    images = maps = RNG.random((1, 7, 9, 1), np.float32)
    for n in range(1, 8):
        maps = tf.nn.conv2d(maps, weights[f"w{n}"], 1, "SAME").numpy() + weights[f"b{n}"]
        maps = np.where(maps > 0, maps, weights[f"a{n}"] * maps)
    full = np.zeros((6 * scale + 9 + scale, 8 * scale + 9 + scale))
    for y, x in np.ndindex(7, 9):
        place = slice(y * scale, y * scale + 9), slice(x * scale, x * scale + 9)
        full[place] += np.tensordot(weights["w8"][..., 0], maps[0, y, x], 1)
    expected = full[4 : 4 + 7 * scale, 4 : 4 + 9 * scale] + weights["b8"]
    np.testing.assert_allclose(network(weights, images, scale)[0, ..., 0], expected, atol=1e-5)


def test_a_checkpoint_of_pytorch_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    network, modules, slopes = TORCH["yjn870/FSRCNN-pytorch"]
    weights = random_weights(network)
    tensors = as_torch(network, weights, modules, slopes)
    state = {f"module.{name}": torch.from_numpy(array) for name, array in tensors.items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, tmp_path / "some.pth")
    assert_equal(imported(tmp_path / "some.pth", "fsrcnn"), weights)


class Thing:
    """What must not be made of a file."""


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({"model": Thing()}, tmp_path / "some.pth")
    with pytest.raises(UsageError, match=r"some.pth is no file of tensors alone: "):
        imported(tmp_path / "some.pth", "vdsr")


def test_other_files_are_refused(tmp_path):
    network, modules, slopes = TORCH["yjn870/SRCNN-pytorch"]
    tensors = as_torch(network, random_weights(network), modules, slopes)
    path = tmp_path / "some.safetensors"
    safetensors.save_file(tensors, path)
    with pytest.raises(
        UsageError, match=r"is not vdsr as it is known here \(from twtygqyy/.*conv1"
    ):
        imported(path, "vdsr")
    safetensors.save_file(tensors | {"conv4.weight": np.zeros((1, 1, 3, 3))}, path)
    with pytest.raises(UsageError, match="is not srcnn as it is known here"):
        imported(path, "srcnn")
    tensors["conv2.weight"] = np.zeros((32, 64, 7, 7), np.float32)
    safetensors.save_file(tensors, path)
    with pytest.raises(UsageError, match=r"conv2.weight \[7, 7, 64, 32\] is not the w2 \[1, 1, 64"):
        imported(path, "srcnn")
    for name, content in (("text.safetensors", b"text"), ("text.mat", b"text"), ("text.h5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name):
            imported(tmp_path / name, "srcnn")
    with pytest.raises(UsageError, match=r"only .pth, .pt, .* are read here"):
        imported(tmp_path / "some.txt", "srcnn")
    with pytest.raises(UsageError, match="cannot be read"):
        imported(tmp_path / "absent.h5", "srcnn")


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(
        UsageError, match=r"torch, which is not installed: pip install .*\[import\]"
    ):
        imported(tmp_path / "some.pth", "srcnn")


def test_scales_that_the_layers_cannot_make_are_refused(tmp_path):
    network, modules, slopes = TORCH["yjn870/ESPCN-pytorch"]
    tensors = as_torch(network, random_weights(network), modules, slopes)
    safetensors.save_file(tensors, tmp_path / "some.safetensors")
    with pytest.raises(UsageError, match="these weights have no x4"):
        imported(tmp_path / "some.safetensors", "espcn", "--scales", "4")


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "out.npz").write_bytes(b"mine")
    safetensors.save_file({"w": np.zeros(1, np.float32)}, tmp_path / "some.safetensors")
    with pytest.raises(UsageError, match="is there already: use --overwrite"):
        imported(tmp_path / "some.safetensors", "srcnn")
    assert (tmp_path / "out.npz").read_bytes() == b"mine"
