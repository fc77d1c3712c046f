"""
Payloads of extended messages: handshake, metadata exchange, peer exchange, don't-have.

All dictionaries are bencoded. Reading is tolerant about keys that we do not
know and about values of the wrong type, which count as absent, since clients
differ widely there; it is strict about bencoding, sizes and counts.

Sources: BEP 10 (handshake), BEP 9 (ut_metadata), BEP 11 (ut_pex), BEP 21
(upload_only), BEP 54 (lt_donthave).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bittern.codec.bencode import EXTENSION_LIMITS, Value, decode, decode_prefix, encode
from bittern.core.announce import clean_text
from bittern.core.endpoint import (
    COMPACT_LENGTH,
    COMPACT_LENGTH_V6,
    Endpoint,
    iter_compact,
    join_compact,
)
from bittern.core.errors import BencodeDecodeError, WireDecodeError

MAX_EXTENSIONS = 64
"""Limit: H14. Extensions named in one handshake."""
MAX_EXTENSION_NAME_LENGTH = 64
"""Limit: H14. Bytes of a name that we keep; the extension register has none above 20."""
MAX_CLIENT_NAME_LENGTH = 128
"""Limit: H14. Bytes of a client name that we keep."""
MAX_REQUEST_QUEUE = 2_000
"""Limit: H14. ``reqq`` is cut to this."""
MAX_METADATA_LENGTH = 33_554_432
"""Limit: H7. 32 MiB of info dictionary."""
METADATA_PIECE_LENGTH = 16_384
"""BEP 9: all but the last piece of metadata have this length."""
MAX_PEX_PEERS = 50
"""Limit: H8. Peers taken from one message and list, BEP 11's own figure."""


@dataclass(frozen=True, slots=True)
class ExtendedHandshake:
    """
    The dictionary of extended message 0 (BEP 10).

    Absent values are None. ``extensions`` maps names to the ids that the
    sender wants them under; id 0 switches one off.
    """

    extensions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    client: str | None = None
    listen_port: int | None = None
    request_queue: int | None = None
    metadata_length: int | None = None
    is_upload_only: bool | None = None
    your_host: str | None = None
    prefers_encryption: bool | None = None


def _text(value: Value | None) -> str | None:
    return clean_text(value, limit=MAX_CLIENT_NAME_LENGTH) if isinstance(value, bytes) else None


def _number(value: Value | None, low: int, high: int) -> int | None:
    return value if isinstance(value, int) and low <= value <= high else None


def _flag(value: Value | None) -> bool | None:
    return value == 1 if isinstance(value, int) else None


def _dictionary(value: Value) -> dict[bytes, Value]:
    if not isinstance(value, dict):
        raise WireDecodeError("extended payload is no dictionary", offset=0)
    return value


def decode_extended_handshake(payload: bytes | memoryview) -> ExtendedHandshake:
    """
    Read an extended handshake.

    Raises:
        WireDecodeError: no bencoded dictionary, too many extensions, or one id twice.
    """
    try:
        # Interop: some clients put bytes behind the dictionary; BEP 10 does not forbid it.
        value, _ = decode_prefix(bytes(payload), limits=EXTENSION_LIMITS)
    except BencodeDecodeError as error:
        raise WireDecodeError(f"extended handshake: {error}") from error
    fields = _dictionary(value)
    named = fields.get(b"m")
    extensions: dict[str, int] = {}
    if isinstance(named, dict):
        if len(named) > MAX_EXTENSIONS:
            raise WireDecodeError("extended handshake names many extensions", limit=MAX_EXTENSIONS)
        for name, number in named.items():
            if (
                isinstance(number, int)
                and 0 <= number <= 255
                and len(name) <= MAX_EXTENSION_NAME_LENGTH
            ):
                extensions[name.decode("utf-8", "replace")] = number
        used = [number for number in extensions.values() if number]
        if len(set(used)) != len(used):
            raise WireDecodeError("extended handshake uses an id twice")
    your_ip = fields.get(b"yourip")
    your_host = None
    if isinstance(your_ip, bytes) and len(your_ip) in (4, 16):
        your_host = Endpoint.from_compact(your_ip + b"\0\0").host
    queue = _number(fields.get(b"reqq"), 1, 1 << 62)
    return ExtendedHandshake(
        extensions=MappingProxyType(extensions),
        client=_text(fields.get(b"v")),
        listen_port=_number(fields.get(b"p"), 1, 65535),
        request_queue=None if queue is None else min(queue, MAX_REQUEST_QUEUE),
        metadata_length=_number(fields.get(b"metadata_size"), 1, MAX_METADATA_LENGTH),
        is_upload_only=_flag(fields.get(b"upload_only")),
        your_host=your_host,
        prefers_encryption=_flag(fields.get(b"e")),
    )


def encode_extended_handshake(handshake: ExtendedHandshake) -> bytes:
    """Return the bencoded dictionary of an extended handshake."""
    fields: dict[bytes, Value] = {
        b"m": {name.encode(): number for name, number in handshake.extensions.items()}
    }
    if handshake.client is not None:
        fields[b"v"] = handshake.client.encode()
    if handshake.listen_port is not None:
        fields[b"p"] = handshake.listen_port
    if handshake.request_queue is not None:
        fields[b"reqq"] = handshake.request_queue
    if handshake.metadata_length is not None:
        fields[b"metadata_size"] = handshake.metadata_length
    if handshake.is_upload_only is not None:
        fields[b"upload_only"] = int(handshake.is_upload_only)
    if handshake.prefers_encryption is not None:
        fields[b"e"] = int(handshake.prefers_encryption)
    if handshake.your_host is not None:
        fields[b"yourip"] = Endpoint(handshake.your_host, 0).to_compact()[:-2]
    return encode(fields)


