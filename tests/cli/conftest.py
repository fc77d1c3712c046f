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


@pytest.fixture
def impatient_dht(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a DHT query fail sooner than on the internet, where there is nobody to answer."""
    monkeypatch.setattr("bittern.dht.transactions.QUERY_TIMEOUT", 0.6)
