"""
Which addresses an HTTP request may connect to.

A URL from a torrent, a redirect or a feed is somebody else's wish. Followed
blindly it makes us knock at routers, printers and metadata services in the local
network (server-side request forgery). So every hop of every request names its
purpose, and the purpose decides which addresses are permitted:

    purpose     public   private, loopback
    PUBLIC      yes      no
    TRACKER     yes      when the path is that of an announce or scrape
    WEB_SEED    yes      when there is no query string
    ANY         yes      yes: the user wrote the URL or listed the address

Whatever the purpose, a redirect never leads from a public address to another
kind, and unspecified, link-local (cloud metadata), multicast, broadcast and
reserved addresses are never connected to. An IPv6 address that carries an IPv4
one (NAT64, 6to4, IPv4-compatible) counts as what it carries.

Limit: N6, with libtorrent's rules for loopback trackers and local web seeds.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from urllib.parse import urlsplit

from bittern.core.endpoint import carried_address


class AddressClass(enum.Enum):
    """What kind of address it is."""

    PUBLIC = "public"
    PRIVATE = "private"
    """RFC 1918, carrier NAT (RFC 6598), unique local IPv6."""
    LOOPBACK = "loopback"
    FORBIDDEN = "forbidden"
    """Nobody's service lives there, or one that is not for us."""


class Access(enum.Enum):
    """What a request is for."""

    PUBLIC = "public"
    TRACKER = "tracker"
    WEB_SEED = "web seed"
    ANY = "any"


_TRACKER_PATH = re.compile(r"/(announce|scrape)(?![A-Za-z])")
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# Special, but harmless. Interop: proxies that work through DNS hand out addresses meant for
# benchmarks (RFC 2544) in place of public ones; documentation addresses are those of simulations.
_HARMLESS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "198.18.0.0/15",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
    )
)
_NEVER_V6 = (
    ipaddress.IPv6Network("fec0::/10"),  # site-local, given up
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local-use NAT64
    ipaddress.IPv6Network("2001::/32"),  # Teredo
)


def classify(host: str) -> AddressClass:
    """Return the kind of a literal address; ValueError if it is none."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return AddressClass.LOOPBACK
    if isinstance(address, ipaddress.IPv6Address):
        carried = carried_address(address)
        if carried is not None:
            return classify(str(carried))
        if any(address in network for network in _NEVER_V6):
            return AddressClass.FORBIDDEN
    if any(address in network for network in _PRIVATE):
        return AddressClass.PRIVATE
    if any(address in network for network in _HARMLESS):
        return AddressClass.PUBLIC
    if address.is_global and not (address.is_multicast or address.is_reserved):
        return AddressClass.PUBLIC
    return AddressClass.FORBIDDEN


def refusal(access: Access, address: str, url: str, *, came_from_public: bool) -> str | None:
    """
    Tell why a hop must not connect to ``address``, or None if it may.

    Args:
        access: the purpose of the request.
        address: the literal address that would be connected to.
        url: the hop's URL, normalised.
        came_from_public: an earlier hop was at a public address.

    Returns:
        One lower-case phrase.
    """
    kind = classify(address)
    if kind is AddressClass.PUBLIC:
        return None
    if kind is AddressClass.FORBIDDEN:
        return f"{address} is no address to connect to"
    if came_from_public:
        return f"redirect from a public address to {kind.value} {address}"
    parts = urlsplit(url)
    permitted = {
        Access.PUBLIC: False,
        Access.TRACKER: _TRACKER_PATH.search(parts.path) is not None,
        Access.WEB_SEED: not parts.query,
        Access.ANY: True,
    }[access]
    return None if permitted else f"{kind.value} address {address} is not permitted here"
