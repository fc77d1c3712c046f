"""net.access: what kind of address, and whether a request may go there (N6)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.net.access import Access, AddressClass, classify, refusal

PUBLIC, PRIVATE = AddressClass.PUBLIC, AddressClass.PRIVATE
LOOPBACK, FORBIDDEN = AddressClass.LOOPBACK, AddressClass.FORBIDDEN


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("1.1.1.1", PUBLIC),
        ("9.255.255.255", PUBLIC),
        ("10.0.0.0", PRIVATE),
        ("10.255.255.255", PRIVATE),
        ("11.0.0.0", PUBLIC),
        ("172.15.255.255", PUBLIC),
        ("172.16.0.1", PRIVATE),
        ("172.31.255.255", PRIVATE),
        ("172.32.0.0", PUBLIC),
        ("192.168.0.1", PRIVATE),
        ("100.63.255.255", PUBLIC),
        ("100.64.0.1", PRIVATE),
        ("100.127.255.255", PRIVATE),
        ("100.128.0.0", PUBLIC),
        ("127.0.0.1", LOOPBACK),
        ("127.255.255.254", LOOPBACK),
        ("0.0.0.0", FORBIDDEN),
        ("0.1.2.3", FORBIDDEN),
        ("169.254.169.254", FORBIDDEN),
        ("192.0.2.1", PUBLIC),
        ("198.18.0.7", PUBLIC),
        ("198.17.0.0", PUBLIC),
        ("192.0.0.1", FORBIDDEN),
        ("224.0.0.1", FORBIDDEN),
        ("239.255.255.250", FORBIDDEN),
        ("240.0.0.1", FORBIDDEN),
        ("255.255.255.255", FORBIDDEN),
        ("2606:4700::1111", PUBLIC),
        ("::1", LOOPBACK),
        ("::", FORBIDDEN),
        ("fc00::1", PRIVATE),
        ("fdff::1", PRIVATE),
        ("fe80::1", FORBIDDEN),
        ("fec0::1", FORBIDDEN),
        ("ff02::1", FORBIDDEN),
        ("2001:db8::1", PUBLIC),
        ("100::1", FORBIDDEN),
        ("2001:0:7f00:1::", FORBIDDEN),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::ffff:8.8.8.8", PUBLIC),
        ("::127.0.0.1", LOOPBACK),
        ("::10.0.0.1", PRIVATE),
        ("64:ff9b::7f00:1", LOOPBACK),
        ("64:ff9b::808:808", PUBLIC),
        ("64:ff9b:1::808:808", FORBIDDEN),
        ("2002:7f00:1::", LOOPBACK),
        ("2002:a9fe:a9fe::1", FORBIDDEN),
        ("2002:a00:1::", PRIVATE),
    ],
)
def test_addresses_have_a_class(host: str, kind: AddressClass) -> None:
    assert classify(host) is kind


def test_names_have_none() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        classify("localhost")


@given(st.ip_addresses())
def test_no_local_address_counts_as_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if classify(str(address)) is PUBLIC:
        assert not address.is_loopback
        assert not address.is_multicast
        assert not address.is_link_local
        assert not address.is_unspecified


ANNOUNCE = "http://h/x/announce?info_hash=a"
ROWS = [
    # purpose, URL, local addresses permitted
    (Access.PUBLIC, "http://h/announce", False),
    (Access.TRACKER, ANNOUNCE, True),
    (Access.TRACKER, "http://h/announce.php", True),
    (Access.TRACKER, "http://h/scrape?info_hash=a", True),
    (Access.TRACKER, "http://h/", False),
    (Access.TRACKER, "http://h/announcements", False),
    (Access.TRACKER, "http://h/cgi?x=/announce", False),
    (Access.TRACKER, "http://h/setup.cgi#/announce", False),
    (Access.WEB_SEED, "http://h/files/a.iso", True),
    (Access.WEB_SEED, "http://h/files?reboot=1", False),
    (Access.ANY, "http://h/x?y", True),
]


@pytest.mark.parametrize(("access", "url", "permitted"), ROWS)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.168.1.1", "fd00::1", "100.64.0.1"])
def test_local_addresses_depend_on_the_purpose(
    access: Access, url: str, permitted: bool, address: str
) -> None:
    found = refusal(access, address, url, came_from_public=False)
    assert (found is None) is permitted
    after = refusal(access, address, url, came_from_public=True)
    assert after is not None
    assert "redirect from a public address" in after


@pytest.mark.parametrize(("access", "url", "_"), ROWS)
@pytest.mark.parametrize("came_from_public", [False, True])
def test_public_addresses_are_always_permitted(
    access: Access, url: str, _: bool, came_from_public: bool
) -> None:
    assert refusal(access, "1.1.1.1", url, came_from_public=came_from_public) is None


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "::", "224.0.0.1", "fe80::1"])
def test_some_addresses_are_never_permitted(access: Access, address: str) -> None:
    for came_from_public in (False, True):
        found = refusal(access, address, ANNOUNCE, came_from_public=came_from_public)
        assert found == f"{address} is no address to connect to"
