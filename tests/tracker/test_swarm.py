"""tracker.swarm: swarms by torrent, family and scope; counts, expiry, limits."""

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.announce import Event
from bittern.core.endpoint import Endpoint, iter_compact
from bittern.tracker.swarm import LOOPBACK, PRIVATE, PUBLIC, Selection, SwarmTable, scope_of

HASH, OTHER = b"h" * 20, b"o" * 20


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("8.8.8.8", PUBLIC),
        ("9.255.255.255", PUBLIC),
        ("10.0.0.1", PRIVATE),
        ("11.0.0.0", PUBLIC),
        ("100.63.0.1", PUBLIC),
        ("100.64.0.1", PRIVATE),
        ("100.127.255.255", PRIVATE),
        ("100.128.0.1", PUBLIC),
        ("127.0.0.1", LOOPBACK),
        ("127.9.9.9", LOOPBACK),
        ("169.253.1.1", PUBLIC),
        ("169.254.1.1", PRIVATE),
        ("172.15.0.1", PUBLIC),
        ("172.16.0.1", PRIVATE),
        ("172.31.255.255", PRIVATE),
        ("172.32.0.1", PUBLIC),
        ("192.167.1.1", PUBLIC),
        ("192.168.1.1", PRIVATE),
        ("8.168.1.1", PUBLIC),
        ("8.16.1.1", PUBLIC),
        ("8.64.1.1", PUBLIC),
        ("8.254.1.1", PUBLIC),
        ("2001:db8::1", PUBLIC),
        ("2a80::1", PUBLIC),
        ("::1", LOOPBACK),
        ("::2", PUBLIC),
        ("fc00::1", PRIVATE),
        ("fdff::1", PRIVATE),
        ("fe80::1", PRIVATE),
        ("febf::1", PRIVATE),
        ("fec0::1", PUBLIC),
    ],
)
def test_scopes(host: str, scope: int) -> None:
    packed = ip_address(host).packed
    assert scope_of(packed) == scope
    assert scope_of(packed + b"\x1a\xe1") == scope


def make(**limits: int) -> SwarmTable:
    return SwarmTable(random.Random(1), **limits)


def announce(
    table: SwarmTable,
    host: str,
    *,
    info_hash: bytes = HASH,
    port: int = 1,
    left: int = 1,
    event: Event = Event.NONE,
    num_want: int = 50,
    now: float = 0.0,
    both: bool = False,
) -> Selection:
    return table.announce(
        info_hash,
        Endpoint.make(host, port).to_compact(),
        left=left,
        event=event,
        num_want=num_want,
        now=now,
        both_families=both,
    )


def hosts(selection: Selection) -> list[str]:
    found = [*iter_compact(selection.peers, ipv6=False), *iter_compact(selection.peers6, ipv6=True)]
    return sorted(endpoint.host for endpoint in found)


def test_peers_hear_of_one_another() -> None:
    table = make()
    assert announce(table, "8.0.0.1") == Selection(0, 1, 0, b"", b"")
    second = announce(table, "8.0.0.2", left=0)
    assert second[:3] == (1, 1, 0)
    assert hosts(second) == ["8.0.0.1"]
    assert hosts(announce(table, "8.0.0.1")) == ["8.0.0.2"]
    assert hosts(announce(table, "8.0.0.3", info_hash=OTHER)) == []
    assert (table.num_torrents, table.num_peers) == (2, 3)
    assert repr(table) == "<SwarmTable 2 torrents>"


def test_seeds_are_not_given_to_seeds() -> None:
    table = make()
    for number in range(5):
        announce(table, f"8.0.0.{number}", left=0)
    announce(table, "8.0.1.1")
    assert hosts(announce(table, "8.0.0.0", left=0)) == ["8.0.1.1"]
    assert len(hosts(announce(table, "8.0.1.1"))) == 5


def test_stopped_takes_a_peer_out() -> None:
    table = make()
    announce(table, "8.0.0.1")
    announce(table, "8.0.0.2")
    stopped = announce(table, "8.0.0.1", event=Event.STOPPED)
    assert stopped == Selection(0, 1, 0, b"", b"")
    assert announce(table, "8.0.0.9", event=Event.STOPPED)[:2] == (0, 1)
    assert announce(table, "8.0.0.2", event=Event.STOPPED)[:2] == (0, 0)
    assert announce(table, "8.0.0.2", event=Event.STOPPED)[:2] == (0, 0)
    assert table.num_torrents == 0


