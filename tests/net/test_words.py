from __future__ import annotations

import errno
import os
import socket

import pytest

from bittern.net.words import words_of


def test_words_are_the_systems_in_lower_case() -> None:
    assert words_of(errno.ECONNREFUSED) == "connection refused"
    assert words_of(errno.ENOENT) == os.strerror(errno.ENOENT).lower()


def test_windows_has_a_table_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "errorTab", {10061: "Connection refused."}, raising=False)
    assert words_of(10061) == "connection refused"
    assert words_of(errno.ENOENT) == os.strerror(errno.ENOENT).lower()
