"""
Handshake and peer messages as bytes.

A message is a 4-byte big-endian length, one byte of id and a payload; length 0
is the keep-alive. Encoders return whole messages. Decoding of the stream is in
``proto.peer``, which walks its buffer with the ``struct`` objects made here and
asks ``check_length`` before it keeps anything of an incomplete message.

====  ==============  ==========================================  ==============
id    message         payload                                     length, id incl.
====  ==============  ==========================================  ==============
0-3   flags           none                                        1
4     have            index (4)                                   5
5     bitfield        ceil(pieces / 8) bytes                      1 + that
6     request         index (4) begin (4) length (4)              13
7     piece           index (4) begin (4) block                   9 + block
8     cancel          as request                                  13
9     port            port (2)                                    3
13    suggest piece   index (4)                                   5
14    have all        none                                        1
15    have none       none                                        1
16    reject request  as request                                  13
17    allowed fast    index (4)                                   5
20    extended        extension id (1) and its payload            >= 2
21    hash request    root (32) base, index, length, proofs (4)   49
22    hashes          as hash request, then 32-byte hashes        49 + 32 n
23    hash reject     as hash request                             49
====  ==============  ==========================================  ==============

Sources: BEP 3 (0-8), BEP 5 (9), BEP 6 (13-17), BEP 10 (20), BEP 52 (21-23).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1

from bittern.core.errors import WireDecodeError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.ids import InfoHash, PeerId

PROTOCOL_NAME = b"\x13BitTorrent protocol"
HANDSHAKE_LENGTH = 68
"""Length of the handshake: 20 of protocol name, 8 reserved, 20 info hash, 20 peer id (BEP 3)."""

MAX_MESSAGE_LENGTH = 524_284
"""Limit: H1. No message of any type is longer, so that 512 KiB hold it; libtorrent takes 1 MiB."""
MAX_BITFIELD_LENGTH = 262_145
"""Limit: H1. A bitfield before the metadata is known: 2,097,152 pieces."""
MAX_EXTENDED_LENGTH = 262_144
"""Limit: H1. An extended message."""
MAX_HASHES = 8192 + 32
"""Limit: H1, H10. Hashes in one ``hashes`` message: as many as are served, and the proof."""

HASH_REQUEST_LENGTH = 49
"""Length of a hash request: id, root and four numbers (BEP 52)."""


class MessageId(enum.IntEnum):
    """The one-byte ids of peer messages."""

    CHOKE = 0
    UNCHOKE = 1
    INTERESTED = 2
    NOT_INTERESTED = 3
    HAVE = 4
    BITFIELD = 5
    REQUEST = 6
    PIECE = 7
    CANCEL = 8
    PORT = 9
    SUGGEST_PIECE = 13
    HAVE_ALL = 14
    HAVE_NONE = 15
    REJECT_REQUEST = 16
    ALLOWED_FAST = 17
    EXTENDED = 20
    HASH_REQUEST = 21
    HASHES = 22
    HASH_REJECT = 23


EXACT_LENGTHS: dict[int, int] = {
    MessageId.CHOKE: 1,
    MessageId.UNCHOKE: 1,
    MessageId.INTERESTED: 1,
    MessageId.NOT_INTERESTED: 1,
    MessageId.HAVE: 5,
    MessageId.REQUEST: 13,
    MessageId.CANCEL: 13,
    MessageId.PORT: 3,
    MessageId.SUGGEST_PIECE: 5,
    MessageId.HAVE_ALL: 1,
    MessageId.HAVE_NONE: 1,
    MessageId.REJECT_REQUEST: 13,
    MessageId.ALLOWED_FAST: 5,
    MessageId.HASH_REQUEST: HASH_REQUEST_LENGTH,
    MessageId.HASH_REJECT: HASH_REQUEST_LENGTH,
}
"""Limit: H1. Message lengths, id included, that admit no choice."""

LENGTH_PREFIX = struct.Struct(">I")
LENGTH_AND_ID = struct.Struct(">IB")
PIECE_HEADER = struct.Struct(">IBII")
"""Length prefix, id, index, begin: what stands before a block."""
PIECE_HEADER_LENGTH = PIECE_HEADER.size
THREE_NUMBERS = struct.Struct(">III")
REQUEST_MESSAGE = struct.Struct(">IBIII")
REQUEST_LENGTH = REQUEST_MESSAGE.size
INDEX_MESSAGE = struct.Struct(">IBI")
HAVE_LENGTH = INDEX_MESSAGE.size
_HAVE_START = LENGTH_AND_ID.pack(5, 4)
_REQUEST_START = LENGTH_AND_ID.pack(13, 6)
_TWO_NUMBERS = struct.Struct(">II")
BLOCK_MESSAGE_LENGTH = PIECE_HEADER_LENGTH + BLOCK_LENGTH
"""Bytes of a ``piece`` message with a whole block."""
MAX_BLOCK_BATCH = 64
"""Blocks of 16 KiB that are decoded together: what one read of 1 MiB brings."""
_HASH_REQUEST = struct.Struct(">IB32sIIII")

KEEP_ALIVE = bytes(4)
CHOKE = LENGTH_AND_ID.pack(1, MessageId.CHOKE)
UNCHOKE = LENGTH_AND_ID.pack(1, MessageId.UNCHOKE)
INTERESTED = LENGTH_AND_ID.pack(1, MessageId.INTERESTED)
NOT_INTERESTED = LENGTH_AND_ID.pack(1, MessageId.NOT_INTERESTED)
HAVE_ALL = LENGTH_AND_ID.pack(1, MessageId.HAVE_ALL)
HAVE_NONE = LENGTH_AND_ID.pack(1, MessageId.HAVE_NONE)


@dataclass(frozen=True, slots=True)
class Reserved:
    """
    The reserved bits of a handshake that we know.

    Source: BEP 4 (register), BEP 5 (DHT), BEP 6 (fast), BEP 10 (extensions), BEP 52 (v2).
    """

    has_extensions: bool = True
    has_fast: bool = True
    has_dht: bool = False
    has_v2: bool = False

    def to_bytes(self) -> bytes:
        """Return the 8 reserved bytes."""
        bits = bytearray(8)
        bits[5] = 0x10 if self.has_extensions else 0
        bits[7] = (
            (0x01 if self.has_dht else 0)
            | (0x04 if self.has_fast else 0)
            | (0x10 if self.has_v2 else 0)
        )
        return bytes(bits)

    @classmethod
    def from_bytes(cls, bits: bytes) -> Reserved:
        """Read the 8 reserved bytes; bits that we do not know are ignored."""
        return cls(
            has_extensions=bool(bits[5] & 0x10),
            has_fast=bool(bits[7] & 0x04),
            has_dht=bool(bits[7] & 0x01),
            has_v2=bool(bits[7] & 0x10),
        )


@dataclass(frozen=True, slots=True)
class Handshake:
    """The first 68 bytes of a connection (BEP 3)."""

    info_hash: InfoHash
    peer_id: PeerId
    reserved: Reserved


def encode_handshake(info_hash: bytes, peer_id: bytes, reserved: Reserved) -> bytes:
    """Return the 68 bytes of a handshake."""
    return PROTOCOL_NAME + reserved.to_bytes() + info_hash + peer_id


def decode_handshake(data: bytes | bytearray | memoryview) -> Handshake:
    """
    Read 68 bytes of handshake.

    Raises:
        WireDecodeError: the protocol name is another one, or there are fewer bytes.
    """
    raw = bytes(data[:HANDSHAKE_LENGTH])
    check_handshake_start(raw)
    if len(raw) < HANDSHAKE_LENGTH:
        raise WireDecodeError(f"handshake of {len(raw)} bytes", limit=HANDSHAKE_LENGTH)
    return Handshake(InfoHash(raw[28:48]), PeerId(raw[48:68]), Reserved.from_bytes(raw[20:28]))


def check_handshake_start(data: bytes | bytearray | memoryview) -> None:
    """
    Refuse a handshake as soon as its first bytes are wrong.

    Raises:
        WireDecodeError: what is there of the protocol name differs from ours.
    """
    start = bytes(data[: len(PROTOCOL_NAME)])
    if not PROTOCOL_NAME.startswith(start):
        raise WireDecodeError("no BitTorrent handshake", offset=0)


def check_length_prefix(length: int) -> None:
    """
    Refuse a message that no type allows, before its type is known.

    Raises:
        WireDecodeError: longer than any message.
    """
    if length > MAX_MESSAGE_LENGTH:
        raise WireDecodeError(f"message of {length} bytes", limit=MAX_MESSAGE_LENGTH)


def check_length(message_id: int, length: int, *, num_pieces: int | None) -> None:
    """
    Refuse a message whose length its type does not allow, before it is buffered.

    Args:
        message_id: the byte after the length prefix.
        length: value of the length prefix, >= 1; id included.
        num_pieces: of the torrent; None while the metadata is unknown.

    Raises:
        WireDecodeError: the length is impossible. ``limit`` is the permitted one.
    """
    exact = EXACT_LENGTHS.get(message_id)
    if exact is not None:
        if length != exact:
            raise WireDecodeError(
                f"{MessageId(message_id).name.lower()} message of {length} bytes", limit=exact
            )
        return
    low, high = 1, MAX_MESSAGE_LENGTH
    if message_id == MessageId.PIECE:
        low, high = 10, 9 + BLOCK_LENGTH
    elif message_id == MessageId.BITFIELD:
        if num_pieces is None:
            high = MAX_BITFIELD_LENGTH
        else:
            low = high = 1 + (num_pieces + 7) // 8
    elif message_id == MessageId.EXTENDED:
        low, high = 2, MAX_EXTENDED_LENGTH
    elif message_id == MessageId.HASHES:
        low, high = HASH_REQUEST_LENGTH + 32, HASH_REQUEST_LENGTH + 32 * MAX_HASHES
        if (length - HASH_REQUEST_LENGTH) % 32:
            raise WireDecodeError(f"hashes message of {length} bytes")
    if not low <= length <= high:
        raise WireDecodeError(
            f"message {message_id} of {length} bytes", limit=high if length > high else low
        )


def decode_haves(view: memoryview, at: int, *, num_pieces: int) -> list[int]:
    """
    Return the indices of the ``have`` messages, one after the other, that start at ``at``.

    The first one is returned in any case, others up to the first that is not below
    ``num_pieces``.
    """
    indices: list[int] = []
    end = len(view) - (len(view) - at) % HAVE_LENGTH
    for length, message_id, index in INDEX_MESSAGE.iter_unpack(view[at:end]):
        if length != 5 or message_id != MessageId.HAVE or (index >= num_pieces and indices):
            break
        indices.append(index)
    return indices


def encode_have(index: int) -> bytes:
    """Return a ``have`` message."""
    return INDEX_MESSAGE.pack(5, MessageId.HAVE, index)


def encode_haves(indices: Iterable[int]) -> bytes:
    """Return a ``have`` message for each index, end to end."""
    return b"".join([_HAVE_START + index.to_bytes(4, "big") for index in indices])


def encode_index(message_id: MessageId, index: int) -> bytes:
    """Return a message of one piece index: have, suggest piece or allowed fast."""
    return INDEX_MESSAGE.pack(5, message_id, index)


def encode_bitfield(payload: bytes) -> bytes:
    """Return a ``bitfield`` message around its wire form."""
    return LENGTH_AND_ID.pack(1 + len(payload), MessageId.BITFIELD) + payload


def encode_request(index: int, begin: int, length: int) -> bytes:
    """Return a ``request`` message."""
    return REQUEST_MESSAGE.pack(13, MessageId.REQUEST, index, begin, length)


def encode_requests(index: int, begin: int, end: int) -> bytes:
    """Return ``request`` messages for the blocks of 16 KiB, the last perhaps shorter, of a run."""
    head = _REQUEST_START + index.to_bytes(4, "big")
    return head + head.join(_request_ends(begin, end))


@lru_cache(maxsize=64)
def _request_ends(begin: int, end: int) -> list[bytes]:
    """Return what follows the index in each of the messages: the same for many pieces."""
    return [
        _TWO_NUMBERS.pack(at, min(BLOCK_LENGTH, end - at)) for at in range(begin, end, BLOCK_LENGTH)
    ]


def encode_cancel(index: int, begin: int, length: int) -> bytes:
    """Return a ``cancel`` message."""
    return REQUEST_MESSAGE.pack(13, MessageId.CANCEL, index, begin, length)


def encode_reject(index: int, begin: int, length: int) -> bytes:
    """Return a ``reject request`` message (BEP 6)."""
    return REQUEST_MESSAGE.pack(13, MessageId.REJECT_REQUEST, index, begin, length)


def encode_piece(index: int, begin: int, block: bytes | memoryview) -> bytes:
    """Return a ``piece`` message; the data path writes headers itself and copies no block."""
    return PIECE_HEADER.pack(9 + len(block), MessageId.PIECE, index, begin) + block


def decode_block_batch(
    view: memoryview, at: int
) -> tuple[tuple[int, ...], tuple[int, ...], list[memoryview]]:
    """
    Return indices, begins and payloads of the blocks of 16 KiB that come next.

    Args:
        view: what was received.
        at: where a message starts.

    Returns:
        Up to ``MAX_BLOCK_BATCH`` whole blocks, as many as stand before anything else; perhaps none.
    """
    count = min((len(view) - at) // BLOCK_MESSAGE_LENGTH, MAX_BLOCK_BATCH)
    fields = _block_headers(count).unpack_from(view, at)
    lengths, kinds = fields[0::4], fields[1::4]
    if lengths != (9 + BLOCK_LENGTH,) * count or kinds != (7,) * count:
        heads = zip(lengths, kinds, strict=True)
        count = next(n for n, head in enumerate(heads) if head != (9 + BLOCK_LENGTH, 7))
        fields = fields[: 4 * count]
    end = at + count * BLOCK_MESSAGE_LENGTH
    starts = range(at + PIECE_HEADER_LENGTH, end, BLOCK_MESSAGE_LENGTH)
    return fields[2::4], fields[3::4], [view[start : start + BLOCK_LENGTH] for start in starts]


@lru_cache(maxsize=MAX_BLOCK_BATCH + 1)
def _block_headers(count: int) -> struct.Struct:
    """Return what reads the headers of so many blocks and skips their payloads."""
    return struct.Struct(">" + f"IBII{BLOCK_LENGTH}x" * count)


def encode_port(port: int) -> bytes:
    """Return a ``port`` message: where our DHT node listens (BEP 5)."""
    return struct.pack(">IBH", 3, MessageId.PORT, port)


def encode_extended(extension_id: int, payload: bytes) -> bytes:
    """Return an extended message; id 0 is the extended handshake (BEP 10)."""
    return struct.pack(">IBB", 2 + len(payload), MessageId.EXTENDED, extension_id) + payload


@dataclass(frozen=True, slots=True)
class HashRange:
    """
    Which hashes of a file's Merkle tree are meant (BEP 52).

    ``base_layer`` counts from the leaves, 0 being blocks; ``index`` and
    ``length`` count hashes of that layer; ``proof_layers`` is how many layers
    of uncles above it are wanted.
    """

    pieces_root: bytes
    base_layer: int
    index: int
    length: int
    proof_layers: int


def encode_hash_request(wanted: HashRange, message_id: MessageId = MessageId.HASH_REQUEST) -> bytes:
    """Return a ``hash request``, or with its id a ``hash reject`` (BEP 52)."""
    return _HASH_REQUEST.pack(
        HASH_REQUEST_LENGTH,
        message_id,
        wanted.pieces_root,
        wanted.base_layer,
        wanted.index,
        wanted.length,
        wanted.proof_layers,
    )


def encode_hashes(what: HashRange, hashes: Iterable[bytes]) -> bytes:
    """Return a ``hashes`` message: the layer's hashes, then the uncles (BEP 52)."""
    tail = b"".join(hashes)
    return (
        _HASH_REQUEST.pack(
            HASH_REQUEST_LENGTH + len(tail),
            MessageId.HASHES,
            what.pieces_root,
            what.base_layer,
            what.index,
            what.length,
            what.proof_layers,
        )
        + tail
    )


