import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from pipelines.command.cli import ArgumentParser, UsageError
from pipelines.command.fields import (
    add_options,
    argument_type,
    check,
    differing,
    given,
    option,
    read,
    to_plain,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Options:
    from_: str = option("", "to begin with")
    steps: int = option(100, "100 % of them", above=0)
    most: int | None = option(None, "at most", at_least=1)
    part: float = option(0.5, "of all", metavar="PART", at_least=0, below=1)
    sizes: tuple[int, ...] = option((2, 3), "of pictures", at_least=2)
    weights: tuple[float, ...] = option((), "of each size", above=0)
    names: tuple[str, ...] = option((), "who", flag="--name", repeatable=True)
    colour: Colour = option(Colour.RED, "of it")
    mode: Literal["fast", "slow", "none"] = option("fast", "how")
    fresh: bool = option(False, "anew")
    robots: bool = option(True, "robots.txt", words=("obey", "ignore"))
    text: str = option("a", "words", default_text="what is usual")
    shares: Mapping[str, float] = option({"a": 1.0}, "parts", metavar="A=B", convert=dict)


def typed_in(*arguments: str) -> dict[str, Any]:
    parser = ArgumentParser("python -m x", "What it does.")
    add_options(parser, Options)
    return given(Options, parser.parse_args(arguments))


def test_only_what_is_typed_is_given() -> None:
    assert typed_in() == {}
    line = """--from there --steps 7 --most 2 --part 0 --sizes 4,2,4 --weights 3,1.5 --name b
        --name a --colour blue --mode slow --fresh --robots ignore --text x"""
    assert typed_in(*line.split()) == {
        "from_": "there",
        "steps": 7,
        "most": 2,
        "part": 0.0,
        "sizes": (2, 4),
        "weights": (3.0, 1.5),
        "names": ("a", "b"),
        "colour": Colour.BLUE,
        "mode": "slow",
        "fresh": True,
        "robots": False,
        "text": "x",
    }
    assert typed_in("--no-fresh", "--robots", "obey") == {"fresh": False, "robots": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps 0", "--steps: must be a whole number above 0, not '0'"),
        ("--steps 1.0", "--steps: must be a whole number above 0, not '1.0'"),
        ("--part 1", "--part: must be a number of at least 0 and below 1, not '1'"),
        ("--part nan", "--part: must be a number of at least 0 and below 1, not 'nan'"),
        ("--sizes 2,1", "must be a list such as 2,3 of whole numbers of at least 2, not '2,1'"),
        ("--weights 1,x", "--weights: must be a list of numbers above 0, not '1,x'"),
        ("--colour green", "--colour: must be red or blue, not 'green'"),
        ("--mode quick", "--mode: must be fast, slow or none, not 'quick'"),
        ("--robots true", "--robots: must be obey or ignore, not 'true'"),
    ],
)
def test_wrong_arguments_say_what_is_wanted(arguments: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        typed_in(*arguments.split())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"steps": True}, "steps must be a whole number above 0, not True"),
        ({"steps": 1.5}, "steps must be a whole number above 0, not 1.5"),
        ({"steps": None}, "steps must be a whole number above 0, not None"),
        ({"sizes": 2}, "sizes must be a list such as 2,3 of whole numbers of at least 2, not 2"),
        ({"sizes": []}, "sizes must be a list such as 2,3"),
        ({"fresh": 1}, "fresh must be true or false, not 1"),
        ({"text": 1}, "text must be text, not 1"),
        ({"names": [1]}, "names must be a list of names, not [1]"),
        ({"collor": "red"}, "unknown field 'collor', the nearest known one is 'colour'"),
        ({3: 1}, "unknown field 3, the nearest known one is"),
    ],
)
def test_wrong_plain_values_say_what_is_wanted(value: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        read(Options, value)
    assert message in str(error.value)


@drawn(
    st.builds(
        Options,
        from_=st.text(),
        steps=st.integers(1),
        most=st.none() | st.integers(1),
        part=st.floats(0, 1, exclude_max=True),
        sizes=st.sets(st.integers(2), min_size=1).map(sorted).map(tuple),
        weights=st.lists(st.floats(0.1, 9)).map(tuple),
        names=st.sets(st.text()).map(sorted).map(tuple),
        colour=st.sampled_from(Colour),
        mode=st.sampled_from(["fast", "slow", "none"]),
        fresh=st.booleans(),
        robots=st.booleans(),
        text=st.text(),
        shares=st.dictionaries(st.text(), st.floats(0, 1)),
    )
)
def test_options_survive_json(options: Options) -> None:
    check(options)
    assert "from" in to_plain(options)
    assert Options(**read(Options, json.loads(json.dumps(to_plain(options))))) == options


def test_a_value_out_of_range_does_not_pass_the_check() -> None:
    with pytest.raises(ValueError, match="part must be a number of at least 0 and below 1, not 2"):
        check(Options(part=2))


def test_differences_are_told_as_one_would_type_them() -> None:
    one = to_plain(Options(most=3, names=("a", "b"), robots=False))
    other = to_plain(Options(sizes=(4,)))
    assert differing(Options, one, one) == []
    assert differing(Options, one, other) == [
        "--most 3, not none",
        "--sizes 2,3, not 4",
        "--name a,b, not none",
        "--robots ignore, not obey",
    ]


def test_help_has_the_defaults_as_one_would_type_them() -> None:
    parser = ArgumentParser("python -m x", "What it does.")
    add_options(parser, Options)
    text = " ".join(parser.format_help().split())
    for line in (
        "--from TEXT to begin with --steps N 100 % of them (default: 100)",
        "--most N at most --part PART of all (default: 0.5)",
        "--sizes N,N of pictures (default: 2,3)",
        "--weights X,X of each size --name NAMES who --colour",
        "--colour red|blue of it (default: red)",
        "--fresh, --no-fresh anew (default: no)",
        "--robots obey|ignore robots.txt (default: obey)",
        "--text TEXT words (default: what is usual)",
        "--shares A=B parts (default: a=1)",
    ):
        assert line in text
    parser = ArgumentParser("python -m x", "What it does.")
    add_options(parser, Options, lambda name: f"[{name}]")
    assert "--steps N 100 % of them [steps]" in " ".join(parser.format_help().split())


def test_an_option_that_is_no_field_has_the_same_types() -> None:
    parser = ArgumentParser("python -m x", "What it does.")
    parser.add_argument("--port", type=argument_type(int, at_least=1))
    assert parser.parse_args(["--port", "80"]).port == 80
    with pytest.raises(UsageError, match="--port: must be a whole number of at least 1, not '0'"):
        parser.parse_args(["--port", "0"])
