"""Two workers as real processes over gRPC, and one of them lost."""

import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from trainer.checkpoints import Checkpoints

RECIPE = [
    *("--config", "srcnn", "--identity-start", "--patch-size", "20", "--batch-size", "4"),
    *("--learning-rate", "1e-3", "--scale-per", "crop", "--augment", "--average", "0.9"),
    *("--log-every", "10", "--validate-every", "1000", "--checkpoint-every", "10"),
]

pytestmark = pytest.mark.slow


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@pytest.fixture
def start(dataset, environment):
    """Starts a training: start(run, option, ..., TF_CONFIG=...)."""
    started = []

    def start(run, *more, **others):
        command = [sys.executable, "-m", "trainer", "--data", str(dataset), "--output", str(run)]
        process = subprocess.Popen(
            [*command, *RECIPE, *more],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **others},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def start_workers(start):
    """The same as two workers."""

    def start_workers(run, *more):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        tasks = [{"type": "worker", "index": index} for index in (0, 1)]
        configs = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
        return [start(run, *more, TF_CONFIG=json.dumps(config)) for config in configs]

    return start_workers


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/mse"] for line in lines]


def test_two_workers_have_the_losses_of_two_replicas(start, start_workers, tmp_path):
    """Up to the order of float32 summation: 1e-5 of the loss over 50 steps.

    They begin where the first has set another run aside.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    process = start(one, "--steps", "50", "--replicas", "2")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    shutil.copytree(one, two)
    workers = start_workers(two, "--steps", "50", "--restart")
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    assert losses(tmp_path / "two.old-1") == losses(one)
    assert len(losses(two)) == 5
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    mine, theirs = (Checkpoints(str(run)).last().average for run in (one, two))
    for name, average in mine.items():
        np.testing.assert_allclose(average, theirs[name], atol=1e-5)


def test_a_lost_worker_ends_the_job_which_goes_on_from_its_checkpoint(start_workers, tmp_path):
    run = tmp_path / "run"
    chief, other = start_workers(run, "--steps", "100000")
    while not (run / "checkpoints/step-00000010.npz").exists():
        assert chief.poll() is None, chief.stderr.read()
        time.sleep(0.01)
    other.kill()
    other.communicate()
    _, errors = chief.communicate()
    assert chief.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("failed: another worker is gone; start all of them again"), errors
    step = Checkpoints(str(run)).last().step
    workers = start_workers(run, "--steps", str(step + 20))
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    assert Checkpoints(str(run)).last().step == step + 20
