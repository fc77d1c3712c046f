"""Help texts and the width of a terminal."""

from __future__ import annotations

import pytest

from tests.cli.support import Program


def test_help_texts_flow_however_they_are_cut_in_the_source(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    ran = bittern("get", "--help")
    assert "a magnet link or an info hash; several are downloaded at once. A link" in ran.out
    assert "had they are copied. [choices: copy, reflink, hardlink]" in ran.out
