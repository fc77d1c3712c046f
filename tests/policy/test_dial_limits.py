from __future__ import annotations

import pytest

from bittern.core.endpoint import network_of
from bittern.policy.dial_limits import DialLimits


def dial(limits: DialLimits, host: str, now: float) -> float | None:
    """Dial unless that is blocked; return until when it is."""
    until = limits.blocked_until(network_of(host), host, now=now)
    if until is None:
        limits.note(network_of(host), host, now=now)
    return until


def test_an_address_is_tried_three_times_in_ten_minutes() -> None:
    """Limit: H8."""
    limits = DialLimits()
    assert [dial(limits, "5.6.7.8", now) for now in (0.0, 100.0, 200.0)] == [None] * 3
    assert dial(limits, "5.6.7.8", 300.0) == 600.0
    assert dial(limits, "5.6.7.8", 599.9) == 600.0
    assert dial(limits, "5.6.7.8", 600.0) is None
    assert dial(limits, "5.6.7.8", 601.0) == 700.0
    assert dial(limits, "5.6.7.9", 601.0) is None


def test_an_address_of_the_user_is_held_to_its_network_only() -> None:
    limits = DialLimits()
    for now in range(8):
        assert limits.blocked_until(None, "5.6.7.8", now=float(now)) is None
        limits.note("5.6.7.8", "5.6.7.8", now=float(now))
    assert limits.blocked_until(None, "5.6.7.8", now=9.0) == 60.0


@pytest.mark.parametrize(
    ("inside", "outside"),
    [("5.6.7.{}", "5.6.8.1"), ("2001:db8:1:{}00::1", "2001:db8:2:1::1")],
)
def test_a_network_is_tried_eight_times_a_minute(inside: str, outside: str) -> None:
    """Limit: H8. Documentation space of IPv6 is not global, so a global one stands for it."""
    limits = DialLimits()
    inside, outside = inside.replace("2001:db8", "2a00:1"), outside.replace("2001:db8", "2a00:1")
    for i in range(8):
        assert dial(limits, inside.format(i), float(i)) is None
    assert dial(limits, inside.format(9), 20.0) == 60.0
    assert dial(limits, outside, 20.0) is None
    assert dial(limits, inside.format(9), 60.0) is None
    assert dial(limits, inside.format(10), 60.0) == 61.0


@pytest.mark.parametrize("inside", ["192.168.7.{}", "127.0.0.{}", "fd00:1:2:{}::1"])
def test_local_networks_have_no_limit_of_their_own(inside: str) -> None:
    limits = DialLimits()
    assert all(dial(limits, inside.format(i), 1.0) is None for i in range(100))


def test_attempts_are_forgotten_after_ten_minutes() -> None:
    limits = DialLimits()
    for i in range(2000):
        dial(limits, f"5.{i >> 8}.{i & 255}.1", i * 1.0)
    assert len(limits) <= 600 + 60 + 2 * 60 + 2
    dial(limits, "9.9.9.9", 1e6)
    assert len(limits) == 2


def test_an_address_that_was_a_peer_may_be_tried_anew() -> None:
    limits = DialLimits()
    for _ in range(3):
        assert dial(limits, "5.6.7.8", 0.0) is None
    assert dial(limits, "5.6.7.8", 1.0) is not None
    limits.forgive(network_of("5.6.7.8"))
    assert dial(limits, "5.6.7.8", 1.0) is None
    limits.forgive("never tried")