def decode_hash_range(payload: bytes | memoryview) -> HashRange:
    """Read the 48 bytes of the three hash messages after the id; WireDecodeError if fewer."""
    if len(payload) < HASH_REQUEST_LENGTH - 1:
        raise WireDecodeError(f"hash range of {len(payload)} bytes", limit=HASH_REQUEST_LENGTH - 1)
    root, base, index, length, proofs = struct.unpack_from(">32sIIII", payload)
    return HashRange(root, base, index, length, proofs)


def allowed_fast_set(
    info_hash: bytes, host_packed: bytes, num_pieces: int, count: int
) -> list[int]:
    """
    Return the pieces that a choked peer may still request (BEP 6).

    Args:
        info_hash: 20 bytes.
        host_packed: the peer's IPv4 address, 4 bytes; BEP 6 defines no IPv6 form.
        num_pieces: of the torrent, >= 0.
        count: how many are wanted; cut to ``num_pieces``.

    Returns:
        Distinct piece indices in the order of the algorithm.

    Source: BEP 6 (allowed fast set generation).
    """
    chosen: dict[int, None] = {}
    count = min(count, num_pieces)
    state = host_packed[:3] + b"\0" + info_hash
    while len(chosen) < count:
        state = sha1(state, usedforsecurity=False).digest()
        for (number,) in struct.iter_unpack(">I", state):
            if len(chosen) == count:
                break
            chosen.setdefault(number % num_pieces)
    return list(chosen)
