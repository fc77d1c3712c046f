"""Packed and compact addresses."""

from __future__ import annotations

import ipaddress
import random
import timeit

import pytest

from bittern.core.endpoint import Endpoint
from bittern.dht.address import (
    Reach,
    format_packed,
    is_plausible,
    network_of,
    pack_endpoint,
    pack_host,
    reach_of,
    read_nodes,
    unpack_endpoint,
)

HOSTS = ["1.2.3.4", "255.0.255.1", "2001:db8::1", "::1", "fe80::1"]


@pytest.mark.parametrize("host", HOSTS)
def test_packing_is_what_ipaddress_does(host: str) -> None:
    packed = pack_host(host)
    assert packed == ipaddress.ip_address(host).packed
    assert format_packed(packed) == host
    endpoint = Endpoint(host, 6881)
    assert pack_endpoint(endpoint) == endpoint.to_compact()
    assert unpack_endpoint(endpoint.to_compact()) == endpoint


def test_a_scope_is_left_out() -> None:
    assert pack_host("fe80::1%eth0") == ipaddress.ip_address("fe80::1").packed


@pytest.mark.parametrize("host", ["1.2.3", "1.2.3.4.5", "1.2.3.256", "a.b.c.d", "", "1::2::3"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        pack_host(host)


REACHES = {
    Reach.PUBLIC: "1.1.1.1 9.255.255.255 11.0.0.1 100.63.0.1 100.128.0.1 126.1.1.1 128.0.0.1 "
    "169.253.0.1 172.15.0.1 172.32.0.1 192.1.0.1 192.0.3.1 192.167.0.1 198.17.0.1 198.20.0.1 "
    "198.51.101.1 203.0.112.1 203.1.113.1 223.255.255.255 2a00::1 2001:db7::1 2001:db9::1",
    Reach.LOCAL: "10.0.0.1 127.0.0.1 127.255.0.1 100.64.0.1 100.127.0.1 169.254.1.1 172.16.0.1 "
    "172.31.0.1 192.168.0.1 192.0.2.1 192.0.0.1 198.18.0.1 198.19.0.1 198.51.100.1 203.0.113.1 "
    "::1 fe80::1 febf::1 fc00::1 fd00::1 2001:db8::1",
    Reach.NOWHERE: "0.0.0.0 0.1.2.3 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::2 ff02::1 "
    "fec0::1 1::1 4000::1",
}


@pytest.mark.parametrize(
    ("host", "reach"), [(host, reach) for reach, hosts in REACHES.items() for host in hosts.split()]
)
def test_reach(host: str, reach: Reach) -> None:
    assert reach_of(pack_host(host)) is reach


def test_public_addresses_are_global_by_the_standard_library_too(rng: random.Random) -> None:
    for _ in range(2000):
        packed = rng.randbytes(4)
        address = ipaddress.IPv4Address(packed)
        if reach_of(packed) is Reach.PUBLIC:
            assert address.is_global or packed[:3] in (b"\xc0\x00\x00", b"\xc0\x58\x63"), address


@pytest.mark.parametrize(
    ("host", "port", "from_local", "expected"),
    [
        ("1.2.3.4", 1, False, True),
        ("1.2.3.4", 0, False, False),
        ("127.0.0.1", 1, False, False),
        ("127.0.0.1", 1, True, True),
        ("0.0.0.0", 1, True, False),
        ("224.0.0.1", 1, True, False),
        ("fe80::1", 1, False, False),
        ("2a00::1", 1, False, True),
    ],
)
def test_only_local_nodes_may_name_local_addresses(
    host: str, port: int, from_local: bool, expected: bool
) -> None:
    compact = pack_endpoint(Endpoint(host, port))
    assert is_plausible(compact, from_local=from_local) is expected


def test_networks() -> None:
    """Limit: N2. A /24 is one party, and so is a /64."""
    assert network_of(pack_host("1.2.3.4")) == network_of(pack_host("1.2.3.5"))
    assert network_of(pack_host("1.2.3.4")) != network_of(pack_host("1.2.4.4"))
    assert network_of(pack_host("2a00::1")) == network_of(pack_host("2a00::2:1"))
    assert network_of(pack_host("2a00::1")) != network_of(pack_host("2a00:0:0:1::1"))


def test_node_infos_are_read_up_to_eight_and_filtered() -> None:
    """Limit: N2."""
    infos = [bytes([i]) * 20 + bytes([i + 1, 1, 1, 1, 0, 80]) for i in range(12)]
    infos[1] = b"b" * 20 + pack_endpoint(Endpoint("10.0.0.1", 80))
    found = list(read_nodes(b"".join(infos), 4, from_local=False))
    assert [node_id[0] for node_id, _ in found] == [0, 2, 3, 4, 5, 6, 7]
    assert found[0] == (bytes(20), bytes([1, 1, 1, 1, 0, 80]))
    info6 = b"x" * 20 + pack_endpoint(Endpoint("2a00::1", 80))
    assert list(read_nodes(info6, 16, from_local=False)) == [(info6[:20], info6[20:])]


def test_packing_a_host_is_quicker_than_the_standard_library() -> None:
    ours = min(timeit.repeat(lambda: pack_host("198.51.100.77"), number=1000, repeat=5))
    theirs = min(
        timeit.repeat(lambda: ipaddress.ip_address("198.51.100.77").packed, number=1000, repeat=5)
    )
    assert ours < theirs
