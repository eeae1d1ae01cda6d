"""What only a GPU shows: run by make test-gpu."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from trainer.checkpoints import Checkpoints
from trainer.config import Config
from trainer.precision import has_fast_bfloat16

GPUS = tf.config.list_physical_devices("GPU")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU on this machine"),
]


@pytest.fixture
def train(dataset, tmp_path):
    """train(option, ...) -> the run's folder and its records; in a process of its own."""

    def train(*options):
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        command = [sys.executable, "-m", "trainer", "--data", str(dataset), "--output", str(run)]
        recipe = ["--patch-size", "40", "--log-every", "10", "--seed", "3"]
        process = subprocess.run(
            [*command, *recipe, *options], capture_output=True, text=True, env=dict(os.environ)
        )
        assert process.returncode == 0, process.stderr
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return run, [json.loads(line) for line in lines]

    return train


def losses(records):
    return [record["train/mse"] for record in records]


def test_auto_precision_is_what_the_gpu_has():
    expected = "bfloat16" if has_fast_bfloat16() else "float32"
    assert Config(model="vdsr").resolved().precision == expected


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_vdsr_learns_in_every_precision(train, precision):
    """Compiled by XLA, as every step on a GPU is."""
    options = ["--config", "vdsr", "--batch-size", "8", "--steps", "60", "--clip-norm", "1"]
    run, records = train(*options, "--precision", precision)
    assert losses(records)[-1] < losses(records)[0]
    assert np.isfinite(Checkpoints(str(run)).last().weights["w1"]).all()
    print(f"\nvdsr 8x40x40 {precision}: {records[-1]['train/images_per_s']:.0f} images/s")


def test_float32_on_a_gpu_has_the_losses_of_the_cpu(train, monkeypatch):
    """Up to TensorFloat-32, whose products have 10 bits: 2 % over 20 steps."""
    options = ["--config", "srcnn", "--batch-size", "8", "--steps", "20", "--precision", "float32"]
    _, on_gpu = train(*options, "--replicas", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, on_cpu = train(*options)
    np.testing.assert_allclose(losses(on_gpu), losses(on_cpu), rtol=0.02)


@pytest.mark.skipif(len(GPUS) < 2, reason="needs two GPUs")
def test_two_gpus_have_the_losses_of_one(train):
    """Reduced by NCCL; the tolerance is that of the order of summation in TensorFloat-32."""
    options = ["--config", "srcnn", "--batch-size", "8", "--steps", "50", "--precision", "float32"]
    _, one = train(*options, "--replicas", "1")
    _, two = train(*options, "--replicas", "2")
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-3)


def test_memory_grows_as_needed(train):
    """A small run leaves most of the memory to others: two of them fit beside each other."""
    script = (
        "from trainer.distribution import make_strategy; import tensorflow as tf; "
        "make_strategy(1); tf.constant(1.0) + 1.0; "
        "print(tf.config.experimental.get_memory_growth(tf.config.list_physical_devices('GPU')[0]))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert output.stdout.strip() == "True", output.stderr
