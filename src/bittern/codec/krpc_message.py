"""
DHT messages as values: queries, responses, errors.

Stored values (``v``) are kept in bencoded form, because signatures and targets cover
those bytes. Node ids, info hashes and targets are plain ``bytes`` of 20: a node
handles tens of thousands a second.

Sources: BEP 5, 32, 33, 42, 43, 44, 51.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

VERSION: Final = b"bt01"
"""What we send as ``v`` (BEP 5: two letters of the client, two of its version)."""
NODE_ID_LENGTH: Final = 20
NODE_INFO_LENGTH: Final = 26
NODE_INFO_LENGTH_V6: Final = 38
MAX_TRANSACTION_ID_LENGTH: Final = 32
"""Limit: N1. What we are ready to echo."""
MAX_TOKEN_LENGTH: Final = 64
"""Limit: N4. Of other nodes' tokens, which we keep during a lookup."""
MAX_ERROR_TEXT_LENGTH: Final = 200
FILTER_LENGTH: Final = 256
"""Bytes of a bloom filter (BEP 33)."""
KEY_LENGTH: Final = 32
"""Bytes of an Ed25519 public key (BEP 44)."""
SIGNATURE_LENGTH: Final = 64


class ErrorCode(enum.IntEnum):
    """Codes of BEP 5 and BEP 44."""

    GENERIC = 201
    SERVER = 202
    PROTOCOL = 203
    METHOD_UNKNOWN = 204
    VALUE_TOO_BIG = 205
    BAD_SIGNATURE = 206
    SALT_TOO_BIG = 207
    CAS_MISMATCH = 301
    SEQ_TOO_LOW = 302


class Want(enum.IntFlag):
    """Which families of nodes an answer should name (BEP 32)."""

    NONE = 0
    """Said nothing: the family of the query itself."""
    V4 = 1
    V6 = 2


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""


@dataclass(frozen=True, slots=True)
class FindNode:
    """Which nodes do you know near ``target``? Unknown methods with a target read as this."""

    target: bytes
    want: Want = Want.NONE


@dataclass(frozen=True, slots=True)
class GetPeers:
    """Which peers of a torrent do you know? ``scrape`` asks for filters too (BEP 33)."""

    info_hash: bytes
    want: Want = Want.NONE
    noseed: bool = False
    scrape: bool = False


@dataclass(frozen=True, slots=True)
class AnnouncePeer:
    """I am a peer of a torrent; ``port`` is None for that of the datagram (``implied_port``)."""

    info_hash: bytes
    port: int | None
    token: bytes
    is_seed: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """Which item do you store under ``target``? Only if newer than ``seq``, if given (BEP 44)."""

    target: bytes
    seq: int | None = None
    want: Want = Want.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """
    Store an item (BEP 44).

    Args:
        token: from an answer to ``get``.
        value: bencoded.
        key: the public key, 32 bytes; None for an immutable item.
        signature: 64 bytes; None for an immutable item.
        seq: 0 to 2**63 - 1; None for an immutable item.
        salt: empty for none; its length is the receiver's to check.
        cas: the sequence number that must be stored there now.
        is_canonical: False if the message had unsorted keys, so that ``value`` may not
            be what was sent.
    """

    token: bytes
    value: bytes
    key: bytes | None = None
    signature: bytes | None = None
    seq: int | None = None
    salt: bytes = b""
    cas: int | None = None
    is_canonical: bool = True


@dataclass(frozen=True, slots=True)
class SampleInfohashes:
    """Name some torrents that you store peers of (BEP 51)."""

    target: bytes
    want: Want = Want.NONE


Arguments: TypeAlias = Ping | FindNode | GetPeers | AnnouncePeer | Get | Put | SampleInfohashes
"""What is asked; the class says the method."""


@dataclass(frozen=True, slots=True)
class Query:
    """
    A query that can be answered.

    Args:
        transaction_id: echoed by the answer, 1 to 32 bytes.
        node_id: the sender's, 20 bytes.
        is_read_only: the sender answers no queries (BEP 43).
        version: ``v``, empty when there was none.
    """

    transaction_id: bytes
    node_id: bytes
    arguments: Arguments
    is_read_only: bool = False
    version: bytes = b""


@dataclass(frozen=True, slots=True)
class BadQuery:
    """A query that cannot be answered, and what its sender may be told."""

    transaction_id: bytes
    code: ErrorCode
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """
    An answer; which results it has depends on the query.

    Args:
        nodes: compact node infos of IPv4 end to end; None when the key was absent.
        nodes6: the same of IPv6.
        values: compact peers, 6 or 18 bytes each.
        external: our address as the sender saw it, 4 or 16 bytes and a port; empty when
            it did not say.
        value: bencoded item.
        samples: info hashes end to end, 20 bytes each; None when absent.
    """

    transaction_id: bytes
    node_id: bytes
    nodes: bytes | None = None
    nodes6: bytes | None = None
    values: tuple[bytes, ...] = ()
    token: bytes | None = None
    external: bytes = b""
    version: bytes = b""
    value: bytes | None = None
    key: bytes | None = None
    signature: bytes | None = None
    seq: int | None = None
    samples: bytes | None = None
    num: int | None = None
    interval: int | None = None
    seed_filter: bytes | None = None
    peer_filter: bytes | None = None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A refusal; ``text`` is cleaned for display."""

    transaction_id: bytes
    code: int
    text: str = ""
    external: bytes = b""


Message: TypeAlias = Query | BadQuery | Response | ErrorReply
"""What ``decode`` gives."""
