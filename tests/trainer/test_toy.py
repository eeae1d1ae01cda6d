"""The network that CONTRIBUTING.md adds, taken from there, on all its ways."""

import csv
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from evaluation.__main__ import main as evaluate
from evaluation.upscale import main as upscale
from tests.support import REPOSITORY
from trainer import config
from trainer.__main__ import main as train
from trainer.export_to import main as export_to
from trainer.models import NETWORKS, network
from trainer.trained import load_model

RECIPE = """
model: toy
scales: [2]
patch_size: 16
batch_size: 4
steps: 30
learning_rate: 3.0e-3
validate_every: 10
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """In the registry, with a recipe."""
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = "from dataclasses import dataclass\nfrom typing import ClassVar, Literal\n"
    scope = {**vars(network), "__name__": "trainer.models.toy"}
    exec(names + code, scope)
    monkeypatch.setitem(NETWORKS, "toy", scope["Toy"])
    shutil.copytree(config.RECIPES, tmp_path / "configs")
    (tmp_path / "configs/toy.yaml").write_text(RECIPE)
    monkeypatch.setattr(config, "RECIPES", tmp_path / "configs")
    return scope["Toy"]


@pytest.mark.slow
def test_a_network_of_ones_own(toy, dataset, tmp_path, crops):
    run = str(tmp_path / "run")
    train(["--model", "toy", "--data", str(dataset), "--output", run])
    assert isinstance(load_model(run).network, toy)
    assert "x2" in tf.saved_model.load(f"{run}/model/saved_model").signatures

    (tmp_path / "photos").mkdir()
    crops(1, 40)[0].save(tmp_path / "photos/some.png")
    scored = ["--images", str(tmp_path / "photos"), "--models", run, "--scales", "2"]
    evaluate([*scored, "--output", str(tmp_path / "results.csv")])
    with (tmp_path / "results.csv").open() as file:
        psnrs_db = {row["model"]: float(row["psnr_db"]) for row in csv.DictReader(file)}
    assert psnrs_db.keys() == {"bicubic", "run"}
    assert psnrs_db["run"] > 10

    picture = str(tmp_path / "photos/some.png")
    upscale([picture, str(tmp_path / "large.png"), "--model", run])
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (80, 80)

    export_to([run, "--to", "tflite", "--scale", "2", str(tmp_path / "toy.tflite")])
    interpreter = tf.lite.Interpreter(str(tmp_path / "toy.tflite"))
    interpreter.resize_tensor_input(0, [1, 9, 7, 3])
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.zeros((1, 9, 7, 3), np.float32))
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    assert interpreter.get_tensor(output["index"]).shape == (1, 18, 14, 3)
