from __future__ import annotations

from bittern.core.endpoint import network_of
from bittern.policy.bans import FIRST_BAN, GOOD_PIECES, LONGEST_BAN, Ban, Bans

HOUR = 3600.0


def test_a_ban_lasts_an_hour_and_doubles_to_a_day() -> None:
    """Limit: H4."""
    bans, now = Bans(), 100.0
    for hours in (1, 2, 4, 8, 16, 24, 24):
        until = bans.ban("5.6.7.8", now=now)
        assert until == now + hours * HOUR
        assert bans.banned_until("5.6.7.8", now=until - 1) == until
        assert bans.banned_until("5.6.7.8", now=until) is None
        now = until


def test_a_ban_during_a_ban_is_longer() -> None:
    bans = Bans()
    bans.ban("5.6.7.8", now=0.0)
    assert bans.ban("5.6.7.8", now=10.0) == 10.0 + 2 * FIRST_BAN


def test_a_day_after_a_ban_the_address_is_as_good_as_new() -> None:
    bans = Bans()
    bans.ban("5.6.7.8", now=0.0)
    assert bans.ban("5.6.7.8", now=FIRST_BAN + LONGEST_BAN - 1) != FIRST_BAN
    bans = Bans()
    bans.ban("5.6.7.8", now=0.0)
    over = FIRST_BAN + LONGEST_BAN
    assert bans.ban("5.6.7.8", now=over) == over + FIRST_BAN


def test_only_the_address_is_banned_and_of_ipv6_its_64() -> None:
    bans = Bans()
    assert bans.banned_until("5.6.7.8", now=0.0) is None
    bans.ban("5.6.7.8", now=0.0)
    bans.ban("2001:db8:1:2:3:4:5:6", now=0.0)
    assert bans.banned_until("5.6.7.9", now=1.0) is None
    assert bans.banned_until("2001:db8:1:2:ffff::", now=1.0) == FIRST_BAN
    assert bans.banned_until("2001:db8:1:3::", now=1.0) is None
    network = network_of("2001:db8:1:2::7")
    assert bans.banned_until(network, now=1.0) == FIRST_BAN
    assert bans.ban(network, now=1.0) == 1.0 + 2 * FIRST_BAN


def test_an_address_that_gave_good_pieces_is_warned_once() -> None:
    """Limit: H4. Several peers may live behind one address."""
    bans = Bans()
    assert bans.ban("5.6.7.8", now=0.0, num_good_pieces=GOOD_PIECES) is None
    assert bans.banned_until("5.6.7.8", now=0.0) is None
    assert bans.ban("5.6.7.8", now=9.0, num_good_pieces=99) == 9.0 + FIRST_BAN
    assert bans.ban("5.6.7.8", now=9.0, num_good_pieces=99) == 9.0 + 2 * FIRST_BAN
    assert bans.ban("9.9.9.9", now=0.0, num_good_pieces=GOOD_PIECES - 1) == FIRST_BAN


def test_memory_is_bounded_and_the_oldest_are_forgotten_first() -> None:
    bans = Bans(max_entries=100)
    for i in range(1000):
        bans.ban(f"5.6.{i >> 8}.{i & 255}", now=float(i))
        assert len(bans) <= 100
        assert bans.banned_until(f"5.6.{i >> 8}.{i & 255}", now=float(i)) is not None
    assert bans.banned_until("5.6.0.0", now=1000.0) is None


def test_what_is_over_is_forgotten_before_anything_else() -> None:
    bans = Bans(max_entries=10)
    for i in range(9):
        bans.ban(f"5.6.7.{i}", now=0.0)
    later = FIRST_BAN + LONGEST_BAN
    bans.ban("9.9.9.8", now=later - 10)
    bans.ban("9.9.9.9", now=later)
    assert len(bans) == 2
    assert bans.banned_until("9.9.9.8", now=later) is not None


def test_bans_in_force_with_their_reasons() -> None:
    bans = Bans()
    bans.ban("5.6.7.8", now=0.0, reason="sent corrupt data")
    bans.ban("2001:db8::1", now=1.0, reason="lied")
    bans.ban("9.9.9.9", now=2.0, num_good_pieces=GOOD_PIECES, reason="only a warning")
    assert bans.current(now=3.0) == [
        Ban("5.6.7.8", FIRST_BAN, "sent corrupt data"),
        Ban("2001:db8::/64", 1.0 + FIRST_BAN, "lied"),
    ]
    assert bans.current(now=FIRST_BAN + 0.5) == bans.current(now=3.0)[1:]
