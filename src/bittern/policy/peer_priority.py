"""
Canonical peer priority: an order of connections on which both ends agree.

Everybody prefers the pairs of addresses with a high number, so newcomers find
room in a full swarm and an attacker who fills slots is displaced as likely as
anybody else.

Source: BEP 40.
"""

from __future__ import annotations

import ipaddress

from bittern.core.crc32c import crc32c
from bittern.core.endpoint import Endpoint


def canonical_priority(ours: Endpoint, theirs: Endpoint) -> int:
    """
    Return the priority of the connection between two endpoints, 32 bits; the higher the better.

    It is the same whichever end asks. Ports count only where the addresses are equal.

    Raises:
        ValueError: one is IPv4 and the other IPv6.

    Source: BEP 40 (overview).
    """
    if ours.is_ipv6 != theirs.is_ipv6:
        raise ValueError(f"{ours} and {theirs} are of different families")
    if ours.host == theirs.host:
        ports = sorted((ours.port, theirs.port))
        return crc32c(ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big"))
    packed = [ipaddress.ip_address(endpoint.host).packed for endpoint in (ours, theirs)]
    num_equal = next(i for i, (a, b) in enumerate(zip(*packed, strict=True)) if a != b)
    # BEP 40: two whole bytes of IPv4 and six of IPv6 count, of nearer ones one more than is equal.
    num_whole = max(6 if ours.is_ipv6 else 2, num_equal + 1)
    size = len(packed[0])
    mask = int.from_bytes(b"\xff" * num_whole + b"\x55" * (size - num_whole), "big")
    masked = sorted(int.from_bytes(address, "big") & mask for address in packed)
    return crc32c(b"".join(value.to_bytes(size, "big") for value in masked))
