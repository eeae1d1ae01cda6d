import numpy as np
import pytest

from pipelines.dataset.options import Degradation
from trainer.cards import WEIGHTS, find_card, shipped_names
from trainer.models import NETWORKS
from trainer.trained import load_model


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_model_is_what_its_card_says(name):
    card, model = find_card(name), load_model(name)
    assert model.network.name == card.architecture in NETWORKS
    assert model.description.scales == card.scales != ()
    Degradation(card.degradation)
    picture = np.full((1, 24, 24, model.network.channels), 0.5, np.float32)
    for scale in card.scales:
        assert np.abs(model(picture, scale) - 0.5).max() < 0.05, "grey stays grey"
    assert {"data", "commands", "commit", "steps", "device", "seed"} <= set(card.training)
    assert card.scores
    assert card.summary
    assert card.licence


def test_all_weights_belong_to_a_card():
    named = {file for name in shipped_names() for file in find_card(name).weights}
    assert {path.name for path in WEIGHTS.glob("*.npz")} == named


def test_another_name_is_no_card():
    assert find_card("edsr") is None
    assert find_card("../configs/srcnn") is None
