"""Kinds of settings, as annotations say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError
from bittern.core.kinds import check_kinds, describe_kind, is_of_kind


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -1], [True, 1.0, "1", None]),
        (float, [0, 1.5], [True, "1", None]),
        (bool, [True], [1, "yes", None]),
        (str, ["", "a"], [b"a", None]),
        (bytes, [b""], ["a", bytearray()]),
        (Path, [Path("a")], ["a", None]),
        (int | None, [1, None], ["1", True]),
        (str | tuple[str, ...] | None, ["a", ("a", "b"), ["a"], None], [5, ("a", 5)]),
        (tuple[tuple[str, int], ...], [(), (("a", 1),), [["a", 1]]], ["ab", (("a", "b"),), ((),)]),
        (frozenset[int], [frozenset(), {1}, [1], (1,)], ["1", {"1"}, 1, {1: 2}]),
        (Mapping[int, str], [{}, {1: "a"}], [{"1": "a"}, {1: 1}, [1], "a"]),
        (
            tuple[Endpoint, ...],
            [(Endpoint("10.0.0.1", 1),)],
            [Endpoint("10.0.0.1", 1), (("10.0.0.1", 1),)],
        ),
    ],
)
def test_values_are_told_apart(kind: object, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not is_of_kind(value, kind)] == []
    assert [value for value in bad if is_of_kind(value, kind)] == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (float | None, "a number or None"),
        (bool, "True or False"),
        (Path, "a pathlib.Path"),
        (Endpoint, "a bittern.Endpoint"),
        (tuple[Endpoint, ...], "tuple[Endpoint, ...]"),
        (tuple[Path, ...], "tuple[pathlib.Path, ...]"),
        (Mapping[int, str] | None, "Mapping[int, str] or None"),
    ],
)
def test_kinds_are_said_in_words(kind: object, words: str) -> None:
    assert describe_kind(kind) == words


@dataclass(frozen=True)
class Settings:
    rate: float | None = None
    names: tuple[str, ...] = ()


def test_a_setting_of_a_wrong_kind_is_named() -> None:
    check_kinds(Settings(1, ("a",)), Settings)
    with pytest.raises(ConfigError, match=r"^rate must be a number or None, not 'fast'$"):
        check_kinds(Settings("fast"), Settings)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigError, match=r"^names must be tuple\[str, ...\], not 'ab'$"):
        check_kinds(Settings(names="ab"), Settings)  # type: ignore[arg-type]  # that is the test


def test_what_is_added_in_a_derived_class_may_be_of_any_kind() -> None:
    @dataclass(frozen=True)
    class Local:
        pass

    @dataclass(frozen=True)
    class More(Settings):
        anything: Any = None
        local: Local | None = None  # a name that nobody else can look up
        choice: Literal["a", "b"] = "a"

    check_kinds(More(1, ("a",), anything=object(), local=Local()), Settings)
    with pytest.raises(ConfigError, match="rate must be a number or None"):
        check_kinds(More("fast"), Settings)  # type: ignore[arg-type]  # that is the test
