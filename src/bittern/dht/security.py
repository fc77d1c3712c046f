"""
Node ids tied to addresses: check and make them.

The first 21 bits of a node id are those of a CRC32C over the masked address and a
number from 0 to 7 that is also the last three bits of the id, so that whoever has one
address can choose among few places. Local addresses are exempt.

Source: BEP 42.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bittern.core.crc32c import crc32c
from bittern.core.ids import NodeId
from bittern.dht.address import PACKED_LENGTH, Reach, reach_of

_MASK: Final = bytes.fromhex("030f3fff")
_MASK_V6: Final = bytes.fromhex("0103070f1f3f7fff")


def _prefix_of(packed: bytes, number: int) -> int:
    """Return the 21 bits that an id with ``number`` as its last byte starts with."""
    mask = _MASK if len(packed) == PACKED_LENGTH else _MASK_V6
    masked = bytearray(a & b for a, b in zip(packed, mask, strict=False))
    masked[0] |= (number & 7) << 5
    return crc32c(masked) >> 11


def is_verified(node_id: bytes, packed: bytes) -> bool:
    """
    Tell whether a node at ``packed`` may have ``node_id``.

    Args:
        node_id: 20 bytes.
        packed: 4 or 16 bytes; any id is right at a local address.
    """
    if int.from_bytes(node_id[:3], "big") >> 3 == _prefix_of(packed, node_id[19]):
        return True
    return reach_of(packed) is Reach.LOCAL


def make_node_id(random_bytes: Callable[[int], bytes], packed: bytes | None = None) -> NodeId:
    """
    Make a fresh node id.

    Args:
        random_bytes: gives that many unpredictable bytes.
        packed: our address as others see it; None while it is not known.
    """
    made = bytearray(random_bytes(NodeId.SIZE))
    if packed is not None:
        prefix = _prefix_of(packed, made[19])
        made[:3] = (prefix << 3 | made[2] & 7).to_bytes(3, "big")
    return NodeId(made)
