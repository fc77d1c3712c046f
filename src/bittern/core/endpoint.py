"""
Network addresses: endpoint, compact forms, and which addresses are what.

Sources: BEP 23 and BEP 5 (6 bytes for IPv4), BEP 7 and BEP 32 (18 bytes for
IPv6). Both are the address in network order and a 16-bit big-endian port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple

COMPACT_LENGTH = 6
COMPACT_LENGTH_V6 = 18

# Networks of IPv6 whose addresses carry an IPv4 address, and the bit at which it ends.
_CARRIERS = (
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
# Networks of IPv6 that ``ipaddress`` takes for global.
_LOCAL_V6 = (
    ipaddress.IPv6Network("fec0::/10"),  # site-local, given up
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local-use NAT64
)


class Endpoint(NamedTuple):
    """
    An IP address in its canonical text form and a port.

    IPv4-mapped IPv6 addresses never occur: ``make`` turns them into IPv4.
    """

    host: str
    port: int

    @classmethod
    def make(cls, host: str, port: int) -> Endpoint:
        """Return the endpoint with its address in canonical form; ValueError if it is none."""
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not in 0..65535")
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``1.2.3.4:6881`` or ``[2001:db8::1]:6881``; ValueError if it is neither."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"an IPv6 address needs brackets: {text!r}")
        if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5:
            raise ValueError(f"no port in {text!r}")
        return cls.make(host, int(port))

    @classmethod
    def from_compact(cls, data: bytes | memoryview) -> Endpoint:
        """Read one compact endpoint of 6 or 18 bytes; ValueError for any other length."""
        if len(data) not in (COMPACT_LENGTH, COMPACT_LENGTH_V6):
            raise ValueError(f"compact endpoint of {len(data)} bytes")
        raw = bytes(data)
        port = int.from_bytes(raw[-2:], "big")
        if len(raw) == COMPACT_LENGTH:
            # Peers and trackers name hundreds at a time.
            return cls(f"{raw[0]}.{raw[1]}.{raw[2]}.{raw[3]}", port)
        address = ipaddress.IPv6Address(raw[:16])
        return cls(str(address.ipv4_mapped or address), port)

    def to_compact(self) -> bytes:
        """Return the compact form, 6 bytes for IPv4 and 18 for IPv6."""
        if ":" in self.host:
            packed = ipaddress.IPv6Address(self.host).packed
        else:
            packed = bytes(map(int, self.host.split(".")))
            if len(packed) != COMPACT_LENGTH - 2:
                raise ValueError(f"not an address: {self.host!r}")
        return packed + self.port.to_bytes(2, "big")

    @property
    def is_ipv6(self) -> bool:
        """True for an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def iter_compact(data: bytes | memoryview, *, ipv6: bool) -> Iterator[Endpoint]:
    """Read a run of compact endpoints; an incomplete last one is left out."""
    size = COMPACT_LENGTH_V6 if ipv6 else COMPACT_LENGTH
    for at in range(0, len(data) - size + 1, size):
        yield Endpoint.from_compact(data[at : at + size])


def join_compact(endpoints: Iterable[Endpoint]) -> bytes:
    """Return the compact forms end to end; the caller keeps families apart."""
    return b"".join(endpoint.to_compact() for endpoint in endpoints)


def is_dialable(endpoint: Endpoint) -> bool:
    """Tell whether a peer can live there at all: a unicast address and a port."""
    address = ipaddress.ip_address(endpoint.host)
    return endpoint.port != 0 and not (
        address.is_unspecified
        or address.is_multicast
        or (isinstance(address, ipaddress.IPv4Address) and address.is_reserved)
    )


def carried_address(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return what an IPv6 address leads to that carries an IPv4 one (mapped, NAT64, ...)."""
    for network, shift in _CARRIERS:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> shift & 0xFFFF_FFFF)
    return None


def is_local(host: str) -> bool:
    """
    Tell whether an address is loopback, private, link-local, site-local or shared (CGNAT) space.

    An IPv6 address that carries an IPv4 address is judged by that.
    """
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        carried = carried_address(address)
        if carried is not None:
            return not carried.is_global
        if any(address in network for network in _LOCAL_V6):
            return True
    return not address.is_global


def network_of(host: str) -> str:
    """
    Return the key under which an address is counted and banned.

    An IPv4 address stands for itself, an IPv6 address for its /64, since one
    subscriber owns all of that.
    """
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Network((host, 64), strict=False).network_address) + "/64"
