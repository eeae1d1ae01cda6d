"""An option, declared once: a dataclass field that --help, argparse, JSON, YAML and checks read.

    @dataclass(frozen=True)
    class Options:
        steps: int = option(100, "training steps in total", above=0)

``add_options`` makes ``--steps N`` of it, ``given`` takes what was typed, ``read`` what JSON or
YAML has, and ``to_plain`` writes it there.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pipelines.command.cli import nearest, typed

_NOUNS = {int: "whole number", float: "number"}
_METAVARS = {int: "N", float: "X", str: "TEXT", tuple[int, ...]: "N,N", tuple[float, ...]: "X,X"}


@dataclass(frozen=True)
class Option:
    """What is known of a field beside its name, type and default."""

    help: str
    flag: str = ""
    """On the command line; else made of the field's name."""
    metavar: str = ""
    default_text: str = ""
    """What --help says of the default, where its value does not tell."""
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    words: tuple[str, str] = ("", "")
    """For true and for false on the command line; else --flag and --no-flag."""
    repeatable: bool = False
    convert: Callable[[Any], Any] | None = None
    """Of text or a plain value, where the type is not enough; raises ValueError."""


def option(default: Any, help: str, **rules: Any) -> Any:
    """A dataclass field; ``rules`` as in Option, bounds for each number of a tuple."""
    metadata = {"option": Option(help, **rules)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_options(
    group: argparse._ActionsContainer, cls: type, default_text: Callable[[str], str] | None = None
) -> None:
    """Adds an option for each field. One that is not given is not in the namespace.

    ``default_text`` of a field's name takes the place of its default in --help.
    """
    for field in dataclasses.fields(cls):
        rules = _rules(field)
        shown = rules.default_text or typed(_default(field), rules.words)
        default = default_text(field.name) if default_text else shown and f"(default: {shown})"
        group.add_argument(
            _flag(field),
            dest=field.name,
            default=argparse.SUPPRESS,
            help=f"{rules.help} {default}".rstrip().replace("%", "%%"),
            **_how_to_parse(field),
        )


def _how_to_parse(field: Field[Any]) -> dict[str, Any]:
    rules, kind = _rules(field), _kind(field)
    if kind is bool and not any(rules.words):
        return {"action": argparse.BooleanOptionalAction}
    metavar = rules.metavar or "|".join(_choices(kind) or filter(None, rules.words))
    return {
        "action": "extend" if rules.repeatable else "store",
        "type": _parser(field),
        "metavar": metavar or _METAVARS.get(kind),
    }


def argument_type(kind: Any, **rules: Any) -> Callable[[str], Any]:
    """An argparse type for an option that is no field; ``rules`` as in Option."""
    field: Field[Any] = option(None, "", **rules)
    field.type = kind
    return _parser(field)


def _parser(field: Field[Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return _convert(field, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def given(cls: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that were typed."""
    return {
        field.name: _convert(field, getattr(arguments, field.name))
        for field in dataclasses.fields(cls)
        if hasattr(arguments, field.name)
    }


def read(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields from plain values. Raises ValueError where one is unknown or wrong."""
    fields = {_name(field): field for field in dataclasses.fields(cls)}
    result = {}
    for name, value in values.items():
        if name not in fields:
            near = nearest(str(name), fields, cutoff=0.0)
            raise ValueError(f"unknown field {name!r}, the nearest known one is {near!r}")
        try:
            result[fields[name].name] = _convert(fields[name], value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return result


def differing(cls: type, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between plain values, as one would type it: ``--seed 0, not 1``."""
    result = []
    for field in dataclasses.fields(cls):
        values = [plain.get(_name(field)) for plain in (begun, wanted)]
        if values[0] != values[1]:
            one, other = (
                "none" if value is None else typed(_convert(field, value), _rules(field).words)
                for value in values
            )
            result.append(f"{_flag(field)} {one or 'none'}, not {other or 'none'}")
    return result


def check(options: Any) -> None:
    """Raises ValueError where a field's value is not what it is declared to be."""
    read(type(options), _by_name(options))


def to_plain(options: Any) -> dict[str, Any]:
    """What JSON and YAML can hold; ``read`` gives the same fields."""
    return {name: _plain(value) for name, value in _by_name(options).items()}


def _by_name(options: Any) -> dict[str, Any]:
    return {_name(field): getattr(options, field.name) for field in dataclasses.fields(options)}


def _name(field: Field[Any]) -> str:
    """Outside of Python, where ``from`` needs no underscore."""
    return field.name.rstrip("_")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, StrEnum) else value


def _flag(field: Field[Any]) -> str:
    return _rules(field).flag or f"--{_name(field).replace('_', '-')}"


def _rules(field: Field[Any]) -> Option:
    rules: Option = field.metadata["option"]
    return rules


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _kind(field: Field[Any]) -> Any:
    """The field's type, without its None."""
    others = [kind for kind in get_args(field.type) if kind is not NoneType]
    return others[0] if NoneType in get_args(field.type) else field.type


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else ()


def _convert(field: Field[Any], value: Any) -> Any:
    """The field's value. Raises ValueError with what it must be instead."""
    rules, kind = _rules(field), _kind(field)
    if value is None and kind is not field.type:
        return None
    if rules.convert:
        return rules.convert(value)
    try:
        return _converted(kind, value, rules, may_be_empty=not _default(field))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"must be {_wanted(field)}, not {value!r}") from None


def _converted(kind: Any, value: Any, rules: Option, *, may_be_empty: bool) -> Any:
    if choices := _choices(kind):
        if value not in choices:
            raise ValueError
        return value if get_origin(kind) is Literal else kind(value)
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        items = [_item(get_args(kind)[0], part, rules) for part in parts]
        if not items and not may_be_empty:
            raise ValueError
        # Numbers that belong to others' places keep their order.
        return tuple(items) if kind == tuple[float, ...] else tuple(sorted(set(items)))
    return _item(kind, value, rules)


def _item(kind: Any, value: Any, rules: Option) -> Any:
    if kind is bool:
        if value in rules.words:
            return value == rules.words[0]
        if not isinstance(value, bool):
            raise ValueError
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ValueError
        return value
    number = kind(value)
    is_within = (
        math.isfinite(number)
        and (rules.above is None or number > rules.above)
        and (rules.at_least is None or number >= rules.at_least)
        and (rules.below is None or number < rules.below)
    )
    if isinstance(value, bool) or (not isinstance(value, str) and number != value) or not is_within:
        raise ValueError
    return number


def _wanted(field: Field[Any]) -> str:
    """What a value must be, in words."""
    rules, kind = _rules(field), _kind(field)
    choices = _choices(kind) or tuple(filter(None, rules.words))
    if choices or kind is bool:
        return _or(choices or ("true", "false"))
    if kind is str:
        return "text"
    if get_origin(kind) is not tuple:
        return f"a {_NOUNS[kind]}{_bounds(rules)}"
    such_as = f" such as {typed(_default(field))}" if _default(field) else ""
    noun = _NOUNS.get(get_args(kind)[0], "name")
    return f"a list{such_as} of {noun}s{_bounds(rules)}"


def _bounds(rules: Option) -> str:
    bounds = [("above", rules.above), ("of at least", rules.at_least), ("below", rules.below)]
    words = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return f" {' and '.join(words)}" if words else ""


def _or(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
