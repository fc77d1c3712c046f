"""
Bencoding: strict decoder with limits, raw spans, encoder.

The decoder is iterative, so depth costs no interpreter stack, and refuses
everything that BEP 3 does not allow: leading zeros, ``-0``, signs, spaces,
keys that are no strings, duplicate keys, bytes after the value. Unsorted keys
are tolerated and reported, because old torrents have them; callers that need
one canonical form ask for ``require_sorted``. Integers are those of 64 bits.

An info hash covers bytes as they stand in the file, so ``decode_with_spans``
tells where each top-level value lies, and nobody ever hashes a re-encoding.

Memory: what is built never takes much more than 40 times the input. Small
containers are what costs (a dictionary with one entry takes 232 bytes and as
little as 4 on the wire), so their sizes are added up and bounded.

Source: BEP 3 (bencoding), BEP 52 (raw info dictionary).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Final, NoReturn, TypeAlias

from bittern.core.errors import BencodeDecodeError

Value: TypeAlias = "int | bytes | list[Value] | dict[bytes, Value]"
"""What decoding gives."""

Encodable: TypeAlias = "int | bytes | Sequence[Encodable] | Mapping[bytes, Encodable]"
"""What can be encoded; ``bool`` and ``str`` are refused at run time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a source may make us do.

    Args:
        max_depth: lists and dictionaries inside one another, >= 0.
        max_tokens: integers, strings, keys, and starts and ends of containers.
        max_length: bytes of the whole input.
    """

    max_depth: int
    max_tokens: int
    max_length: int


# Limit: P1, P2, P6. Depth and tokens as in libtorrent (100 and 3,000,000; DHT 10 and 500).
METAINFO_LIMITS: Final = Limits(100, 2_000_000, 64 << 20)
EXTENSION_LIMITS: Final = Limits(32, 10_000, 1 << 20)
TRACKER_LIMITS: Final = Limits(10, 20_000, 1 << 20)
DHT_LIMITS: Final = Limits(10, 500, 2048)

MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 63) - 1
_MAX_LENGTH_DIGITS = 10  # Limit: P4
_MAX_INTEGER_DIGITS = 20  # Limit: P3, with the sign

# Limit: P2. Bytes that closed containers may take: this many per byte of input, plus a start,
# and never more than the absolute bound. Strings and integers take at most 12 per byte.
_CONTAINER_FACTOR = 28
_CONTAINER_ALLOWANCE = 1 << 19
_CONTAINER_BOUND = 160 << 20
_UNCOUNTED_LENGTH = 16_384
"""Inputs up to this length cannot get there, at 60 bytes of container per byte at most."""


_IN_LIST: Final = b"list"
"""Stands where a dictionary has its current key; compared by identity."""


@dataclass(frozen=True, slots=True)
class Document:
    """
    A decoded top-level dictionary with the places of its values.

    Args:
        value: the dictionary.
        spans: start and end of each value's bytes in the input, by key.
        unsorted: offset of the first key out of order inside a value, by the
            top-level key of that value; values in order are absent.
    """

    value: dict[bytes, Value]
    spans: Mapping[bytes, tuple[int, int]]
    unsorted: Mapping[bytes, int]


def decode(
    data: bytes | bytearray | memoryview,
    *,
    limits: Limits = METAINFO_LIMITS,
    require_sorted: bool = False,
) -> Value:
    """
    Decode one value that takes up the whole of ``data``.

    Args:
        data: the input; mutable buffers are copied first.
        limits: what the source of ``data`` may make us do.
        require_sorted: refuse dictionaries whose keys are not in rising order.

    Raises:
        BencodeDecodeError: not the bencoding of one value, or a limit was exceeded.

    Source: BEP 3. O(len(data)), about 0.3 microseconds per token.
    """
    raw = _checked_input(data, limits)
    value, end, _, _, _ = _scan(
        raw, 0, limits.max_depth, limits.max_tokens, _allowance(raw), require_sorted
    )
    if end != len(raw):
        raise BencodeDecodeError("bytes after the end of the value", offset=end)
    return value


def decode_prefix(
    data: bytes | bytearray | memoryview,
    *,
    limits: Limits = EXTENSION_LIMITS,
) -> tuple[Value, int]:
    """
    Decode the value at the start of ``data``.

    Returns:
        The value and the offset at which it ended; what follows is the caller's
        (``ut_metadata`` messages carry a block there, BEP 9).

    Raises:
        BencodeDecodeError: no value starts there, or a limit was exceeded.
    """
    raw = _checked_input(data, limits)
    value, end, _, _, _ = _scan(raw, 0, limits.max_depth, limits.max_tokens, _allowance(raw), False)
    return value, end


def decode_with_order(
    data: bytes | bytearray | memoryview, *, limits: Limits = METAINFO_LIMITS
) -> tuple[Value, int]:
    """
    Decode one value that takes up the whole of ``data``, and tell whether it is canonical.

    Returns:
        The value and the offset of the first key that is out of order, or -1.

    Raises:
        BencodeDecodeError: not the bencoding of one value, or a limit was exceeded.
    """
    raw = _checked_input(data, limits)
    value, end, _, _, unsorted_at = _scan(
        raw, 0, limits.max_depth, limits.max_tokens, _allowance(raw), False
    )
    if end != len(raw):
        raise BencodeDecodeError("bytes after the end of the value", offset=end)
    return value, unsorted_at


def decode_with_spans(data: bytes, *, limits: Limits = METAINFO_LIMITS) -> Document:
    """
    Decode a dictionary that takes up the whole of ``data``, and keep track of places.

    Raises:
        BencodeDecodeError: not the bencoding of one dictionary, or a limit was exceeded.
    """
    raw = _checked_input(data, limits)
    if raw[:1] != b"d":
        raise BencodeDecodeError("not a dictionary", offset=0)
    value: dict[bytes, Value] = {}
    spans: dict[bytes, tuple[int, int]] = {}
    unsorted: dict[bytes, int] = {}
    tokens_left = limits.max_tokens - 2
    allowance = _allowance(raw)
    at = 1
    while raw[at : at + 1] != b"e":
        if at < len(raw) and not 48 <= raw[at] <= 57:
            _refuse_key(raw, at)
        key, start, used, _, _ = _scan(raw, at, 0, tokens_left, 0, False)
        assert isinstance(key, bytes)
        if key in value:
            raise BencodeDecodeError(f"duplicate key {key[:40]!r}", offset=at)
        if raw[start : start + 1] == b"e":
            raise BencodeDecodeError(f"key {key[:40]!r} has no value", offset=start)
        tokens_left -= used
        item, at, used, allowance, unsorted_at = _scan(
            raw, start, limits.max_depth, tokens_left, allowance, False, depth=1
        )
        tokens_left -= used
        value[key] = item
        spans[key] = (start, at)
        if unsorted_at >= 0:
            unsorted[key] = unsorted_at
    if at + 1 != len(raw):
        raise BencodeDecodeError("bytes after the end of the value", offset=at + 1)
    return Document(value, spans, unsorted)


def _checked_input(data: bytes | bytearray | memoryview, limits: Limits) -> bytes:
    if len(data) > limits.max_length:
        raise BencodeDecodeError("input is too long", limit=limits.max_length)
    return data if type(data) is bytes else bytes(data)


def _allowance(data: bytes) -> int:
    return min(_CONTAINER_FACTOR * len(data) + _CONTAINER_ALLOWANCE, _CONTAINER_BOUND)


def _scan(
    data: bytes,
    at: int,
    max_depth: int,
    max_tokens: int,
    allowance: int,
    require_sorted: bool,
    *,
    depth: int = 0,
) -> tuple[Value, int, int, int, int]:
    """
    Decode the value that starts at ``at``, inside ``depth`` containers.

    ``key`` is the state: ``_IN_LIST`` in a list, None before a key, else the key
    that waits for its value. One long function, since a call per token would double
    the time: 5 microseconds for a DHT query of 92 bytes, 4 per kB of file list.

    Returns:
        Value, where it ended, tokens used, allowance left, offset of the first unsorted
        key or -1.
    """
    size = len(data)
    room = max_depth - depth
    is_large = size > _UNCOUNTED_LENGTH
    outer: list[tuple[list[Value] | dict[bytes, Value], bytes | None, bytes]] = []
    held: list[Value] | dict[bytes, Value] = []
    key: bytes | None = _IN_LIST
    last_key = b""
    unsorted_at = -1
    item: Value
    try:
        for used in range(1, max_tokens + 1):
            byte = data[at]
            if 48 <= byte <= 57:
                second = data[at + 1]
                if second == 58:  # one digit: most strings
                    start = at + 2
                    end = start + byte - 48
                elif data[at + 2] == 58 and byte != 48 and 48 <= second <= 57:
                    start = at + 3
                    end = start + byte * 10 + second - 528
                else:
                    start = data.index(b":", at, at + _MAX_LENGTH_DIGITS + 1) + 1
                    end = start + _read_length(data[at : start - 1], at)
                if end > size:
                    raise BencodeDecodeError("string is longer than the input", offset=at)
                item = data[start:end]
                if key is None:
                    if item > last_key or not held:
                        last_key = item
                    elif item in held:
                        raise BencodeDecodeError(f"duplicate key {item[:40]!r}", offset=at)
                    elif require_sorted:
                        raise BencodeDecodeError(f"unsorted key {item[:40]!r}", offset=at)
                    elif unsorted_at < 0:
                        unsorted_at = at
                    key = item
                    at = end
                    continue
                at = end
            elif byte == 101:  # e
                if key is not None and (key is not _IN_LIST or not outer):
                    _refuse_end(key, at)
                if is_large:
                    allowance -= getsizeof(held)
                    if allowance < 0:
                        raise BencodeDecodeError("too many lists and dictionaries", offset=at)
                item = held
                held, key, last_key = outer.pop()
                at += 1
            elif key is None:
                _refuse_key(data, at)
            elif byte == 105:  # i
                end = data.index(b"e", at, at + _MAX_INTEGER_DIGITS + 2)
                item = _read_integer(data[at + 1 : end], at)
                at = end + 1
            elif byte == 100 or byte == 108:  # d, l
                if len(outer) >= room:
                    raise BencodeDecodeError("nested too deeply", offset=at, limit=max_depth)
                outer.append((held, key, last_key))
                if byte == 100:
                    held = {}
                    key = None
                else:
                    held = []
                    key = _IN_LIST
                at += 1
                continue
            else:
                raise BencodeDecodeError(f"unexpected byte {data[at : at + 1]!r}", offset=at)
            if key is _IN_LIST:
                if not outer:
                    return item, at, used, allowance, unsorted_at
                held.append(item)  # type: ignore[union-attr]  # key says that it is a list
            else:
                held[key] = item  # type: ignore[index,call-overload]  # and here a dictionary
                key = None
    except (IndexError, ValueError):
        raise _explain_end(data, at) from None
    raise BencodeDecodeError("too many values", offset=at, limit=max_tokens)


def _read_length(digits: bytes, at: int) -> int:
    """Return the string length that ``digits``, found at ``at``, stand for."""
    if not digits.isdigit() or digits[0] == 48:
        raise BencodeDecodeError("malformed string length", offset=at)
    return int(digits)


def _read_integer(text: bytes, at: int) -> int:
    """Return the integer that ``text`` stands for, whose ``i`` was at ``at``."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[0] == 48 and text != b"0"):
        raise BencodeDecodeError("malformed integer", offset=at)
    value = int(text)
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise BencodeDecodeError("integer needs more than 64 bits", offset=at)
    return value


