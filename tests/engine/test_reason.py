"""engine.reason: a code and a sentence."""

from __future__ import annotations

from bittern.engine.reason import Reason, ReasonCode


def test_a_reason_is_its_sentence() -> None:
    assert str(Reason(ReasonCode.CHOKED, "They choke us.")) == "They choke us."


def test_codes_are_the_names_in_lower_case() -> None:
    assert all(code.value == code.name.lower() for code in ReasonCode)
