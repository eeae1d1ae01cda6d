"""Every network of the registry, from its recipe to a picture."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from evaluation.__main__ import main as evaluate
from evaluation.pictures import Picture
from evaluation.protocols import PROTOCOLS
from evaluation.upscale import main as upscale
from pipelines.command.cli import UsageError
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.options import Degradation
from pipelines.pictures.resampling import matlab_bicubic_matrix, resize
from trainer.__main__ import main
from trainer.checkpoints import Checkpoints
from trainer.config import Config
from trainer.dataset import Split
from trainer.input import training_batches
from trainer.models import NETWORKS
from trainer.trained import EVERY_SCALE, load_model

SMALL = [
    *("--patch-size", "16", "--patches-per-crop", "2", "--batch-size", "2"),
    *("--no-scale-augment", "--log-every", "1", "--validation-crops", "1"),
]


# One of each kind: of the enlarged picture, with slopes of its own, of many outputs. A step of the
# others takes as long to trace, and their checkpoints hold the same.
RESUMED = {"srcnn", "fsrcnn-s", "lapsrn"}


def train(data, run, *options):
    main(["--data", str(data), "--output", str(run), *SMALL, *options])


def arrays(run):
    last = Checkpoints(str(run)).last()
    return [[*part.values()] for part in (last.weights, *last.slots, last.average)]


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_goes_on_and_is_used(name, dataset, crops, tmp_path, capsys):
    run = tmp_path / "run"
    recipe = ["--config", name, "--scales", "2", "--steps", "3", "--checkpoint-every", "1"]
    train(dataset, run, *recipe)
    if name in RESUMED:
        whole = arrays(run)
        (run / "checkpoints/step-00000003.npz").unlink()
        shutil.rmtree(run / "model")
        train(dataset, run, *recipe)
        for one, other in zip(whole, arrays(run), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))

    model = load_model(str(run))
    assert (model.network.name, model.scales) == (name, (2,))
    last = Checkpoints(str(run)).last()
    for part in (model.weights[EVERY_SCALE], last.weights, *last.slots):
        assert {key: array.shape for key, array in part.items()} == model.network.shapes
    saved = tf.saved_model.load(str(run / "model/saved_model"))
    inside = "lr_x2" if model.network.takes == "lr" else "upscaled"
    images = np.random.default_rng(0).random((1, 11, 14, model.network.channels), np.float32)
    (output,) = saved.signatures[inside](images=tf.constant(images)).values()
    np.testing.assert_allclose(output, model(images, 2), atol=1e-5)

    photo = np.asarray(crops(1, 40)[0])[:30]
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos/some.png")
    (sr,) = saved.signatures["x2"](lr=tf.constant(photo[None])).values()
    picture = str(tmp_path / "photos/some.png")
    upscale([picture, str(tmp_path / "large.png"), "--model", str(run)])
    enlarged = np.asarray(Image.open(tmp_path / "large.png"))
    # The colour's bicubic is clipped once more in the graph.
    assert np.mean(np.abs(enlarged.astype(int) - sr[0].numpy()) > 1) < 0.01

    scored = ["--models", str(run), "--scales", "2", "--output", str(tmp_path / "results.csv")]
    protocol = "paper-rgb" if model.network.channels == 3 else "paper"
    evaluate(["--images", str(tmp_path / "photos"), "--protocol", protocol, *scored])
    evaluate(["--images", str(tmp_path / "photos"), *scored])
    assert "run" in capsys.readouterr().out


@pytest.mark.parametrize("lr", ["stored", "luma", "rgb"])
def test_lr_patches_lie_on_the_hr_patches(lr, make_dataset, crops):
    """A batch's HR made small is its LR, but for what lies outside the patch."""
    dataset = str(make_dataset({"train": crops(4, 48)}, degradation=Degradation.BICUBIC))
    split = Split.of(Manifest.load(dataset), dataset, "train")
    model, channels, width = ("pan", "rgb", 3) if lr == "rgb" else ("fsrcnn", "y", 1)
    config = Config(
        model=model, channels=channels, lr=lr, scales=(3,), patch_size=30, batch_size=24,
        augment=True,
    )  # fmt: skip
    inputs, targets, _ = next(training_batches(split, config, 0).as_numpy_iterator())
    assert (inputs.shape, targets.shape) == ((24, 10, 10, width), (24, 30, 30, width))
    for given, target in zip(inputs, targets, strict=True):
        small = resize(target.astype(np.float64), 10, 10, matlab_bicubic_matrix)
        errors = np.abs(given - small)[3:-3, 3:-3]
        if lr == "luma":
            assert errors.max() < 1e-5
        else:  # rounded and clipped twice, channel by channel
            assert errors.mean() < 1 / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scales", "2,3"], "fsrcnn takes the LR picture and is trained for one scale"),
        (["--patch-size", "16", "--scales", "3"], "patch_size 16 has no whole LR at x3: use 15"),
        (["--lr", "stored", "--patch-size", "0"], "of 50 px have no whole LR at x3: use one bu"),
        (["--lr", "stored", "--patch-size", "15"], r"--crop-size 48"),
        (["--lr", "rgb"], "lr rgb is for networks of channels rgb"),
        (["--config", "pan", "--scales", "2,4"], "pan takes the LR picture and is trained for one"),
    ],
)
def test_what_has_no_whole_lr_is_refused(options, message, make_dataset, crops, tmp_path):
    data = make_dataset({"train": crops(2, 50)})
    recipe = ["--config", "fsrcnn", "--scales", "3", "--no-scale-augment"]
    with pytest.raises(UsageError, match=message):
        main(["--data", str(data), "--output", str(tmp_path / "run"), *recipe, *options])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_crop_without_a_whole_lr_is_not_scored(make_dataset, crops, tmp_path):
    train(make_dataset({"train": crops(2, 48)}), tmp_path / "run", "--config", "fsrcnn",
          "--scales", "3", "--patch-size", "15", "--steps", "1")  # fmt: skip
    photo = tmp_path / "photos"
    photo.mkdir()
    crops(1, 50)[0].save(photo / "some.png")
    scored = ["--images", str(photo), "--models", str(tmp_path / "run"), "--scales", "3"]
    with pytest.raises(UsageError, match=r"some.png: run makes 48x48 pixels .* HR has 50x50"):
        evaluate([*scored, "--output", str(tmp_path / "results.csv")])


@pytest.mark.slow
def test_rgb_made_small_is_what_evaluation_gives_networks(make_dataset, crops):
    """By protocol paper-rgb, in 8 bits after each direction; the dataset's own LR is another."""
    (crop,) = crops(1, 48)
    dataset = str(make_dataset({"train": [crop]}, degradation=Degradation.ARTICLE))
    split = Split.of(Manifest.load(dataset), dataset, "train")
    picture = Picture("some", np.asarray(crop))
    for model, scale in (("edsr-baseline", 2), ("pan", 3), ("vdsr", 4)):
        config = Config(model=model, lr="rgb", scales=(scale,), batch_size=1)
        inputs, targets, _ = next(training_batches(split, config, 0).as_numpy_iterator())
        expected = PROTOCOLS["paper-rgb"].sample(picture, scale).network_input("rgb", config.takes)
        assert np.mean(np.abs(inputs[0] - expected) > 1e-4) < 0.01  # halves, rounded in float32
        assert np.abs(inputs[0] - expected).max() < 1.01 / 255
        np.testing.assert_array_equal(np.round(targets[0] * 255), np.asarray(crop))