# --- BEP 9 -------------------------------------------------------------------------------


class MetadataMessageType(enum.IntEnum):
    """``msg_type`` of a ut_metadata message (BEP 9)."""

    REQUEST = 0
    DATA = 1
    REJECT = 2


@dataclass(frozen=True, slots=True)
class MetadataMessage:
    """A ut_metadata message; ``data`` and ``total_length`` only with DATA (BEP 9)."""

    kind: MetadataMessageType
    piece: int
    total_length: int | None = None
    data: bytes = b""


def decode_metadata_message(payload: bytes | memoryview) -> MetadataMessage | None:
    """
    Read a ut_metadata message.

    Returns:
        None for a ``msg_type`` that we do not know, to be ignored (BEP 9).

    Raises:
        WireDecodeError: no such dictionary, or impossible numbers.
    """
    raw = bytes(payload)
    try:
        value, end = decode_prefix(raw, limits=EXTENSION_LIMITS)
    except BencodeDecodeError as error:
        raise WireDecodeError(f"ut_metadata: {error}") from error
    fields = _dictionary(value)
    number, piece = fields.get(b"msg_type"), fields.get(b"piece")
    if not isinstance(number, int):
        raise WireDecodeError("ut_metadata without a msg_type")
    if number not in MetadataMessageType.__members__.values():
        return None
    kind = MetadataMessageType(number)
    if not isinstance(piece, int) or not 0 <= piece < MAX_METADATA_LENGTH // METADATA_PIECE_LENGTH:
        raise WireDecodeError("ut_metadata with an impossible piece")
    if kind is not MetadataMessageType.DATA:
        return MetadataMessage(kind, piece)
    data = raw[end:]
    if not 0 < len(data) <= METADATA_PIECE_LENGTH:
        raise WireDecodeError(
            f"ut_metadata piece of {len(data)} bytes", limit=METADATA_PIECE_LENGTH
        )
    total = _number(fields.get(b"total_size"), 1, MAX_METADATA_LENGTH)
    return MetadataMessage(kind, piece, total, data)


def encode_metadata_message(message: MetadataMessage) -> bytes:
    """Return the payload of a ut_metadata message (BEP 9)."""
    fields: dict[bytes, Value] = {b"msg_type": int(message.kind), b"piece": message.piece}
    if message.total_length is not None:
        fields[b"total_size"] = message.total_length
    return encode(fields) + message.data


# --- BEP 11 ------------------------------------------------------------------------------


class PexFlag(enum.IntFlag):
    """Flags of a peer in ``added.f`` (BEP 11)."""

    NONE = 0
    ENCRYPTION = 0x01
    UPLOAD_ONLY = 0x02
    UTP = 0x04
    HOLEPUNCH = 0x08
    OUTGOING = 0x10
    """The sender connected to it, so it accepts connections."""


@dataclass(frozen=True, slots=True)
class PexMessage:
    """A ut_pex message: peers met and lost since the last one, with their flags (BEP 11)."""

    added: tuple[tuple[Endpoint, PexFlag], ...] = ()
    dropped: tuple[Endpoint, ...] = ()


def decode_pex(payload: bytes | memoryview) -> PexMessage:
    """
    Read a ut_pex message; of each list the first 50 peers are taken (H8).

    Raises:
        WireDecodeError: no bencoded dictionary.
    """
    try:
        fields = _dictionary(decode(bytes(payload), limits=EXTENSION_LIMITS))
    except BencodeDecodeError as error:
        raise WireDecodeError(f"ut_pex: {error}") from error
    added: list[tuple[Endpoint, PexFlag]] = []
    dropped: list[Endpoint] = []
    for suffix, ipv6 in ((b"", False), (b"6", True)):
        size = COMPACT_LENGTH_V6 if ipv6 else COMPACT_LENGTH
        peers, flags = fields.get(b"added" + suffix), fields.get(b"added" + suffix + b".f")
        if isinstance(peers, bytes):
            marks = flags if isinstance(flags, bytes) else b""
            for at, endpoint in enumerate(iter_compact(peers[: MAX_PEX_PEERS * size], ipv6=ipv6)):
                mark = marks[at] if at < len(marks) else 0
                added.append((endpoint, PexFlag(mark & 0x1F)))
        lost = fields.get(b"dropped" + suffix)
        if isinstance(lost, bytes):
            dropped.extend(iter_compact(lost[: MAX_PEX_PEERS * size], ipv6=ipv6))
    return PexMessage(tuple(added), tuple(dropped))


def encode_pex(message: PexMessage) -> bytes:
    """Return the payload of a ut_pex message; the caller keeps to BEP 11's counts."""
    fields: dict[bytes, Value] = {}
    for suffix, ipv6 in ((b"", False), (b"6", True)):
        added = [item for item in message.added if item[0].is_ipv6 is ipv6]
        fields[b"added" + suffix] = join_compact(endpoint for endpoint, _ in added)
        fields[b"added" + suffix + b".f"] = bytes(flags for _, flags in added)
        lost: Iterable[Endpoint] = (e for e in message.dropped if e.is_ipv6 is ipv6)
        fields[b"dropped" + suffix] = join_compact(lost)
    return encode(fields)


# --- BEP 54 ------------------------------------------------------------------------------


def decode_dont_have(payload: bytes | memoryview) -> int:
    """Return the piece index of a lt_donthave message (BEP 54); WireDecodeError otherwise."""
    if len(payload) != 4:
        raise WireDecodeError(f"lt_donthave of {len(payload)} bytes", limit=4)
    return int.from_bytes(payload, "big")


def encode_dont_have(index: int) -> bytes:
    """Return the payload of a lt_donthave message (BEP 54)."""
    return index.to_bytes(4, "big")
