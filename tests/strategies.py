"""Hypothesis strategies for the field's values, shared by all tests."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, InfoHashV2, NodeId, PeerId

ports = st.integers(0, 65_535)
ipv4_hosts = st.integers(0, (1 << 32) - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
ipv6_hosts = (
    st.integers(0, (1 << 128) - 1)
    .map(ipaddress.IPv6Address)
    .filter(lambda address: address.ipv4_mapped is None)
    .map(str)
)
"""Without the IPv4-mapped ones, which an ``Endpoint`` never has."""
hosts = ipv4_hosts | ipv6_hosts

endpoints_v4 = st.builds(Endpoint, ipv4_hosts, ports)
endpoints_v6 = st.builds(Endpoint, ipv6_hosts, ports)
endpoints = endpoints_v4 | endpoints_v6

info_hashes = st.binary(min_size=20, max_size=20).map(InfoHash)
info_hashes_v2 = st.binary(min_size=32, max_size=32).map(InfoHashV2)
peer_ids = st.binary(min_size=20, max_size=20).map(PeerId)
node_ids = st.binary(min_size=20, max_size=20).map(NodeId)

instants = st.floats(0, 1e9, allow_nan=False, allow_infinity=False)
"""Monotonic seconds."""

piece_lengths = st.sampled_from(
    [1, 2, 1000, BLOCK_LENGTH - 1, BLOCK_LENGTH, BLOCK_LENGTH + 1, 3 * BLOCK_LENGTH, 1 << 20]
)


@st.composite
def bitfields(draw: st.DrawFn, num_pieces: int | None = None, max_pieces: int = 70) -> Bitfield:
    """Draw a bitfield; the number of pieces is drawn too unless given."""
    count = draw(st.integers(0, max_pieces)) if num_pieces is None else num_pieces
    indices = draw(st.sets(st.integers(0, count - 1))) if count else set()
    return Bitfield.of(count, indices)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Draw a geometry of a v1 torrent, or of a v2 torrent with short pieces in the middle."""
    piece_length = draw(piece_lengths)
    if draw(st.booleans()):
        length = draw(st.integers(0, 20 * piece_length))
        return Geometry.contiguous(piece_length, length, length)
    lengths = draw(st.lists(st.integers(1, 4 * piece_length), max_size=8))
    short: dict[int, int] = {}
    num_pieces = 0
    for length in lengths:
        num_pieces += -(-length // piece_length)
        if length % piece_length:
            short[num_pieces - 1] = length % piece_length
    return Geometry(piece_length, num_pieces, short, sum(lengths))
