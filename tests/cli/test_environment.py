"""cli.environment: variables that stand for options."""

from __future__ import annotations

import pytest

from bittern.cli.environment import variable, variable_name


def test_an_option_has_a_variable() -> None:
    assert variable_name("state-dir") == "BITTERN_STATE_DIR"


def test_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITTERN_STATE_DIR", raising=False)
    assert variable("state-dir") == ""
    monkeypatch.setenv("BITTERN_STATE_DIR", "/s")
    assert variable("state-dir") == "/s"
