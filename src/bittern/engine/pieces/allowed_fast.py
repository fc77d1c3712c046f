"""
Which pieces a newcomer may request while it is choked.

They let it begin, so that it soon has something to give. They are beyond what
slots give, and neighbours are granted the same ones, so all grants together are
kept small: a seed would otherwise send a few pieces to everybody and bring out
no others.

Sources: BEP 6 (allowed fast); threats.md H9.
"""

from __future__ import annotations

import ipaddress

from bittern.codec.wire import allowed_fast_set
from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash

MAX_GRANTS = 10
"""Limit: H9. Pieces for one newcomer."""
MAX_PEERS = 200
"""Limit: H9. With more peers none are granted."""
SHARE = 10
"""All grants together are at most one piece in so many."""


def grants(
    info_hash: InfoHash, endpoint: Endpoint, have: Bitfield, remote: Bitfield, *, num_peers: int
) -> list[int]:
    """
    Return the pieces to grant, of those that BEP 6 derives from the peer's address.

    Args:
        info_hash: of the torrent.
        endpoint: of the peer; BEP 6 knows IPv4 only, so others get none.
        have: pieces that we have.
        remote: pieces that the peer has; nothing for seeds and old hands.
        num_peers: connections of the torrent.
    """
    num_pieces = have.num_pieces
    count = min(MAX_GRANTS, num_pieces // (SHARE * max(1, num_peers)))
    if len(remote) >= count or num_peers > MAX_PEERS or endpoint.is_ipv6 or not have.bits:
        return []
    packed = ipaddress.IPv4Address(endpoint.host).packed
    chosen = allowed_fast_set(info_hash, packed, num_pieces, count)
    return [index for index in chosen if index in have and index not in remote]