def test_downloads_are_counted_once_and_only_for_leechers_that_were_known() -> None:
    table = make()
    assert announce(table, "8.0.0.1", left=0, event=Event.COMPLETED).num_downloaded == 0
    announce(table, "8.0.0.2")
    assert announce(table, "8.0.0.2", left=5, event=Event.COMPLETED).num_downloaded == 0
    for _ in range(3):
        last = announce(table, "8.0.0.2", left=0, event=Event.COMPLETED)
        assert last[:3] == (2, 0, 1)
    assert table.scrape(HASH) == (2, 1, 0)
    announce(table, "8.0.0.3")
    assert announce(table, "8.0.0.3", left=0).num_downloaded == 1, "it did not say so"
    announce(table, "8.0.0.3", event=Event.STOPPED)
    announce(table, "2a00::1")
    announce(table, "2a00::1", event=Event.STOPPED)
    assert table.scrape(HASH) == (2, 1, 0), "others of the torrent are there"
    announce(table, "8.0.0.1", event=Event.STOPPED)
    assert table.scrape(HASH) == (1, 1, 0)
    announce(table, "8.0.0.2", event=Event.STOPPED)
    assert table.scrape(HASH) == (0, 0, 0)


def test_families_are_kept_apart_unless_both_are_wanted() -> None:
    """BEP 7, BEP 15."""
    table = make()
    announce(table, "8.0.0.1")
    announce(table, "2001:db8::1")
    assert hosts(announce(table, "8.0.0.2")) == ["8.0.0.1"]
    assert hosts(announce(table, "2001:db8::2")) == ["2001:db8::1"]
    both = announce(table, "8.0.0.1", both=True)
    assert hosts(both) == ["2001:db8::1", "2001:db8::2", "8.0.0.2"]
    assert both[:2] == (0, 4)
    assert len(hosts(announce(table, "8.0.0.1", both=True, num_want=2))) == 2
    assert hosts(announce(table, "8.0.0.1", both=True, num_want=1)) == ["8.0.0.2"]
    assert hosts(announce(table, "8.0.0.1", both=True, num_want=0)) == []


def test_private_peers_are_not_shown_to_public_ones() -> None:
    """Limit: T4."""
    table = make()
    for host in ("8.0.0.1", "192.168.0.1", "127.0.0.1"):
        announce(table, host)
    for host in ("2001:db8::1", "fd00::1", "::1"):
        announce(table, host)
    assert hosts(announce(table, "8.0.0.1", both=True)) == ["2001:db8::1"]
    assert announce(table, "8.0.0.1")[:2] == (0, 2)
    assert hosts(announce(table, "192.168.0.1")) == ["8.0.0.1"]
    assert hosts(announce(table, "127.0.0.1")) == ["192.168.0.1", "8.0.0.1"]
    assert announce(table, "127.0.0.1")[:2] == (0, 6)
    assert [table.scrape(HASH, scope=scope)[2] for scope in (0, 1, 2)] == [2, 4, 6]


def test_silent_peers_are_forgotten() -> None:
    table = make(peer_lifetime=100)
    announce(table, "8.0.0.1", now=1000)
    announce(table, "8.0.0.2", now=1090)
    assert announce(table, "8.0.0.2", now=1100)[:2] == (0, 2)
    last = announce(table, "8.0.0.2", now=1161)
    assert last[:2] == (0, 1)
    assert hosts(last) == []


def test_silent_torrents_are_forgotten() -> None:
    table = make(peer_lifetime=1000)
    announce(table, "8.0.0.1", now=5.0, left=1)
    announce(table, "8.0.0.1", now=5.0, left=0, event=Event.COMPLETED)
    announce(table, "8.0.0.1", info_hash=OTHER, now=5)
    announce(table, "8.0.0.1", info_hash=OTHER, now=200)
    table.expire(now=1005)
    assert table.num_torrents == 2
    table.expire(now=1006)
    assert table.num_torrents == 1
    assert table.scrape(HASH) == (0, 0, 0)
    announce(table, "8.0.0.1", info_hash=OTHER, now=1100)  # moves to the end of the order
    announce(table, "8.0.0.1", now=1101)
    table.expire(now=2100)
    assert table.num_torrents == 2
    table.expire(now=2101)
    assert table.scrape(OTHER) == (0, 0, 0)
    table.expire(now=2102)
    assert table.num_torrents == 0


