import collections
import io
import json
import logging
import math

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from trainer.input import ValidationCrop
from trainer.models.vdsr import Vdsr
from trainer.monitors import MetricsLog, Pace, Validation

RNG = np.random.default_rng(0)


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_lines_of_json_and_tensorboard_events(tmp_path):
    log = MetricsLog(str(tmp_path), 0, {})
    log.write(10, {"train/mse": 0.5, "psnr": math.inf})
    log.close()
    assert records(tmp_path) == [{"step": 10, "train/mse": 0.5, "psnr": None}]
    assert events(tmp_path)["train/mse"] == [(10, 0.5)]


def events(run):
    """Tag -> [(step, value)] of what TensorBoard would show."""
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util

    found = collections.defaultdict(list)
    for path in (run / "events").glob("events.out.tfevents.*"):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = tensor_util.make_ndarray(value.tensor)
                found[value.tag].append((event.step, array.item() if array.ndim == 0 else array))
    return found


def test_validation_pictures_show_lr_bicubic_sr_and_hr_side_by_side(tmp_path):
    lr, upscaled = np.zeros((1, 8, 8, 1), np.float32), np.full((1, 8, 8, 1), 0.2, np.float32)
    hr = np.ones((8, 8, 1), np.float32)
    network = Vdsr(1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in network.shapes.items()}
    weights["b20"] += 0.4
    crops = [ValidationCrop(lr, upscaled, upscaled, hr)] * 9
    pictures = Validation(network, (2,), crops).pictures(weights)
    assert pictures[2].shape == (4, 8, 32, 1)
    levels = [pictures[2][0, 4, x, 0] for x in (4, 12, 20, 28)]
    assert levels == pytest.approx([0.0, 0.2, 0.6, 1.0])
    log = MetricsLog(str(tmp_path), 0, {})
    log.show(30, pictures)
    log.close()
    ((step, encoded),) = events(tmp_path)["validation x2: LR, bicubic, SR, HR"]
    assert step == 30
    assert encoded[:2].tolist() == [b"32", b"8"]
    shown = np.asarray(Image.open(io.BytesIO(encoded[2])))
    assert [shown[4, x] for x in (4, 12, 20, 28)] == pytest.approx([0, 51, 153, 255], abs=1)
    assert len(encoded) == 2 + 4


def test_records_of_steps_that_are_repeated_are_dropped(tmp_path):
    log = MetricsLog(str(tmp_path), 0, {})
    for step in (10, 20, 30):
        log.write(step, {"a": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')
    resumed = MetricsLog(str(tmp_path), 20, {})
    resumed.write(30, {"a": 2.0})
    assert [(r["step"], r["a"]) for r in records(tmp_path)] == [(10, 1), (20, 1), (30, 2)]


def test_validation_scores_bicubic_and_network_as_scikit_image_does():
    hr = np.round(RNG.random((2, 16, 16, 3)) * 255).astype(np.float32) / 255
    upscaled = np.clip(hr[:, None] + RNG.normal(0, 0.1, (2, 2, 16, 16, 3)), 0, 1).astype(np.float32)
    crops = [ValidationCrop(*crop) for crop in zip(*[upscaled] * 3, hr, strict=True)]
    network = Vdsr(3)
    weights = {name: np.zeros(shape, np.float32) for name, shape in network.shapes.items()}
    weights["b20"] += 0.1
    validation = Validation(network, (2, 3), crops)
    scores = validation(weights)
    for offset, found in ((0.0, validation.bicubic), (0.1, scores)):
        for number, scale in enumerate((2, 3)):
            expected = np.mean([_psnr(up[number] + offset, hr) for _, _, up, hr in crops])
            assert found.psnr_db[scale] == pytest.approx(expected, abs=1e-4)
        assert found.mse == pytest.approx(np.mean((upscaled + offset - hr[:, None]) ** 2), rel=1e-4)
    assert scores.mean_psnr_db == pytest.approx(np.mean(list(scores.psnr_db.values())))


def _psnr(sr, hr):
    levels = [np.round(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in (hr, sr)]
    return peak_signal_noise_ratio(*levels, data_range=255)


def test_equal_pictures_are_left_out_of_the_mean():
    hr = np.full((8, 8, 1), 0.5, np.float32)
    crops = [ValidationCrop(up, up, up, hr) for up in (hr[None], hr[None] + 0.1)]
    psnr_db = Validation(Vdsr(1), (2,), crops).bicubic.psnr_db[2]
    assert psnr_db == pytest.approx(20, abs=0.2)


def test_the_pace_measures_after_the_first_call_and_estimates_once(caplog):
    now = 0.0
    pace = Pace(clock=lambda: now)
    assert pace.steps_a_call == 1
    with caplog.at_level(logging.INFO):
        for seconds, steps in ((60.0, 1), (0.1, 1), (1.0, 10), (1.0, 10)):
            pace.start()
            now += seconds
            pace.stop(steps, left=36_000, images=40)
    assert pace.rate == pytest.approx(10)
    assert pace.steps_a_call == 10
    (record,) = caplog.records
    assert record.getMessage() == (
        "0.1 s a step (400 images/s): the 36,000 steps left take about 1:00:00"
    )


def test_slow_steps_go_one_a_call():
    now = 0.0
    pace = Pace(clock=lambda: now)
    for _ in range(2):
        pace.start()
        now += 30.0
        pace.stop(1, left=1, images=1)
    assert pace.steps_a_call == 1