def _explain_end(data: bytes, at: int) -> BencodeDecodeError:
    """Return the error for a token at ``at`` whose end was not found."""
    kind, room = "string length", _MAX_LENGTH_DIGITS + 1
    digits = token = data[at : at + room]
    if token[:1] == b"i":
        kind, room = "integer", _MAX_INTEGER_DIGITS + 2
        token = data[at : at + room]
        digits = token[2:] if token[1:2] == b"-" else token[1:]
    if digits and not digits.isdigit():
        return BencodeDecodeError(f"malformed {kind}", offset=at)
    if len(token) < room:
        return BencodeDecodeError("input ends too early", offset=len(data))
    return BencodeDecodeError(f"{kind} has too many digits", offset=at)


def _refuse_key(data: bytes, at: int) -> NoReturn:
    if data[at] in b"ild":
        raise BencodeDecodeError("key is not a string", offset=at)
    raise BencodeDecodeError(f"unexpected byte {data[at : at + 1]!r}", offset=at)


def _refuse_end(key: bytes, at: int) -> NoReturn:
    if key is _IN_LIST:
        raise BencodeDecodeError("unexpected byte b'e'", offset=at)
    raise BencodeDecodeError(f"key {key[:40]!r} has no value", offset=at)


def encode(value: Encodable) -> bytes:
    """
    Encode a value in its one canonical form; dictionaries are sorted by key.

    Raises:
        TypeError: a part of ``value`` is no int, bytes, list, tuple or mapping from
            bytes (``bool`` and ``str`` are none).

    Source: BEP 3. Recursive: for our own values and for decoded ones, whose depth is bounded.
    """
    parts: list[bytes] = []
    _encode_into(parts, value)
    return b"".join(parts)


def _encode_into(parts: list[bytes], value: Encodable) -> None:
    if isinstance(value, bytes):
        parts.append(b"%d:%b" % (len(value), value))
    elif isinstance(value, dict):
        parts.append(b"d")
        for key in sorted(value):
            if not isinstance(key, bytes):
                raise TypeError(f"dictionary keys are bytes, not {type(key).__name__}")
            item = value[key]
            if isinstance(item, bytes):
                parts.append(b"%d:%b%d:%b" % (len(key), key, len(item), item))
            else:
                parts.append(b"%d:%b" % (len(key), key))
                _encode_into(parts, item)
        parts.append(b"e")
    elif isinstance(value, int) and not isinstance(value, bool):
        parts.append(b"i%de" % value)
    elif isinstance(value, (list, tuple)):
        parts.append(b"l")
        for item in value:
            _encode_into(parts, item)
        parts.append(b"e")
    elif isinstance(value, Mapping):  # last: an abstract class is slow to ask
        _encode_into(parts, dict(value))
    else:
        raise TypeError(f"cannot bencode {type(value).__name__}")
