import numpy as np
import pytest

from evaluation.comparison import ZOOM_PX, compare, extremes, most_changed
from evaluation.pictures import dataset_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.upscalers import Bicubic, load_upscalers

GAINS = {0: 0.5, 1: 2.0, 2: -1.0, 3: 1.0, 5: 0.1}


def test_the_largest_gains_come_first_then_the_smallest():
    photos = list("abcdef")
    assert extremes(GAINS, photos, 4) == [1, 3, 2, 5]
    assert extremes(GAINS, photos, 3) == [1, 3, 2]
    assert extremes(GAINS, photos, 1) == [1]
    assert sorted(extremes(GAINS, photos, 9)) == sorted(GAINS)


def test_one_crop_of_a_photo_is_enough():
    photos = ["a", "b", "c", "b", "c", "c"]
    assert extremes(GAINS, photos, 4) == [1, 0, 2, 3]


@pytest.mark.parametrize("corner", [(0, 0), (120, 90), (136, 136)])
def test_the_zoom_is_where_two_images_differ_most(corner):
    before = np.zeros((200, 200), np.uint8)
    after = before.copy()
    after[3, 3] = 10  # a small change elsewhere
    y, x = corner
    after[y : y + ZOOM_PX, x : x + ZOOM_PX] = 200
    assert most_changed(before, after) == (x, y, x + ZOOM_PX, y + ZOOM_PX)


def test_a_small_picture_is_shown_whole():
    before = np.zeros((40, 300, 3), np.uint8)
    left, top, right, bottom = most_changed(before, before)
    assert (top, bottom, right - left) == (0, 40, ZOOM_PX)


def test_pictures_are_compared_in_order_of_their_gain(dataset, identity_network):
    upscalers = load_upscalers([str(identity_network("rgb")), str(identity_network("y"))])
    pictures = dataset_pictures(str(dataset), "test")
    comparisons = compare(pictures, PROTOCOLS["article"], upscalers, [2, 3], None, 3)
    assert [comparison.scale for comparison in comparisons] == [2] * 3 + [3] * 3
    largest, second, smallest = (comparison.gain_db for comparison in comparisons[:3])
    assert largest >= second >= smallest
    for comparison in comparisons:
        titles = [panel.title for panel in comparison.panels]
        assert titles == ["LR", "bicubic", "identity_rgb", "identity_y", "HR"]
        assert all(panel.image.shape == (ZOOM_PX, ZOOM_PX, 3) for panel in comparison.panels)
        bicubic, rgb, y = (panel.psnr_db for panel in comparison.panels[1:4])
        assert comparison.gain_db == pytest.approx((rgb + y) / 2 - bicubic)


def test_without_a_network_there_is_nothing_to_compare(dataset):
    pictures = dataset_pictures(str(dataset), "test")
    assert compare(pictures, PROTOCOLS["paper"], [Bicubic()], [2], None, 4) == []
