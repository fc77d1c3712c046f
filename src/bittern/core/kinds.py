"""
Kinds of settings: a value of a wrong one is refused where it is written, by its name.

A dataclass says in its annotations what each setting takes, and type checkers see to that. Whoever
uses none would meet a wrong kind later, in a traceback from somewhere else, or never: ``"no"`` for
a switch would switch it on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import fields
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from bittern.core.errors import ConfigError

_WORDS = {
    bool: "True or False",
    bytes: "bytes",
    float: "a number",
    int: "a whole number",
    NoneType: "None",
    str: "a str",
}
_INSIDE = re.compile(r"\b(bittern|collections)\.[\w.]+\.|\b_\w+\.")
"""What is not said of a name: Python 3.13 has ``pathlib._local.Path``."""

_known: dict[type, dict[str, object]] = {}
"""By the dataclass, its settings and what each takes: to read annotations takes longest."""


def check_kinds(settings: object, of: type) -> None:
    """
    Refuse settings of which one is of another kind than its annotation says.

    A list does for a tuple, any set for a frozenset, and a whole number for a float; but True and
    False are no numbers.

    Args:
        settings: of a dataclass.
        of: that dataclass; what somebody adds in one derived from it may be of any kind.

    Raises:
        ConfigError: the text names the setting, what it takes, and the value.
    """
    for name, kind in _kinds_of(of).items():
        value = getattr(settings, name)
        if not is_of_kind(value, kind):
            raise ConfigError(f"{name} must be {describe_kind(kind)}, not {value!r}")


def is_of_kind(value: object, kind: object) -> bool:
    """Tell whether a value is what an annotation says, with what it holds."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of_kind(value, each) for each in args)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if args[-1] is Ellipsis:
            return all(is_of_kind(each, args[0]) for each in value)
        pairs = zip(value, args, strict=False)
        return len(value) == len(args) and all(is_of_kind(each, arg) for each, arg in pairs)
    if origin is frozenset:
        return isinstance(value, Set | tuple | list) and all(
            is_of_kind(each, args[0]) for each in value
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            is_of_kind(key, args[0]) and is_of_kind(each, args[1]) for key, each in value.items()
        )
    assert isinstance(kind, type)
    if kind in (float, int) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def describe_kind(kind: object) -> str:
    """Return what an annotation takes in words, as ``a number or None``."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(describe_kind, get_args(kind)))
    if isinstance(kind, type) and get_origin(kind) is None:
        return _WORDS.get(kind) or f"a {kind.__module__.partition('.')[0]}.{kind.__name__}"
    return _INSIDE.sub("", str(kind))


def _kinds_of(dataclass: type) -> dict[str, object]:
    if dataclass not in _known:
        hints = get_type_hints(dataclass)
        _known[dataclass] = {spec.name: hints[spec.name] for spec in fields(dataclass)}
    return _known[dataclass]
