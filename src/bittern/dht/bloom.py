"""
Bloom filters that count a swarm without naming anybody.

256 bytes, two bits per address, taken from its SHA-1. Unions are a bitwise or; the
number of members follows from the zero bits left and breaks down near 6,000.

Source: BEP 33.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

FILTER_LENGTH: Final = 256
_NUM_BITS = FILTER_LENGTH * 8
_NUM_HASHES = 2


def _bits(packed: bytes) -> tuple[int, int]:
    """Return the indices of an address's two bits."""
    digest = hashlib.sha1(packed, usedforsecurity=False).digest()
    return (digest[0] | digest[1] << 8) % _NUM_BITS, (digest[2] | digest[3] << 8) % _NUM_BITS


def make_filter(addresses: Iterable[bytes]) -> bytes:
    """Return the filter of packed addresses, without ports."""
    made = bytearray(FILTER_LENGTH)
    for packed in addresses:
        for index in _bits(packed):
            made[index >> 3] |= 1 << (index & 7)
    return bytes(made)


def may_contain(bloom: bytes, packed: bytes) -> bool:
    """Tell whether an address is in a filter of 256 bytes; wrong now and then when it is not."""
    return all(bloom[index >> 3] >> (index & 7) & 1 for index in _bits(packed))


def join_filters(filters: Iterable[bytes]) -> bytes:
    """Return the union of filters of 256 bytes each."""
    joined = 0
    for each in filters:
        joined |= int.from_bytes(each, "little")
    return joined.to_bytes(FILTER_LENGTH, "little")


def estimate_members(bloom: bytes) -> float:
    """Return how many addresses are probably in a filter of 256 bytes."""
    num_zero = _NUM_BITS - int.from_bytes(bloom, "little").bit_count()
    # A full filter says "many"; BEP 33 has no clamp there and would take log(0).
    share = max(1, min(_NUM_BITS - 1, num_zero)) / _NUM_BITS
    if num_zero == _NUM_BITS:
        return 0.0
    return math.log(share) / (_NUM_HASHES * math.log(1 - 1 / _NUM_BITS))
