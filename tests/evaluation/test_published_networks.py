"""Published weights of networks that take the LR picture, by the protocols of their papers."""

import pytest

from evaluation.pictures import folder_pictures
from evaluation.protocols import PROTOCOLS
from evaluation.rows import evaluate
from evaluation.upscalers import load_upscalers
from tests.support import SHARED_DATA

WEIGHTS = SHARED_DATA / "weights/lr"
# File, scale, Set5, Set14 (of some: it takes minutes): measured by an independent implementation.
PAPER = [
    ("fsrcnn_x2", 2, 36.997, 32.627),
    ("fsrcnn_x3", 3, 33.155, 29.423),
    ("fsrcnn_x4", 4, 30.704, 27.591),
    ("fsrcnn_s_x2", 2, 36.572, 32.275),
    ("espcn_x3", 3, 32.636, 29.036),
]
PAPER_RGB = [
    ("lapsrn_x2", 2, 37.517, 33.084),
    ("lapsrn_x8", 8, 26.141),
    ("pan_x2", 2, 38.000),
    ("pan_x3", 3, 34.400),
]
CASES = [("paper", *case) for case in PAPER] + [("paper-rgb", *case) for case in PAPER_RGB]


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is absent")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1])
def test_published_weights_have_their_psnr(case):
    protocol, file, scale, *figures = case
    upscalers = load_upscalers([str(WEIGHTS / f"{file}.npz")])
    for name, expected in zip(("set5", "set14"), figures, strict=False):
        pictures = folder_pictures(str(SHARED_DATA / "benchmarks" / name))
        found = evaluate(pictures, PROTOCOLS[protocol], upscalers, [scale])
        assert found.rows[-1].psnr_db == pytest.approx(expected, abs=0.01)
