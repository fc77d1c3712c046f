from __future__ import annotations

import os

import pytest

from tests.cli.support import Program


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BITTERN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def bittern(capsys: pytest.CaptureFixture[str]) -> Program:
    return Program(capsys)
