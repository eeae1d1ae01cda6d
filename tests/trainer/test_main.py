"""The whole command, in this process and, where it is killed or has replicas, in others."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pipelines.command.cli import Interrupted, UsageError, WorkError
from trainer.__main__ import main
from trainer.checkpoints import Checkpoints
from trainer.config import build, read_values
from trainer.distribution import Workers
from trainer.models import NETWORKS
from trainer.monitors import MetricsLog, Validation
from trainer.trained import EVERY_SCALE, load_model

SMALL = [
    *(
        "--config",
        "srcnn",
        "--scales",
        "2,3",
        "--identity-start",
        "--patch-size",
        "20",
        "--batch-size",
        "4",
    ),
    *("--learning-rate", "1e-3", "--scale-per", "crop", "--augment"),
    *("--log-every", "10", "--validate-every", "50", "--checkpoint-every", "10"),
]
STEPS = 120


def arguments(dataset, run, *more):
    return ["--data", str(dataset), "--output", str(run), *SMALL, "--steps", str(STEPS), *more]


@pytest.fixture
def start(environment):
    """Starts a training: start(arguments)."""

    def start(argv):
        command = [sys.executable, "-m", "trainer", *argv]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    return start


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(records):
    return [{k: v for k, v in r.items() if k != "train/images_per_s"} for r in records]


def assert_same_run(one, other):
    """Weights and optimizer bit for bit, and what was measured on the way."""
    mine, theirs = Checkpoints(str(one)).last(), Checkpoints(str(other)).last()
    assert mine.step == theirs.step == STEPS
    for a, b in zip([mine.weights, *mine.slots], [theirs.weights, *theirs.slots], strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert load_model(str(one)).weights_sha256 == load_model(str(other)).weights_sha256
    assert without_times(metrics(one)) == without_times(metrics(other))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset):
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    main(arguments(dataset, run))
    return run


@pytest.mark.slow
def test_a_run_leaves_what_the_contract_names(undisturbed):
    assert {path.name for path in undisturbed.iterdir()} == {
        *("config.yaml", "dataset.json", "lock", "metrics.jsonl"),
        *("checkpoints", "events", "model"),
    }
    kept = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert kept == ["best.npz", *(f"step-00000{step}.npz" for step in (100, 110, 120))]
    description = load_model(str(undisturbed)).description
    assert (description.architecture, description.channels) == ("srcnn", "rgb")
    assert (description.scales, description.degradation) == ((2, 3), "article")


@pytest.mark.slow
def test_losses_and_scores_are_recorded(undisturbed):
    records = metrics(undisturbed)
    assert [record["step"] for record in records] == list(range(10, STEPS + 1, 10))
    assert np.mean([r["train/mse"] for r in records[-5:]]) < records[0]["train/mse"]
    validated = [record for record in records if "validation/mse" in record]
    assert [record["step"] for record in validated] == [50, 100, 120]
    for scale in (2, 3):
        assert validated[0][f"validation/bicubic_psnr_x{scale}"] > 15
        assert validated[0][f"validation/psnr_x{scale}"] > 10


@pytest.mark.slow
def test_the_best_validation_is_exported(undisturbed):
    def mean(record):
        return np.mean([record[f"validation/psnr_x{scale}"] for scale in (2, 3)])

    best = max((r for r in metrics(undisturbed) if "validation/mse" in r), key=mean)
    checkpoint = Checkpoints(str(undisturbed)).best()
    assert checkpoint.step == best["step"]
    assert checkpoint.best_psnr_db == pytest.approx(mean(best))
    exported = np.load(undisturbed / "model/weights.npz")["w1"]
    np.testing.assert_array_equal(exported, checkpoint.weights["w1"])


@pytest.mark.slow
def test_a_run_can_begin_with_the_weights_of_another(dataset, undisturbed, tmp_path):
    """A step that changes nothing gives them back."""
    tiny = ["--from", str(undisturbed), "--steps", "1", "--learning-rate", "1e-12"]
    main(arguments(dataset, tmp_path / "tuned", *tiny))
    old, new = (
        load_model(str(run)).weights[EVERY_SCALE] for run in (undisturbed, tmp_path / "tuned")
    )
    assert all(np.allclose(old[name], new[name], atol=1e-6) for name in old)


@pytest.mark.slow
def test_weights_of_another_network_to_begin_with_leave_no_run(dataset, undisturbed, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UsageError, match=f"--from {undisturbed} has the weights"):
        main(arguments(dataset, run, "--from", str(undisturbed), "--channels", "y"))
    assert not run.exists()


@pytest.mark.slow
def test_an_unfinished_run_is_scored_by_its_best_checkpoint(undisturbed, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "model")
    model, best = load_model(str(run)), Checkpoints(str(undisturbed)).best()
    assert f"is not finished: this is its checkpoint of step {best.step} of 120" in caplog.text
    weights = model.weights[EVERY_SCALE]
    assert all(np.array_equal(array, best.result[name]) for name, array in weights.items())
    assert (model.name, model.description.scales) == ("run", (2, 3))


@pytest.mark.slow
def test_a_finished_run_says_so(undisturbed, dataset, caplog):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    with caplog.at_level("INFO"):
        main(arguments(dataset, undisturbed))
    assert f"already trained for {STEPS} steps" in caplog.text
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_steps_and_its_own_configuration(
    dataset, undisturbed, tmp_path
):
    run = tmp_path / "run"
    main(arguments(dataset, run, "--steps", "50"))
    config = str(undisturbed / "config.yaml")
    main(["--data", str(dataset), "--output", str(run), "--config", config])
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("lost_at", "finished"), [(3, True), (2, False)])
def test_a_worker_that_leaves_costs_no_finished_run(
    lost_at, finished, dataset, tmp_path, monkeypatch
):
    """The third time that workers wait for one another is after the chief's last file."""
    waits = []

    def begin(self, strategy, begin=Workers.__init__):
        begin(self, strategy)
        self.count = 2

    def leave(self):
        waits.append(self)
        if len(waits) == lost_at:
            raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: closed")

    monkeypatch.setattr(Workers, "__init__", begin)
    monkeypatch.setattr(Workers, "wait", leave)
    gone = pytest.raises(WorkError, match="another worker is gone")
    with contextlib.nullcontext() if finished else gone:
        main(["--data", str(dataset), "--output", str(tmp_path / "run"), *SMALL, "--steps", "10"])
    assert len(waits) == lost_at


