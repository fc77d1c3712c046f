"""
Protocol messages as short lines, for people who want to watch.

A tracer frames a copy of one direction of a stream for itself. It exists only
while somebody listens with ``trace=True``; the data path never pays for it.
"""

from __future__ import annotations

from bittern.codec import wire
from bittern.codec.bencode import EXTENSION_LIMITS, decode_prefix
from bittern.codec.wire import MessageId
from bittern.core.errors import BitTorrentError, WireDecodeError

RAW_LENGTH = 96
"""Bytes of a message that a trace event carries; a handshake fits whole."""
_KEPT = 1024

TracedMessage = tuple[str, str, bytes]
"""Kind, text, first bytes."""


class MessageTracer:
    """One direction of one connection."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._length: int | None = None
        self._seen = 0
        self._is_handshake = True

    def feed(self, data: bytes | memoryview) -> list[TracedMessage]:
        """Take the next bytes of the stream and return the messages that they complete."""
        done: list[TracedMessage] = []
        position, end = 0, len(data)
        while position < end:
            if self._length is None:
                self._length = wire.HANDSHAKE_LENGTH if self._is_handshake else 4
            step = min(end - position, self._length - self._seen)
            room = _KEPT - len(self._head)
            if room > 0:
                self._head += data[position : position + min(step, room)]
            self._seen += step
            position += step
            if self._seen < self._length:
                continue
            if not self._is_handshake and self._seen == 4:
                (body,) = wire.LENGTH_PREFIX.unpack(self._head)
                if body:
                    self._length = 4 + body
                    continue
            done.append(self._finish())
        return done

    def _finish(self) -> TracedMessage:
        head, length = bytes(self._head), self._seen
        self._head.clear()
        self._length, self._seen = None, 0
        if self._is_handshake:
            self._is_handshake = False
            return "handshake", _describe_handshake(head), head[:RAW_LENGTH]
        kind, text = describe(head, length)
        return kind, text, head[:RAW_LENGTH]


def _describe_handshake(head: bytes) -> str:
    try:
        handshake = wire.decode_handshake(head)
    except BitTorrentError as error:
        return str(error)
    return f"info_hash {handshake.info_hash} peer_id {handshake.peer_id!r}"


def describe(head: bytes, length: int) -> tuple[str, str]:
    """
    Return kind and text of one framed message.

    Args:
        head: the message from its length prefix on, possibly cut.
        length: of the whole message, prefix included.
    """
    if length == 4:
        return "keep_alive", ""
    try:
        message_id = MessageId(head[4])
    except ValueError:
        return "unknown", f"id {head[4]}, {length} bytes"
    kind, payload = message_id.name.lower(), head[5:]
    try:
        wire.check_length(message_id, length - 4, num_pieces=None)
    except WireDecodeError as error:
        return kind, str(error)
    match message_id:
        case MessageId.HAVE | MessageId.SUGGEST_PIECE | MessageId.ALLOWED_FAST:
            return kind, f"piece {int.from_bytes(payload[:4], 'big')}"
        case MessageId.REQUEST | MessageId.CANCEL | MessageId.REJECT_REQUEST:
            index, begin, size = wire.THREE_NUMBERS.unpack_from(payload)
            return kind, f"piece {index} begin {begin} length {size}"
        case MessageId.PIECE:
            _, _, index, begin = wire.PIECE_HEADER.unpack_from(head)
            return kind, f"piece {index} begin {begin} length {length - 13}"
        case MessageId.BITFIELD:
            return kind, payload[:32].hex() + ("..." if length > 37 else "")
        case MessageId.PORT:
            return kind, f"port {int.from_bytes(payload[:2], 'big')}"
        case MessageId.EXTENDED:
            return kind, _describe_extended(payload)
        case MessageId.HASH_REQUEST | MessageId.HASHES | MessageId.HASH_REJECT:
            return kind, _describe_hashes(payload)
        case _:
            return kind, "" if length == 5 else f"{length - 5} bytes"


def _describe_hashes(payload: bytes) -> str:
    what = wire.decode_hash_range(payload)
    return (
        f"root {what.pieces_root.hex()[:8]} layer {what.base_layer} index {what.index} "
        f"length {what.length} proof layers {what.proof_layers}"
    )


def _describe_extended(payload: bytes) -> str:
    if payload[0] != 0:
        return f"extension {payload[0]}, {len(payload)} bytes"
    try:
        value, _ = decode_prefix(payload[1:], limits=EXTENSION_LIMITS)
    except BitTorrentError:
        return "extended handshake"
    return f"extended handshake {value!r}"
