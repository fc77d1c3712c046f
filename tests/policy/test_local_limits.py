"""policy.local_limits: how much of the local network is listened to (N9)."""

from __future__ import annotations

from bittern.policy.local_limits import MAX_BURST_OF_ONE, MAX_SOURCES, LocalLimits


def test_n9_all_together_are_read_ten_times_a_second() -> None:
    limits = LocalLimits(now=0.0)
    num_read = sum(
        limits.may_read(f"10.0.{number % 200}.1", now=number / 100) for number in range(10_000)
    )
    assert 1_000 <= num_read <= 1_021


def test_one_that_floods_does_not_drown_the_others() -> None:
    limits = LocalLimits(now=0.0)
    flood = other = 0
    for step in range(6_000):
        now = step / 100
        flood += limits.may_read("10.0.0.66", now=now)
        if step % 100 == 0:
            other += limits.may_read("10.0.0.7", now=now)
    assert other == 60
    assert flood <= 60 * 2 + MAX_BURST_OF_ONE + 1


def test_an_honest_neighbour_is_always_read() -> None:
    limits = LocalLimits(now=0.0)
    assert all(limits.may_read("10.0.0.7", now=minute * 60.0) for minute in range(100))


def test_false_addresses_fill_no_memory() -> None:
    limits = LocalLimits(now=0.0)
    for number in range(5_000):
        limits.may_read(f"10.{number >> 8}.{number & 255}.1", now=0.0)
    assert len(limits) == MAX_SOURCES
