import math
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import Picture, folder_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.scoring import BATCH_PX, ahead, batches, exact, means, score
from evaluation.upscalers import Bicubic
from pipelines.command.cli import UsageError

ARTICLE, PAPER = PROTOCOLS["article"], PROTOCOLS["paper"]


@dataclass(frozen=True)
class Perfect:
    """Cheats on the pictures of one name."""

    cheats_on: str
    name: str = "perfect"
    weights: str = "0123"
    scales: tuple[int, ...] = ()
    channels: str = ""

    def __call__(self, samples):
        return [
            sample.reference if self.cheats_on in sample.name else sample.bicubic()
            for sample in samples
        ]


def test_all_are_scored_on_the_same_pixels(folder, photos):
    # The cheat's result is wrong only inside the shaved border.
    @dataclass(frozen=True)
    class WrongBorder(Perfect):
        def __call__(self, samples):
            images = [sample.reference.copy() for sample in samples]
            for image in images:
                image[:2] = image[-2:] = 255 - image[:2]
            return images

    pictures = folder_pictures(str(folder))
    _, shaved = score(pictures, PAPER, [Bicubic(), WrongBorder("")], [2]).totals
    _, whole = score(pictures, PAPER, [Bicubic(), WrongBorder("")], [2], shave_px=0).totals
    assert all(math.isinf(picture.psnr_db) for picture in shaved.pictures.values())
    assert not any(math.isinf(picture.psnr_db) for picture in whole.pictures.values())


def test_shave_is_the_protocols_unless_it_is_given(folder):
    pictures = folder_pictures(str(folder))
    shaves = [scores.shave_px for scores in score(pictures, PAPER, [Bicubic()], [2, 3]).totals]
    assert shaves == [2, 3]
    assert [scores.shave_px for scores in score(pictures, ARTICLE, [Bicubic()], [2]).totals] == [0]
    assert [scores.shave_px for scores in score(pictures, ARTICLE, [Bicubic()], [2], 6).totals] == [
        6
    ]


def test_an_infinite_psnr_is_left_out_for_every_model(folder):
    bicubic, perfect = score(
        folder_pictures(str(folder)), ARTICLE, [Bicubic(), Perfect("coffee")], [2]
    ).totals
    left_out = exact([bicubic, perfect])
    names = [picture.picture for picture in bicubic.pictures.values()]
    assert left_out == {names.index("coffee.png")}
    assert means(bicubic.pictures, left_out) == means(perfect.pictures, left_out)
    others = [p.psnr_db for p in bicubic.pictures.values() if p.picture != "coffee.png"]
    assert means(perfect.pictures, left_out).psnr_db == pytest.approx(np.mean(others))
    assert means(perfect.pictures, left_out).psnr_std_db == pytest.approx(np.std(others))


def test_without_pictures_there_is_no_mean():
    assert math.isnan(means({}).psnr_db)


def test_a_model_is_skipped_at_a_scale_it_was_not_trained_for(folder, caplog):
    trained = Perfect("", name="srcnn", scales=(2, 4))
    totals = score(folder_pictures(str(folder)), ARTICLE, [Bicubic(), trained], [2, 3]).totals
    assert [(scores.upscaler.name, scores.scale) for scores in totals] == [
        ("bicubic", 2),
        ("srcnn", 2),
        ("bicubic", 3),
    ]
    assert "srcnn is skipped at x3: it was trained for x2, x4" in caplog.text


def test_a_network_that_the_protocol_does_not_score_is_refused(folder):
    rgb = Perfect("", name="edsr", channels="rgb")
    with pytest.raises(UsageError, match=r"edsr makes RGB, but protocol paper .* paper-rgb"):
        score(folder_pictures(str(folder)), PAPER, [Bicubic(), rgb], [2])
    score(folder_pictures(str(folder)), PROTOCOLS["paper-rgb"], [Bicubic(), rgb], [2])
    score(folder_pictures(str(folder)), PAPER, [Bicubic(), Perfect("", channels="y")], [2])


def test_a_picture_too_small_to_score_is_named(tmp_path):
    Image.new("RGB", (20, 16)).save(tmp_path / "tiny.png")
    pictures = folder_pictures(str(tmp_path))
    score(pictures, ARTICLE, [Bicubic()], [2], shave_px=2)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = folder_pictures(str(tmp_path))
    with pytest.raises(UsageError, match=r"tiny\.png has 20x16 pixels.*x2.*shave of 3"):
        score(pictures, ARTICLE, [Bicubic()], [2], shave_px=3)
    with pytest.raises(UsageError, match=r"tiny\.png.*x50"):
        score(pictures, ARTICLE, [Bicubic()], [50])


def test_the_time_is_that_of_the_upscaling(folder, monkeypatch):
    class Clock(threading.local):  # others compute meanwhile
        now = 0.0

    clock = Clock()

    class Slow(Perfect):
        def __call__(self, samples):
            clock.now += 3.0
            return super().__call__(samples)

    def slow_ssim(*images):
        clock.now += 100.0
        return 1.0

    monkeypatch.setattr("evaluation.scoring.perf_counter", lambda: clock.now)
    monkeypatch.setattr("evaluation.scoring.ssim", slow_ssim)
    pictures = folder_pictures(str(folder))
    bicubic, slow = score(pictures, ARTICLE, [Bicubic(), Slow("")], [2]).totals
    assert (bicubic.seconds, slow.seconds) == (0.0, 3.0)


def test_pictures_of_one_size_come_together_and_in_order():
    heights = [200] * 9 + [201] + [200] * 2 + [2 * BATCH_PX // 200] * 2
    pictures = [(n, Picture(str(n), np.zeros((height, 200)))) for n, height in enumerate(heights)]
    groups = list(batches(pictures))
    assert [len(group) for group in groups] == [8, 1, 1, 2, 1, 1]
    assert [picture for group in groups for picture in group] == pictures


def test_pictures_are_made_ahead_in_order_and_their_errors_arrive():
    def pictures():
        yield from range(5)
        raise UsageError("the sixth is broken")

    coming = ahead(pictures(), 2)
    assert [next(coming) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="the sixth"):
        next(coming)
    assert list(ahead(range(7), 3)) == list(range(7))
    assert list(ahead([], 3)) == []
