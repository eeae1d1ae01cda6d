import pytest
import yaml

from pipelines.command.cli import UsageError
from trainer.config import RECIPES, Config, build, read_values
from trainer.models import NETWORKS


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load_by_name_and_reload_from_their_complete_form(path, tmp_path):
    config = build(path.stem, {})
    complete = tmp_path / "config.yaml"
    complete.write_text(yaml.safe_dump(config.to_yaml()))
    assert build(str(complete), {}) == config


def test_the_articles_recipes():
    for model in ("srcnn", "vdsr"):
        config = build(model, {})
        assert (config.model, config.channels, config.optimizer) == (model, "rgb", "adam")
        assert (config.learning_rate, config.batch_size, config.scale_per) == (1e-4, 40, "batch")
        assert (config.patch_size, config.scales) == (0, (2, 3, 4))


def test_options_take_the_place_of_the_recipes_values():
    assert build("vdsr", {"steps": 7}).steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 0.1", "unknown field 'lerning_rate', the nearest known one is 'learning_r"),
        ("zzz: 1", "the nearest known one is"),
        ("3: 1", "unknown field 3"),
        ("steps: many", "steps must be a whole number above 0, not 'many'"),
        ("steps: 1.5", "steps must be a whole number above 0, not 1.5"),
        ("steps: true", "steps must be a whole number above 0, not True"),
        ("augment: 1", "augment must be true or false, not 1"),
        ("model: odd", f"model must be one of {', '.join(NETWORKS)}, not 'odd'"),
        ("scales: 2", "scales must be a list such as 2,3,4 of whole numbers of at least 2, not 2"),
        ("learning_rate: [1]", "learning_rate must be a number"),
        ("- steps", "is not a recipe"),
        ("steps: [", "cannot be read as YAML"),
        ("", "is not a recipe"),
    ],
)
def test_a_wrong_recipe_is_refused(text, message, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_values(str(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("learning_rate: 1e-3")
    assert read_values(str(path)) == {"learning_rate": 0.001}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be a whole number above 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, not nan"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"scales": ()}, "scales must be"),
        ({"model": "vdsr", "kernels": "9-5-5"}, "kernels are SRCNN's, vdsr has its own"),
        ({"kernels": "9-2-5"}, "SRCNN has kernels 9-1-5, 9-3-5, 9-5-5, not '9-2-5'"),
        ({"patch_size": 12}, "more than 12 px"),
        ({"batch_size": 10, "patches_per_crop": 4}, "use --batch-size 8 or 12"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        Config(**values)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do():
    with pytest.raises(UsageError, match=r"40 is no multiple of 3 .*--batch-size 39 or 42"):
        Config(batch_size=40).check_batch(3)
    with pytest.raises(UsageError, match=r"--batch-size 3$"):
        Config(batch_size=2).check_batch(3)


def test_steps_belong_to_the_identity_only_where_the_learning_rate_depends_on_them():
    assert Config(steps=1).identity() == Config(steps=2, checkpoint_every=5).identity()
    cosine = [Config(steps=steps, schedule="cosine").identity() for steps in (1, 2)]
    assert cosine[0] != cosine[1]


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UsageError, match=r"there is no recipe odd: .*srcnn_demo"):
        build("odd", {})


def test_model_and_recipe_must_agree():
    with pytest.raises(UsageError, match=r"--model srcnn and .*vdsr_paper\.yaml, a recipe"):
        build("vdsr_paper", {"model": "srcnn"})
