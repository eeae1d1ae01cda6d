import dataclasses
import json

import pytest

from pipelines.cli import UsageError
from pipelines.manifest import Manifest
from trainer.config import Config, build
from trainer.run_folder import RunFolder


@pytest.fixture
def run(tmp_path, dataset):
    return RunFolder(tmp_path / "run", Config(), str(dataset), Manifest.load(str(dataset)))


def changed(run, **fields):
    return dataclasses.replace(run, config=dataclasses.replace(run.config, **fields))


def test_a_begun_folder_goes_on_with_the_same_configuration(run):
    run.check()
    run.begin()
    run.check()
    assert build(str(run.path / "config.yaml"), {}) == run.config


def test_another_configuration_is_refused_with_both_values(run):
    run.begin()
    other = changed(run, learning_rate=0.5, scales=(2,))
    with pytest.raises(UsageError) as error:
        other.check()
    assert "learning_rate 0.0001 there, 0.5 here" in str(error.value)
    assert "scales [2, 3, 4] there, [2] here" in str(error.value)
    assert "--restart" in str(error.value)


def test_more_steps_go_on(run):
    run.begin()
    longer = changed(run, steps=200_000, checkpoint_every=7)
    longer.check()
    longer.begin()
    assert build(str(run.path / "config.yaml"), {}).steps == 200_000


def test_more_steps_are_refused_where_the_learning_rate_depends_on_them(run):
    annealed = changed(run, schedule="cosine")
    annealed.begin()
    with pytest.raises(UsageError, match="steps 100000 there, 5 here"):
        changed(annealed, steps=5).check()


def test_another_dataset_is_refused_and_a_moved_one_is_not(run):
    run.begin()
    dataclasses.replace(run, directory="/elsewhere").check()
    shards = dict(list(run.manifest.shards.items())[1:])
    other = dataclasses.replace(run, manifest=dataclasses.replace(run.manifest, shards=shards))
    with pytest.raises(UsageError, match=r"dataset [0-9a-f]{16} there, [0-9a-f]{16} here"):
        other.check()


def test_what_is_no_run_folder_is_refused_and_left_as_it_is(run):
    run.path.mkdir()
    run.check()
    (run.path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="is not a run folder and not empty"):
        run.check()
    assert [path.name for path in run.path.iterdir()] == ["thesis.tex"]
    file = dataclasses.replace(run, path=run.path / "thesis.tex")
    with pytest.raises(UsageError, match="is not a folder"):
        file.check()


def test_a_damaged_folder_is_refused(run):
    run.begin()
    (run.path / "dataset.json").write_text(json.dumps([]))
    with pytest.raises(UsageError, match="use --restart"):
        run.check()


def test_an_old_run_is_set_aside_under_the_first_free_name(run):
    assert run.set_aside() is None
    for number in (1, 2):
        run.begin()
        assert run.set_aside() == run.path.with_name(f"run.old-{number}")
    assert not run.path.exists()
