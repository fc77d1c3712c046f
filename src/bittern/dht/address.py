"""
Addresses as the DHT handles them: packed, compact, and what kind they are.

``packed`` is an address in network order, 4 or 16 bytes; ``compact`` is the same with
a port behind it, 6 or 18 bytes (BEP 5, BEP 32). A node serves one family, so lengths
tell the family apart. Written without ``ipaddress`` where a datagram passes, because
that costs more than the rest of an answer.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from typing import Final

from bittern.codec.krpc_message import NODE_ID_LENGTH
from bittern.core.endpoint import Endpoint
from bittern.dht.limits import MAX_NODES_PER_ANSWER

PACKED_LENGTH: Final = 4
PACKED_LENGTH_V6: Final = 16
_LOOPBACK_V6: Final = bytes(15) + b"\x01"


class Reach(enum.Enum):
    """From where an address can be reached."""

    PUBLIC = enum.auto()
    LOCAL = enum.auto()
    """Loopback, private, link-local, shared, and ranges for documentation and tests."""
    NOWHERE = enum.auto()
    """Unspecified, multicast, broadcast or reserved."""


def pack_host(host: str) -> bytes:
    """Return the packed form of an address in text form; ValueError if it is none."""
    if ":" in host:
        return ipaddress.IPv6Address(host.partition("%")[0]).packed
    packed = bytes(map(int, host.split(".")))
    if len(packed) != PACKED_LENGTH:
        raise ValueError(f"not an address: {host!r}")
    return packed


def format_packed(packed: bytes) -> str:
    """Return the text form of a packed address."""
    if len(packed) == PACKED_LENGTH:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"
    return str(ipaddress.IPv6Address(packed))


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Return the compact form of an endpoint."""
    return pack_host(endpoint.host) + endpoint.port.to_bytes(2, "big")


def unpack_endpoint(compact: bytes) -> Endpoint:
    """Return the endpoint of a compact form of 6 or 18 bytes."""
    return Endpoint(format_packed(compact[:-2]), int.from_bytes(compact[-2:], "big"))


def network_of(packed: bytes) -> bytes:
    """
    Return the network that counts as one party: /24 of IPv4, /64 of IPv6.

    Limit: N2.
    """
    return packed[:3] if len(packed) == PACKED_LENGTH else packed[:8]


def reach_of(packed: bytes) -> Reach:
    """Tell from where a packed address can be reached."""
    if len(packed) == PACKED_LENGTH_V6:
        return _reach_of_v6(packed)
    first, second, third = packed[0], packed[1], packed[2]
    if first == 0 or first >= 224:
        return Reach.NOWHERE
    match first:
        case 10 | 127:
            is_local = True
        case 100:
            is_local = 64 <= second < 128
        case 169:
            is_local = second == 254
        case 172:
            is_local = 16 <= second < 32
        case 192:
            is_local = second == 168 or (second == 0 and third in (0, 2))
        case 198:
            is_local = second in (18, 19) or (second == 51 and third == 100)
        case 203:
            is_local = second == 0 and third == 113
        case _:
            is_local = False
    return Reach.LOCAL if is_local else Reach.PUBLIC


def _reach_of_v6(packed: bytes) -> Reach:
    first = packed[0]
    if first & 0xE0 == 0x20:  # 2000::/3, the global unicast space
        return Reach.LOCAL if packed[:4] == b"\x20\x01\x0d\xb8" else Reach.PUBLIC
    if first & 0xFE == 0xFC or (first == 0xFE and packed[1] & 0xC0 == 0x80):
        return Reach.LOCAL
    return Reach.LOCAL if packed == _LOOPBACK_V6 else Reach.NOWHERE


def is_loopback(packed: bytes) -> bool:
    """Tell whether an address never leaves this machine."""
    return packed[0] == 127 if len(packed) == PACKED_LENGTH else packed == _LOOPBACK_V6


def is_plausible(compact: bytes, *, from_local: bool) -> bool:
    """
    Tell whether an address that somebody named is worth a datagram.

    Args:
        compact: the address and port that were named.
        from_local: whether who named it has a local address; only those may name
            local ones, so that nobody outside can point us at our own network.

    Limit: N2.
    """
    if compact[-2:] == b"\0\0":
        return False
    reach = reach_of(compact[:-2])
    return reach is Reach.PUBLIC or (reach is Reach.LOCAL and from_local)


def read_nodes(
    infos: bytes, packed_length: int, *, from_local: bool
) -> Iterator[tuple[bytes, bytes]]:
    """
    Read compact node infos end to end; at most eight, implausible ones left out.

    Args:
        infos: 26 or 38 bytes each.
        packed_length: 4 or 16, for the family.
        from_local: as for ``is_plausible``.

    Yields:
        Node id and compact address.

    Limit: N2.
    """
    size = NODE_ID_LENGTH + packed_length + 2
    for at in range(0, min(len(infos), MAX_NODES_PER_ANSWER * size), size):
        compact = infos[at + NODE_ID_LENGTH : at + size]
        if is_plausible(compact, from_local=from_local):
            yield infos[at : at + NODE_ID_LENGTH], compact