def test_the_oldest_torrents_go_when_there_are_too_many() -> None:
    """Limit: T2."""
    table = make(max_torrents=100)
    for number in range(1000):
        announce(table, "8.0.0.1", info_hash=number.to_bytes(20, "big"), now=number)
        assert table.num_torrents <= 100
    assert table.scrape((999).to_bytes(20, "big"))[2] == 1
    assert table.scrape((899).to_bytes(20, "big"))[2] == 0
    announce(table, "8.0.0.1", info_hash=(905).to_bytes(20, "big"), now=1300)
    for number in range(2000, 2050):
        announce(table, "8.0.0.1", info_hash=number.to_bytes(20, "big"), now=1301)
    assert table.scrape((905).to_bytes(20, "big"))[2] == 1
    assert table.scrape((906).to_bytes(20, "big"))[2] == 0


def test_old_peers_go_when_a_torrent_has_too_many() -> None:
    """Limit: T2."""
    table = make(max_peers_per_torrent=50)
    for number in range(500):
        announce(table, f"8.0.{number // 256}.{number % 256}", now=number / 10)
    assert table.num_peers == 50
    assert hosts(announce(table, "8.0.1.243", now=50))  # refreshing evicts nobody
    assert table.num_peers == 50


def test_a_torrent_that_had_to_go_begins_anew() -> None:
    table = make(max_torrents=100)
    announce(table, "8.0.0.1", now=0)
    announce(table, "8.0.0.1", left=0, event=Event.COMPLETED, now=1)
    for number in range(200):
        announce(table, "8.0.0.1", info_hash=number.to_bytes(20, "big"), now=2)
    assert announce(table, "8.0.0.1", now=3)[:3] == (0, 1, 0)


def test_no_more_are_given_than_wanted_over_all_scopes_and_families() -> None:
    table = make()
    for number in range(4):
        announce(table, f"8.0.0.{number}")
        announce(table, f"10.0.0.{number}")
        announce(table, f"2a00::{number + 1}")
        announce(table, f"fd00::{number + 1}")
    for host in ("10.0.1.1", "fd00::9"):
        for num_want, num_given in ((0, 0), (3, 3), (7, 7), (12, 12), (50, 16)):
            found = announce(table, host, num_want=num_want, both=True)
            assert len(hosts(found)) == num_given
        announce(table, host, event=Event.STOPPED)


def test_large_swarms_give_as_many_as_wanted() -> None:
    table = make()
    for number in range(500):
        announce(table, f"8.0.{number // 256}.{number % 256}", left=number % 3)
    found = hosts(announce(table, "8.0.0.5", num_want=200))
    assert len(found) == len(set(found)) == 200
    assert "8.0.0.5" not in found


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 2),
            st.sampled_from(Event),
            st.integers(0, 40),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_counts_agree_with_a_naive_recount(
    steps: list[tuple[int, int, Event, int, bool]],
) -> None:
    table = make(peer_lifetime=100)
    model: dict[str, tuple[int, float]] = {}
    now = 0.0
    for number, left, event, wait, ipv6 in steps:
        now += wait
        host = f"2001:db8::{number + 1}" if ipv6 else f"8.0.0.{number}"
        selection = announce(table, host, left=left, event=event, now=now)
        if event is Event.STOPPED:
            model.pop(host, None)
        else:
            model[host] = (left, now)
        alive = {peer for peer, (_, seen_at) in model.items() if seen_at >= now - 100}
        assert host in alive or event is Event.STOPPED
        # What is silent for longer may be counted until the next sweep, a minute later.
        seeds = sum(model[peer][0] == 0 for peer in model if model[peer][1] >= now - 160)
        leechers = sum(model[peer][0] != 0 for peer in model if model[peer][1] >= now - 160)
        assert selection.num_seeds <= sum(left == 0 for left, _ in model.values())
        assert selection.num_leechers <= sum(left != 0 for left, _ in model.values())
        if len(alive) == len(model):
            assert (selection.num_seeds, selection.num_leechers) == (seeds, leechers)
        assert host not in hosts(selection)


def test_a_clock_that_runs_backwards_does_no_harm() -> None:
    table = make()
    announce(table, "8.0.0.1", now=1e6)
    assert hosts(announce(table, "8.0.0.2", now=5)) == ["8.0.0.1"]
