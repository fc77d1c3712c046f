from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.support import Program


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BITTERN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, which has the state folder in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITTERN_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def bittern(capsys: pytest.CaptureFixture[str]) -> Program:
    return Program(capsys)


@pytest.fixture
def impatient_dht(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a DHT query fail sooner than on the internet, where there is nobody to answer."""
    monkeypatch.setattr("bittern.dht.transactions.QUERY_TIMEOUT", 0.6)
