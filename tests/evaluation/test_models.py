import pytest

from evaluation.__main__ import main as evaluate
from evaluation.models import main
from evaluation.results import Result, read
from trainer.cards import find_card, shipped_names


def test_every_shipped_model_is_listed_with_its_numbers(capsys):
    main([])
    text = capsys.readouterr().out
    for name in shipped_names():
        assert f"{name}: " in text
        assert all(f"{score.psnr_db:.2f} dB" in text for score in find_card(name).scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in shipped_names() if find_card(name).channels == "y"]
)
def test_a_cards_numbers_on_set5_are_what_the_model_reaches(shared_data, tmp_path, name):
    output = tmp_path / "results.csv"
    pictures = ["--images", str(shared_data / "benchmarks/set5"), "--protocol", "paper"]
    evaluate([*pictures, "--models", name, "--output", str(output)])
    rows = {row.scale: row for row in read(str(output), Result) if row.model == name}
    scores = [score for score in find_card(name).scores if score.pictures == "set5"]
    assert {score.scale for score in scores} == set(find_card(name).scales)
    for score in scores:
        assert rows[score.scale].psnr_db == pytest.approx(score.psnr_db, abs=0.005)
        assert rows[score.scale].ssim == pytest.approx(score.ssim, abs=0.0002)
