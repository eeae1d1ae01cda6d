import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command.cli import UsageError
from pipelines.dataset.manifest import Manifest
from trainer.config import Config, build
from trainer.run_folder import RunFolder


@pytest.fixture
def run(tmp_path, dataset):
    return RunFolder(str(tmp_path / "run"), Config(), str(dataset), Manifest.load(str(dataset)))


def begin(run):
    lock = run.lock()
    run.begin()
    lock.release()


def changed(run, **fields):
    return dataclasses.replace(run, config=dataclasses.replace(run.config, **fields))


def test_a_begun_folder_goes_on_with_the_same_configuration(run):
    run.check()
    begin(run)
    run.check()
    assert build(f"{run.path}/config.yaml", {}) == run.config


def test_another_configuration_is_refused_with_both_values(run):
    begin(run)
    other = changed(run, learning_rate=0.5, scales=(2,))
    with pytest.raises(UsageError) as error:
        other.check()
    assert "--learning-rate 0.0001, not 0.5" in str(error.value)
    assert "--scales 2,3,4, not 2" in str(error.value)
    assert "--restart" in str(error.value)


def test_more_steps_go_on(run):
    begin(run)
    longer = changed(run, steps=200_000, checkpoint_every=7)
    longer.check()
    begin(longer)
    assert build(f"{run.path}/config.yaml", {}).steps == 200_000


def test_more_steps_are_refused_where_the_learning_rate_depends_on_them(run):
    annealed = changed(run, schedule="cosine")
    begin(annealed)
    with pytest.raises(UsageError, match="--steps 100000, not 5"):
        changed(annealed, steps=5).check()


def test_another_dataset_is_refused_and_a_moved_one_is_not(run):
    begin(run)
    dataclasses.replace(run, directory="/elsewhere").check()
    shards = dict(list(run.manifest.shards.items())[1:])
    other = dataclasses.replace(run, manifest=dataclasses.replace(run.manifest, shards=shards))
    with pytest.raises(UsageError, match=r"another dataset \([0-9a-f]{16}, not [0-9a-f]{16}\)"):
        other.check()


def test_what_is_no_run_folder_is_refused_and_left_as_it_is(run):
    path = Path(run.path)
    path.mkdir()
    run.check()
    (path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="is not a run folder and not empty"):
        run.check()
    assert [file.name for file in path.iterdir()] == ["thesis.tex"]
    file = dataclasses.replace(run, path=f"{path}/thesis.tex")
    with pytest.raises(UsageError, match="is not a folder"):
        file.check()


def test_a_damaged_folder_is_refused(run):
    begin(run)
    Path(run.path, "dataset.json").write_text(json.dumps([]))
    with pytest.raises(UsageError, match="use --restart"):
        run.check()


def test_an_old_run_is_set_aside_under_the_first_free_name(run):
    assert run.set_aside() is None
    for number in (1, 2):
        begin(run)
        assert run.set_aside() == f"{run.path}.old-{number}"
    assert not Path(run.path).exists()


def test_a_folder_that_holds_a_lock_alone_is_no_old_run(run):
    with run.lock():
        assert run.set_aside() is None
    assert Path(run.path).exists()


def test_an_unreadable_configuration_is_refused(run):
    begin(run)
    path = Path(run.path, "config.yaml")
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"config\.yaml cannot be read"):
        run.check()


def test_two_trainings_in_one_folder_are_refused_by_the_firsts_process_number(run):
    script = (
        "import sys; from trainer.run_folder import Lock; lock = Lock(sys.argv[1]); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    Path(run.path).mkdir()
    command = [sys.executable, "-c", script, run.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=f"is being trained by process {other.pid}: "):
            run.lock()
        other.kill()
        other.wait()
        run.lock().release()


def test_auto_precision_is_what_it_was_when_the_run_began(run, monkeypatch):
    vdsr = changed(run, model="vdsr", precision="auto")
    for fast, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("trainer.config.has_fast_bfloat16", lambda fast=fast: fast)
        assert vdsr.resolved().config.precision == precision
    begin(changed(vdsr, precision="bfloat16"))
    assert vdsr.resolved().config.precision == "bfloat16"
    assert vdsr.resolved(restart=True).config.precision == "float32"
