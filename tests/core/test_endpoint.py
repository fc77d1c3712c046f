"""Endpoints: text and compact forms, families, what an address is good for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.endpoint import (
    Endpoint,
    is_dialable,
    is_local,
    iter_compact,
    join_compact,
    network_of,
)
from tests.strategies import endpoints, endpoints_v4, endpoints_v6

FORMS = [
    ("1.2.3.4:6881", Endpoint("1.2.3.4", 6881), "010203041ae1"),
    ("0.0.0.0:0", Endpoint("0.0.0.0", 0), "000000000000"),
    ("255.255.255.255:65535", Endpoint("255.255.255.255", 65535), "ffffffffffff"),
    ("[2001:db8::1]:80", Endpoint("2001:db8::1", 80), "20010db8" + "00" * 11 + "01" + "0050"),
    ("[::]:1", Endpoint("::", 1), "00" * 16 + "0001"),
]


@pytest.mark.parametrize(("text", "endpoint", "compact"), FORMS)
def test_forms_both_ways(text: str, endpoint: Endpoint, compact: str) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text
    assert endpoint.to_compact().hex() == compact
    assert Endpoint.from_compact(bytes.fromhex(compact)) == endpoint
    assert Endpoint.from_compact(memoryview(bytes.fromhex(compact))) == endpoint
    assert endpoint.is_ipv6 == (len(compact) == 36)


@given(endpoints)
def test_decoding_inverts_encoding(endpoint: Endpoint) -> None:
    assert Endpoint.from_compact(endpoint.to_compact()) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.make(*endpoint) == endpoint


@given(st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18))
def test_every_compact_form_has_an_endpoint(data: bytes) -> None:
    endpoint = Endpoint.from_compact(data)
    assert endpoint == Endpoint.make(*endpoint)
    if len(data) == 6 or endpoint.is_ipv6:
        assert endpoint.to_compact() == data
    else:
        assert data[:12] == bytes(10) + b"\xff\xff"


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::FFFF:102:304", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses_become_canonical(host: str, canonical: str) -> None:
    assert Endpoint.make(host, 1) == Endpoint(canonical, 1)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "1.2.3.4", "1.2.3.4:", ":6881", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1",
        "1.2.3.4: 1", "1.2.3.4:1_0", "1.2.3.4:\u0661", "1.2.3.4:000001", "1.2.3:1", "1.2.3.4.5:1",
        "01.2.3.4:1", "256.1.1.1:1", "::1:6881", "2001:db8::1", "[::1]", "[::1]:", "[::1", "[]:1",
        "[::g]:1", "example.com:80", "1.2.3.4:99999999999999999999", "[1.2.3.4:1",
    ],
)  # fmt: skip
def test_text_that_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.parse(text)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_out_of_range(port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port} is not in 0..65535"):
        Endpoint.make("1.2.3.4", port)


@pytest.mark.parametrize("length", [0, 1, 5, 7, 17, 19])
def test_compact_forms_of_other_lengths(length: int) -> None:
    with pytest.raises(ValueError, match=f"compact endpoint of {length} bytes"):
        Endpoint.from_compact(bytes(length))


@given(st.lists(endpoints_v4), st.integers(0, 5))
def test_runs_of_ipv4(many: list[Endpoint], num_trailing: int) -> None:
    data = join_compact(many)
    assert len(data) == 6 * len(many)
    assert list(iter_compact(data, ipv6=False)) == many
    assert list(iter_compact(data + bytes(num_trailing), ipv6=False)) == many


@given(st.lists(endpoints_v6), st.integers(0, 17))
def test_runs_of_ipv6(many: list[Endpoint], num_trailing: int) -> None:
    data = memoryview(join_compact(many) + bytes(num_trailing))
    assert list(iter_compact(data, ipv6=True)) == many


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("1.2.3.4:6881", True),
        ("127.0.0.1:1", True),
        ("192.168.1.1:6881", True),
        ("169.254.1.1:6881", True),
        ("[2001:db8::1]:6881", True),
        ("[::1]:6881", True),
        ("1.2.3.4:0", False),
        ("0.0.0.0:6881", False),
        ("224.0.0.1:6881", False),
        ("239.192.152.143:6771", False),
        ("240.0.0.1:6881", False),
        ("255.255.255.255:6881", False),
        ("[::]:6881", False),
        ("[ff02::1]:6881", False),
    ],
)
def test_who_can_be_dialled(text: str, is_good: bool) -> None:
    assert is_dialable(Endpoint.parse(text)) is is_good


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1", False),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("192.0.2.1", True),
        # What carries an IPv4 address is judged by that.
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True),
        ("2002:7f00:1::", True),
        ("64:ff9b::808:808", False),
        ("2002:808:808::1", False),
        ("::10.0.0.1", True),
        ("::8.8.8.8", False),
        # What the library takes for global.
        ("fec0::1", True),
        ("64:ff9b:1::808:808", True),
    ],
)
def test_which_addresses_are_local(host: str, expected: bool) -> None:
    assert is_local(host) is expected


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_the_network_that_is_counted_and_banned(host: str, network: str) -> None:
    assert network_of(host) == network


@given(endpoints_v6, st.integers(0, (1 << 64) - 1))
def test_a_subscriber_is_one_network(endpoint: Endpoint, suffix: int) -> None:
    number = int(ipaddress.IPv6Address(endpoint.host))
    neighbour = str(ipaddress.IPv6Address(number >> 64 << 64 | suffix))
    assert network_of(neighbour) == network_of(endpoint.host)