@pytest.mark.slow
def test_restart_keeps_the_old_run(dataset, tmp_path):
    run = tmp_path / "run"
    main(arguments(dataset, run, "--steps", "3"))
    main(arguments(dataset, run, "--steps", "3", "--seed", "1", "--restart"))
    seeds = [
        re.search(r"seed: (\d)", (folder / "config.yaml").read_text())[1]
        for folder in (run, tmp_path / "run.old-1")
    ]
    assert seeds == ["1", "0"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 3)])
def test_a_stopped_run_ends_with_the_weights_of_an_undisturbed_one(
    number, status, start, dataset, undisturbed, tmp_path
):
    run = tmp_path / "run"
    process = start(arguments(dataset, run))
    while not (run / "checkpoints/step-00000010.npz").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    os.kill(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == status
    if status == 3:
        assert re.match(r"interrupted: checkpoint at step \d+ of 120 in ", errors.splitlines()[-1])
    assert 0 < Checkpoints(str(run)).last().step < STEPS
    main(arguments(dataset, run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_ctrl_c_stops_at_a_checkpoint(dataset, tmp_path, monkeypatch):
    save, handler = Checkpoints.save, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        Checkpoints, "save", lambda *args: (save(*args), os.kill(os.getpid(), signal.SIGINT))
    )
    with pytest.raises(Interrupted, match=r"checkpoint at step 10 of 120 in .*the same command"):
        main(arguments(dataset, tmp_path / "run"))
    assert Checkpoints(str(tmp_path / "run")).last().step == 10
    assert signal.getsignal(signal.SIGINT) is handler


def interrupt_in_validation(monkeypatch):
    """Ctrl-C at the second crop of the first validation; the crops that were scored."""
    calls = []

    def apply(self, weights, upscaled, apply=Validation._super_resolve):
        calls.append(weights)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return apply(self, weights, upscaled)

    monkeypatch.setattr(Validation, "_super_resolve", apply)
    return calls


@pytest.mark.slow
def test_a_validation_is_broken_off_and_made_up_for(dataset, undisturbed, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        calls = interrupt_in_validation(patched)
        with pytest.raises(Interrupted, match="checkpoint at step 50 of 120"):
            main(arguments(dataset, run))
        assert len(calls) == 2
    assert metrics(run)[-1]["step"] == 40
    main(arguments(dataset, run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_the_last_validation_is_broken_off_and_made_up_for(dataset, tmp_path, monkeypatch):
    run, last = tmp_path / "run", ["--steps", "20"]
    with monkeypatch.context() as patched:
        interrupt_in_validation(patched)
        with pytest.raises(Interrupted, match="checkpoint at step 20 of 20"):
            main(arguments(dataset, run, *last))
    main(arguments(dataset, run, *last))
    assert [record["step"] for record in metrics(run)] == [10, 20]
    assert Checkpoints(str(run)).best().step == 20


@pytest.mark.slow
def test_a_model_of_fewer_steps_is_not_the_end(dataset, tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    main(arguments(dataset, run, "--steps", "20"))
    export = tmp_path / "run/model/weights.npz"
    before = export.stat().st_ino
    with monkeypatch.context() as patched:
        interrupt_in_validation(patched)
        with pytest.raises(Interrupted, match="checkpoint at step 40 of 40"):
            main(arguments(dataset, run, "--steps", "40"))
    main(arguments(dataset, run, "--steps", "40"))
    assert metrics(run)[-1]["step"] == 40
    assert export.stat().st_ino != before
    with caplog.at_level("INFO"):
        main(arguments(dataset, run, "--steps", "40"))
    assert "already trained for 40 steps" in caplog.text


@pytest.mark.slow
def test_a_record_that_a_kill_kept_from_its_file_is_in_the_checkpoint(
    dataset, undisturbed, tmp_path, monkeypatch
):
    run = tmp_path / "run"

    def die(self, step, values, write=MetricsLog.write):
        if step == 50:
            raise KeyboardInterrupt
        write(self, step, values)

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "write", die)
        with pytest.raises(KeyboardInterrupt):
            main(arguments(dataset, run))
    assert (Checkpoints(str(run)).last().step, metrics(run)[-1]["step"]) == (50, 40)
    main(arguments(dataset, run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_metrics_that_cannot_be_written_cost_no_training(dataset, undisturbed, tmp_path, caplog):
    run = tmp_path / "run"
    main(arguments(dataset, run, "--steps", "10"))
    shutil.rmtree(run / "events")
    (run / "events").write_text("")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    main(arguments(dataset, run))
    warnings = [line for line in caplog.messages if "the training goes on" in line]
    assert len(warnings) == 2
    assert load_model(str(run)).weights_sha256 == load_model(str(undisturbed)).weights_sha256


@pytest.mark.slow
def test_a_signal_ends_a_training_within_seconds(start, dataset, tmp_path):
    """Twice what is promised: the input's destructor alone would wait as long as it has run."""
    run = tmp_path / "run"
    process = start([*arguments(dataset, run), "--steps", "100000", "--validation-crops", "1"])
    while not (run / "checkpoints/step-00000400.npz").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 3, errors


@pytest.mark.slow
def test_two_replicas_have_the_losses_of_one(start, dataset, undisturbed, tmp_path):
    """Up to the order of float32 summation: 1e-5 of the loss over 50 steps."""
    run = tmp_path / "run"
    process = start(arguments(dataset, run, "--replicas", "2", "--steps", "50"))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    losses = [[r["train/mse"] for r in metrics(folder)[:5]] for folder in (run, undisturbed)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.slow
def test_vdsr_trains_by_its_papers_recipe(dataset, tmp_path):
    """SGD, clipping, weight decay, Y, mixed scales."""
    small = ["--patch-size", "16", "--patches-per-crop", "1", "--batch-size", "2", "--steps", "2"]
    run = tmp_path / "run"
    recipe = ["--config", "vdsr_paper", "--scales", "2,3"]
    main(["--data", str(dataset), "--output", str(run), *recipe, *small])
    description = load_model(str(run)).description
    assert (description.architecture, description.channels) == ("vdsr", "y")


@pytest.mark.slow
def test_bfloat16_trains(dataset, tmp_path):
    run = tmp_path / "run"
    main(arguments(dataset, run, "--steps", "20", "--precision", "bfloat16"))
    assert all(
        weight.dtype == np.float32 for weight in Checkpoints(str(run)).last().weights.values()
    )
    assert np.isfinite(metrics(run)[-1]["train/mse"])


@pytest.mark.slow
def test_without_validation_the_last_step_is_the_best(make_dataset, crops, tmp_path, caplog):
    data = make_dataset({"train": crops(4, 48)})
    main(arguments(data, tmp_path / "run", "--steps", "3"))
    assert "no validation split: the last step counts as the best" in caplog.text
    exported = np.load(tmp_path / "run/model/weights.npz")["w1"]
    np.testing.assert_array_equal(exported, Checkpoints(str(tmp_path / "run")).last().weights["w1"])


@pytest.mark.slow
def test_a_model_worse_than_bicubic_says_so_last(dataset, tmp_path, caplog):
    with caplog.at_level("INFO"):
        main(arguments(dataset, tmp_path / "run", "--steps", "1", "--no-identity-start"))
    assert caplog.messages[-1].startswith("it is worse than bicubic at every scale")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(dataset, tmp_path):
    with pytest.raises(WorkError, match=r"10 steps in a row up to .* a loss that is not finite"):
        main(arguments(dataset, tmp_path / "run", "--optimizer", "sgd", "--learning-rate", "1e9"))


@pytest.mark.slow
def test_a_broken_record_stops_the_run(make_dataset, crops, tmp_path):
    data = make_dataset({"train": crops(4, 48)})
    shard = next((data / "examples").glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(WorkError, match="the dataset cannot be read"):
        main(arguments(data, tmp_path / "run", "--steps", "3"))


@pytest.mark.parametrize("size", [0, 100, None])
def test_a_missing_or_truncated_shard_is_refused_before_anything_is_written(
    size, make_dataset, crops, tmp_path
):
    data = make_dataset({"train": crops(4, 48)})
    shard = next((data / "examples").glob("train-*"))
    if size is None:
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(UsageError, match=rf"is not complete: examples/{shard.name}: "):
        main(arguments(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model", "odd"],
            f"--model: must be one of {', '.join(NETWORKS)}, not 'odd'",
        ),
        (["--stepz", "3"], "unknown option --stepz: did you mean --steps"),
        (["--scales", "2,5"], "the dataset has scales 2,3,4 but not 5"),
        (["--scales", "1"], "--scales: must be a list such as 2,3,4"),
        (["--patch-size", "49"], "the dataset's crops are 48 px"),
        (["--config", "absent.yaml"], "there is no recipe absent.yaml"),
        (["--batch-size", "0"], "--batch-size: must be a whole number above 0"),
        (["--data", "absent"], "absent is not a finished dataset"),
        (["--data", "hdfs://host/set"], "only local folders and s3:// are read"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(options, message, dataset, tmp_path):
    with pytest.raises(UsageError, match=re.escape(message)):
        main(arguments(dataset, tmp_path / "run", *options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(tf.config.list_physical_devices("GPU") != [], reason="there is a GPU")
def test_a_model_without_a_gpu_is_trained_by_its_recipe_for_a_cpu(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    run = tmp_path / "run"
    options = ["--model", "vdsr", "--patch-size", "20", "--steps", "1"]
    main(["--data", str(dataset), "--output", str(run), *options])
    assert "no GPU here: the recipe is vdsr_article" in caplog.text
    begun, recipe = read_values(str(run / "config.yaml")), build("vdsr_article", {})
    assert begun["learning_rate"] == recipe.learning_rate != build("vdsr", {}).learning_rate


def test_a_model_or_a_recipe_is_needed(dataset, tmp_path):
    with pytest.raises(UsageError, match="--model or --config is needed"):
        main(["--data", str(dataset), "--output", str(tmp_path / "run")])


def test_an_empty_train_split_is_refused(make_dataset, crops, tmp_path):
    data = make_dataset({"validation": crops(1, 48)})
    with pytest.raises(UsageError, match=r"the train split .* --splits"):
        main(arguments(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_configuration_is_refused_and_the_run_left_as_it_is(undisturbed, dataset):
    with pytest.raises(UsageError, match="--seed 0, not 1"):
        main(arguments(dataset, undisturbed, "--seed", "1"))
    assert "seed: 0" in (undisturbed / "config.yaml").read_text()


@pytest.mark.slow
def test_a_refusal_is_one_line_and_status_2(start, dataset, tmp_path):
    process = start(arguments(dataset, tmp_path / "run", "--replicas", "3"))
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.splitlines()[-1] == (
        "error: a batch of 4 is no multiple of 3 (replicas x patches a crop): "
        "use --batch-size 3 or 6"
    )
    assert list(tmp_path.iterdir()) == []
