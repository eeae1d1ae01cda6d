import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipelines.command.cli import WorkError
from trainer import npz
from trainer.checkpoints import Checkpoint, Checkpoints
from trainer.config import build
from trainer.models import NETWORKS
from trainer.models.srcnn import Srcnn
from trainer.step import initial_checkpoint
from trainer.trained import best_checkpoint


def checkpoint(step):
    shapes = Srcnn(1).shapes
    weights = {name: np.full(shape, step, np.float32) for name, shape in shapes.items()}
    slots = [{name: weight * factor for name, weight in weights.items()} for factor in (2, 3)]
    average = {name: weight / 3 for name, weight in weights.items()}
    health = np.array([0.1, 1 / 3, 2.0, 5.0], np.float32)
    return Checkpoint(step, weights, slots, average, health, [0.1, 1 / 3], 7, 2, 2, 25.5)


def assert_equal(one, other):
    for field in dataclasses.fields(Checkpoint):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        tf.nest.map_structure(np.testing.assert_array_equal, mine, theirs)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    Checkpoints(str(tmp_path)).save(checkpoint(5))
    assert_equal(Checkpoints(str(tmp_path)).last(), checkpoint(5))


@pytest.mark.parametrize("model", NETWORKS)
def test_the_order_of_many_weights_is_kept(model, tmp_path):
    start = initial_checkpoint(build(model, {}))
    Checkpoints(str(tmp_path)).save(start)
    back = Checkpoints(str(tmp_path)).last()
    assert_equal(back, start)
    assert [*back.weights] == [*back.slots[0]] == [*start.weights]


def test_there_may_be_none(tmp_path):
    assert Checkpoints(str(tmp_path)).last() is None
    assert Checkpoints(str(tmp_path)).best() is None


def test_the_last_three_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    for step in (999, 1_000, 99_999_999, 100_000_000):
        checkpoints.save(checkpoint(step))
    checkpoints.save_best(checkpoint(7))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.npz",
        "step-00001000.npz",
        "step-100000000.npz",
        "step-99999999.npz",
    ]
    assert checkpoints.last().step == 100_000_000
    assert checkpoints.best().step == 7


def test_a_half_written_file_is_never_picked_up(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(checkpoint(1))
    whole = (tmp_path / "checkpoints/step-00000001.npz").read_bytes()
    (tmp_path / "checkpoints/step-00000002.partial").write_bytes(whole[:100])
    assert checkpoints.last().step == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: b"", lambda data: b"x"])
def test_a_damaged_file_gives_way_to_the_one_before(damage, tmp_path, caplog):
    checkpoints = Checkpoints(str(tmp_path))
    for step in (1, 2):
        checkpoints.save(checkpoint(step))
    path = tmp_path / "checkpoints/step-00000002.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoints.last().step == 1
    assert "step-00000002.npz is damaged" in caplog.text


def test_nothing_but_damaged_files_is_an_error(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(checkpoint(1))
    (tmp_path / "checkpoints/step-00000001.npz").write_bytes(b"")
    with pytest.raises(WorkError, match="use --restart"):
        checkpoints.last()


def test_a_damaged_best_gives_way_to_the_last(tmp_path, caplog):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(checkpoint(2))
    checkpoints.save_best(checkpoint(1))
    path = tmp_path / "checkpoints/best.npz"
    path.write_bytes(path.read_bytes()[:-200])
    assert checkpoints.best() is None
    assert best_checkpoint(str(tmp_path)).step == 2
    assert "best.npz is damaged" in caplog.text
    assert "the last checkpoint takes its place" in caplog.text


def test_checkpoints_that_a_training_removes_meanwhile_are_looked_for_anew(
    tmp_path, monkeypatch, caplog
):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(checkpoint(1))

    def opened(path, opened=npz.opened):
        if path.endswith("00001.npz"):
            for step in (2, 3, 4):
                Checkpoints(str(tmp_path)).save(checkpoint(step))
        return opened(path)

    monkeypatch.setattr(npz, "opened", opened)
    assert checkpoints.last().step == 4
    assert caplog.text == ""
