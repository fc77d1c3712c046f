"""
Protocol messages taken apart, byte by byte, for people.

Input are the raw bytes of trace events, which may be cut after the first 96;
whatever they hold, the parts put together give them back.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.codec.wire import HANDSHAKE_LENGTH, PROTOCOL_NAME, MessageId, Reserved

BYTES_PER_LINE = 20

_INDEX = "piece {}"
_BEGIN = "from byte {} of the piece"
_LENGTH = "{} bytes of it"
_NUMBERS = {
    MessageId.HAVE: (_INDEX,),
    MessageId.SUGGEST_PIECE: (_INDEX,),
    MessageId.ALLOWED_FAST: (_INDEX,),
    MessageId.REQUEST: (_INDEX, _BEGIN, _LENGTH),
    MessageId.CANCEL: (_INDEX, _BEGIN, _LENGTH),
    MessageId.REJECT_REQUEST: (_INDEX, _BEGIN, _LENGTH),
    MessageId.PIECE: (_INDEX, _BEGIN),
}
"""The 4-byte numbers that follow the id, by message."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes and what it means."""

    raw: bytes
    meaning: str


def dissect(kind: str, raw: bytes) -> list[Part]:
    """
    Take a message apart.

    Args:
        kind: ``handshake``, or the name of a message.
        raw: its first bytes, length prefix included.

    Returns:
        Parts in order; joined they are ``raw``.

    Source: BEP 3, BEP 5, BEP 6, BEP 10.
    """
    if kind == "handshake" and len(raw) >= HANDSHAKE_LENGTH:
        return _dissect_handshake(raw)
    if len(raw) < 4:
        return [Part(raw, "incomplete")] if raw else []
    length = int.from_bytes(raw[:4], "big")
    parts = [Part(raw[:4], f"length of what follows: {length}")]
    if len(raw) > 4:
        parts.append(Part(raw[4:5], f"message {raw[4]}: {kind.replace('_', ' ')}"))
        parts += _dissect_payload(raw[4], raw[5:], length)
    return parts


def _dissect_handshake(raw: bytes) -> list[Part]:
    name_end = len(PROTOCOL_NAME)
    reserved = raw[name_end : name_end + 8]
    rest = raw[HANDSHAKE_LENGTH:]
    parts = [
        Part(raw[:1], f"length of the name: {raw[0]}"),
        Part(raw[1:name_end], f'the name: "{_ascii(raw[1:name_end])}"'),
        Part(reserved, f"reserved: {_reserved_text(reserved)}"),
        Part(raw[28:48], "info hash: which torrent"),
        Part(raw[48:68], f'peer id: who is talking, "{_ascii(raw[48:68])}"'),
    ]
    return [*parts, Part(rest, "more")] if rest else parts


def _reserved_text(bits: bytes) -> str:
    known = Reserved.from_bytes(bits)
    names = [
        name
        for name, is_set in (
            ("extensions (BEP 10)", known.has_extensions),
            ("fast (BEP 6)", known.has_fast),
            ("DHT (BEP 5)", known.has_dht),
            ("v2 (BEP 52)", known.has_v2),
        )
        if is_set
    ]
    return ", ".join(names) or "nothing beyond the basic protocol"


def _dissect_payload(message_id: int, payload: bytes, length: int) -> list[Part]:
    if not payload:
        return []
    try:
        message = MessageId(message_id)
    except ValueError:
        return [Part(payload, "unknown")]
    if message is MessageId.BITFIELD:
        return [Part(payload, _bitfield_text(payload, length - 1))]
    if message is MessageId.PORT:
        return [Part(payload, f"port {int.from_bytes(payload, 'big')}")]
    if message is MessageId.EXTENDED:
        what = "its handshake" if payload[0] == 0 else "as named in the extended handshake"
        parts = [Part(payload[:1], f"extension {payload[0]}: {what}")]
        rest = payload[1:]
        return [*parts, Part(rest, f'"{_ascii(rest)}"')] if rest else parts
    parts = []
    at = 0
    for text in _NUMBERS.get(message, ()):
        number = payload[at : at + 4]
        if len(number) == 4:
            parts.append(Part(number, text.format(int.from_bytes(number, "big"))))
            at += 4
    if payload[at:]:
        block = f"the block, {length - 9} bytes" if message is MessageId.PIECE else "payload"
        parts.append(Part(payload[at:], block))
    return parts


def _bitfield_text(payload: bytes, length: int) -> str:
    count = int.from_bytes(payload, "big").bit_count()
    return f"one bit per piece: {count} set" + ("" if len(payload) == length else " so far")


def _ascii(raw: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in raw)


def hex_lines(parts: list[Part], *, max_bytes: int = 40) -> list[tuple[str, str]]:
    """
    Return parts as lines of hexadecimal bytes and meaning.

    Args:
        parts: of one message.
        max_bytes: of a part that are shown; the rest is counted.
    """
    lines: list[tuple[str, str]] = []
    for part in parts:
        shown = part.raw[:max_bytes]
        texts = [
            shown[at : at + BYTES_PER_LINE].hex(" ") for at in range(0, len(shown), BYTES_PER_LINE)
        ]
        if len(shown) < len(part.raw):
            texts[-1] += " ..."
        lines += [(text, "" if number else part.meaning) for number, text in enumerate(texts)]
    return lines
