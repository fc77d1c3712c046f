"""Descriptors are raised to what the system gives and divided between sockets and files (F13)."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bittern.engine.config import SessionConfig
from bittern.engine.descriptors import RESERVE, divide_descriptors, raise_descriptor_limit


def counts(config: SessionConfig) -> tuple[int, int, int, int]:
    return (
        config.max_open_files,
        config.max_connections,
        config.max_pending_handshakes,
        config.max_half_open,
    )


@pytest.mark.parametrize("limit", [None, 1024, 20_000, 1 << 30])
def test_plenty_changes_nothing(limit: int | None) -> None:
    assert divide_descriptors(SessionConfig(), limit) == SessionConfig()


@pytest.mark.parametrize("limit", [64, 128, 256, 512])
def test_few_are_divided_and_a_rest_is_left(limit: int) -> None:
    divided = divide_descriptors(SessionConfig(), limit)
    assert sum(counts(divided)) <= limit - RESERVE
    files, connections, pending, half_open = counts(divided)
    assert 0.6 < (connections + pending + half_open) / (limit - RESERVE) <= 0.7
    assert min(pending, half_open) >= 2
    assert files >= 10


@pytest.mark.parametrize("limit", [0, 20, 40])
def test_with_next_to_none_there_is_still_something(limit: int) -> None:
    assert counts(divide_descriptors(SessionConfig(), limit)) == (4, 6, 1, 1)


def test_what_is_asked_for_is_not_raised() -> None:
    asked = SessionConfig(
        max_open_files=5, max_connections=20, max_pending_handshakes=3, max_half_open=1
    )
    assert divide_descriptors(asked, 128) == asked
    small = SessionConfig(max_connections=1_000, max_half_open=1, max_pending_handshakes=2)
    assert counts(divide_descriptors(small, 128))[1:] == (64, 2, 1)


def test_the_limit_only_grows() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_descriptor_limit() in (before[1], None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft, hard) == (before[1], before[1])


INFINITY = -1


@pytest.mark.parametrize(
    ("soft", "hard", "refusal", "expected", "set_to"),
    [
        pytest.param(256, 4_096, None, 4_096, (4_096, 4_096), id="soft is lower"),
        pytest.param(4_096, 4_096, None, 4_096, None, id="soft is hard"),
        pytest.param(256, INFINITY, None, 10_240, (10_240, INFINITY), id="no hard limit"),
        pytest.param(65_536, INFINITY, None, 65_536, None, id="no hard limit, a high soft one"),
        pytest.param(INFINITY, INFINITY, None, None, None, id="no limit at all"),
        pytest.param(256, 4_096, ValueError(), 256, None, id="refused as a value"),
        pytest.param(256, 4_096, PermissionError(), 256, None, id="refused by a sandbox"),
    ],
)
def test_what_systems_answer(
    soft: int,
    hard: int,
    refusal: Exception | None,
    expected: int | None,
    set_to: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was_set: list[tuple[int, int]] = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if refusal is not None:
            raise refusal
        was_set.append(limits)

    fake = SimpleNamespace(
        RLIMIT_NOFILE=7,
        RLIM_INFINITY=INFINITY,
        getrlimit=lambda _: (soft, hard),
        setrlimit=set_limit,
    )
    monkeypatch.setitem(sys.modules, "resource", fake)
    assert raise_descriptor_limit() == expected
    assert was_set == ([] if set_to is None else [set_to])


def test_windows_watches_512_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    limit = raise_descriptor_limit()
    assert limit == 512
    wanted = SessionConfig(max_connections=5_000, max_half_open=500, max_pending_handshakes=500)
    assert sum(counts(divide_descriptors(wanted, limit))[1:]) <= 512 - RESERVE
