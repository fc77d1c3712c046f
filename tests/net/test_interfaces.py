"""net.interfaces: which interfaces there are, and who is a neighbour on them."""

from __future__ import annotations

import sys
from ipaddress import ip_interface
from typing import Any

import ifaddr
import pytest

from bittern.net.interfaces import Interface, interfaces_for, is_neighbour, list_interfaces


def interface(name: str, index: int, *addresses: str) -> Interface:
    return Interface(name, index, tuple(ip_interface(address) for address in addresses))


LO = interface("lo", 1, "127.0.0.1/8", "::1/128")
LAN = interface("eth0", 2, "192.168.1.5/24", "2001:db8:1::5/64", "fe80::5/64")
WLAN = interface("wlan0", 3, "10.1.2.3/16")
ALL = (LO, LAN, WLAN)


def test_this_machine_has_a_loopback_interface() -> None:
    loopback = [each for each in list_interfaces() if each.is_loopback]
    assert any("127.0.0.1" in {str(a.ip) for a in each.addresses} for each in loopback)
    if sys.platform == "linux":
        assert loopback[0].index == 1
    assert all(each.addresses for each in list_interfaces())


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ((), (LAN, WLAN)),
        (("0.0.0.0",), (interface("eth0", 2, "192.168.1.5/24"), WLAN)),
        (("::",), (interface("eth0", 2, "2001:db8:1::5/64", "fe80::5/64"),)),
        (("192.168.1.5",), (interface("eth0", 2, "192.168.1.5/24"),)),
        (("2001:DB8:1:0::5",), (interface("eth0", 2, "2001:db8:1::5/64"),)),
        (("127.0.0.1",), (interface("lo", 1, "127.0.0.1/8"),)),
        (("192.168.1.6",), ()),
        (("localhost",), ()),
        (
            ("192.168.1.5", "2001:db8:1::5"),
            (interface("eth0", 2, "192.168.1.5/24", "2001:db8:1::5/64"),),
        ),
        (
            ("127.0.0.1", "::"),
            (
                interface("lo", 1, "127.0.0.1/8"),
                interface("eth0", 2, "2001:db8:1::5/64", "fe80::5/64"),
            ),
        ),
    ],
)
def test_where_neighbours_reach_who_listens_there(
    hosts: tuple[str, ...], found: tuple[Interface, ...]
) -> None:
    assert interfaces_for(hosts, ALL) == found


def test_the_system_is_asked_by_default() -> None:
    assert [each.is_loopback for each in interfaces_for(("127.0.0.1",))] == [True]


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("192.168.1.77", True),
        ("192.168.1.5", True),
        ("192.168.2.1", False),
        ("10.1.250.1", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
        ("8.8.8.8", False),
        ("2001:db8:1::77", True),
        ("2001:db8:2::77", False),
        ("fe80::77", False),
    ],
)
def test_neighbours_are_in_a_network_of_ours(host: str, is_near: bool) -> None:
    assert is_neighbour(host, (LAN, WLAN)) is is_near


def test_what_the_system_says_is_read_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapters() -> list[Any]:
        return [
            ifaddr.Adapter("no-index", "", [ifaddr.IP("10.0.0.1", 24, "")], index=None),
            ifaddr.Adapter("bare", "", [], index=7),
            ifaddr.Adapter(
                "odd",
                "",
                [ifaddr.IP("what", 24, ""), ifaddr.IP(("fe80::1%odd", 0, 8), 64, "")],
                index=8,
            ),
        ]

    monkeypatch.setattr(ifaddr, "get_adapters", adapters)
    assert list_interfaces() == (interface("odd", 8, "fe80::1/64"),)

    def fail() -> list[Any]:
        raise OSError("no such thing")

    monkeypatch.setattr(ifaddr, "get_adapters", fail)
    assert list_interfaces() == ()
