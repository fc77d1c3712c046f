"""
DHT messages on the wire, and how they are read; ``krpc_encoding`` writes them.

A message is one bencoded dictionary in one datagram:

    key   value
    t     transaction id, echoed by the answer; 1 to 32 bytes here
    y     "q" query, "r" response, "e" error
    q     method of a query
    a     dictionary of its arguments; "id" is the sender's node id, 20 bytes
    r     dictionary of results; "id" as above
    e     list of code and text
    ro    1 when the sender answers no queries (BEP 43)
    ip    in answers: the asker's address as it was seen, 6 or 18 bytes (BEP 42)
    v     client and version, usually 4 bytes

    method             arguments                        results
    ping
    find_node          target, want                     nodes, nodes6
    get_peers          info_hash, want, noseed, scrape  token, values, nodes, nodes6, BFsd, BFpe
    announce_peer      info_hash, port, implied_port,
                       seed, token
    get                target, seq, want                token, nodes, nodes6, v, k, seq, sig
    put                token, v, k, salt, seq, sig, cas
    sample_infohashes  target, want                     samples, num, interval, nodes, nodes6

Compact node info is 26 bytes (id, IPv4 address, port) or 38 (IPv6).

Refuses: what is no dictionary with ``t`` and ``y``. A query that can be named but not
answered becomes a ``BadQuery``, since its sender may be told. Results of the wrong
size or type are left out one by one: a node that errs in one key is still useful.

Invariant: ``PLAIN_QUERY`` accepts nothing that ``decode`` would understand otherwise.

Sources: BEP 5, 32, 33, 42, 43, 44, 51.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bittern.codec.bencode import DHT_LIMITS, Value, decode_with_order
from bittern.codec.bencode import encode as encode_value
from bittern.codec.krpc_message import (
    FILTER_LENGTH,
    KEY_LENGTH,
    MAX_ERROR_TEXT_LENGTH,
    MAX_TOKEN_LENGTH,
    MAX_TRANSACTION_ID_LENGTH,
    NODE_ID_LENGTH,
    NODE_INFO_LENGTH,
    NODE_INFO_LENGTH_V6,
    SIGNATURE_LENGTH,
    AnnouncePeer,
    Arguments,
    BadQuery,
    ErrorCode,
    ErrorReply,
    FindNode,
    Get,
    GetPeers,
    Message,
    Ping,
    Put,
    Query,
    Response,
    SampleInfohashes,
    Want,
)
from bittern.core.announce import clean_text
from bittern.core.errors import BencodeDecodeError, KrpcDecodeError

PLAIN_QUERY: Final = re.compile(
    rb"d1:ad2:id20:(.{20})"
    rb"(?:e1:q4:ping|6:target20:(.{20})e1:q9:find_node|9:info_hash20:(.{20})e1:q9:get_peers)"
    rb"1:t(2:..|4:....)(?:1:v4:....)?1:y1:qe",
    re.DOTALL,
).fullmatch
"""
Match the three common queries in their usual form: half a microsecond instead of ten.

Groups: node id; target of a find_node; info hash of a get_peers (ping has neither);
transaction id as it stands, with its length prefix.
"""


def decode(data: bytes) -> Message:
    """
    Decode one datagram.

    Raises:
        KrpcDecodeError: it is no message, or one that nobody could be told about.

    Limit: N4. 2,048 bytes, depth 10, 500 tokens.
    """
    try:
        message, unsorted_at = decode_with_order(data, limits=DHT_LIMITS)
    except BencodeDecodeError as error:
        raise KrpcDecodeError(error.reason, offset=error.offset, limit=error.limit) from error
    if not isinstance(message, dict):
        raise KrpcDecodeError("not a dictionary", offset=0)
    transaction_id = message.get(b"t")
    if not isinstance(transaction_id, bytes) or not transaction_id:
        raise KrpcDecodeError("no transaction id")
    if len(transaction_id) > MAX_TRANSACTION_ID_LENGTH:
        raise KrpcDecodeError("transaction id is too long", limit=MAX_TRANSACTION_ID_LENGTH)
    kind = message.get(b"y")
    if kind == b"q":
        return _decode_query(message, transaction_id, is_canonical=unsorted_at < 0)
    if kind == b"r":
        return _decode_response(message, transaction_id)
    if kind == b"e":
        return _decode_error(message, transaction_id)
    raise KrpcDecodeError("neither query, response nor error")


def _decode_query(
    message: Mapping[bytes, Value], transaction_id: bytes, *, is_canonical: bool
) -> Query | BadQuery:
    method, given = message.get(b"q"), message.get(b"a")
    if not isinstance(method, bytes):
        raise KrpcDecodeError("query without a method")
    try:
        if not isinstance(given, dict):
            raise _BadArgumentError("no arguments")
        node_id = _string(given, b"id", NODE_ID_LENGTH)
        arguments = _read_put(given, is_canonical) if method == b"put" else _read(method, given)
    except _BadArgumentError as error:
        return BadQuery(transaction_id, ErrorCode.PROTOCOL, str(error))
    if arguments is None:
        return BadQuery(transaction_id, ErrorCode.METHOD_UNKNOWN, "unknown method")
    version = message.get(b"v")
    return Query(
        transaction_id,
        node_id,
        arguments,
        message.get(b"ro") == 1,
        version[:4] if isinstance(version, bytes) else b"",
    )


class _BadArgumentError(Exception):
    """An argument is missing or wrong; never leaves this module."""


def _string(given: Mapping[bytes, Value], key: bytes, length: int | None = None) -> bytes:
    """Return a string that must be there, of exactly ``length`` bytes if given."""
    value = given.get(key)
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise _BadArgumentError(f"bad {key.decode()}")
    return value


def _number(given: Mapping[bytes, Value], key: bytes) -> int | None:
    """Return an integer, or None when it is absent."""
    value = given.get(key)
    if value is not None and not isinstance(value, int):
        raise _BadArgumentError(f"bad {key.decode()}")
    return value


def _flag(given: Mapping[bytes, Value], key: bytes) -> bool:
    """Tell whether a key has a number other than 0."""
    value = given.get(key)
    return isinstance(value, int) and value != 0


def _want(given: Mapping[bytes, Value]) -> Want:
    """Return what ``want`` says; unknown entries are ignored (BEP 32)."""
    values = given.get(b"want")
    if not isinstance(values, list):
        return Want.NONE
    return (Want.V4 if b"n4" in values else Want.NONE) | (Want.V6 if b"n6" in values else Want.NONE)


def _read(method: bytes, given: Mapping[bytes, Value]) -> Arguments | None:
    """Return the arguments of any method but ``put``; None for an unknown one."""
    match method:
        case b"ping":
            return Ping()
        case b"find_node":
            return FindNode(_string(given, b"target", NODE_ID_LENGTH), _want(given))
        case b"get_peers":
            info_hash = _string(given, b"info_hash", NODE_ID_LENGTH)
            return GetPeers(
                info_hash, _want(given), _flag(given, b"noseed"), _flag(given, b"scrape")
            )
        case b"announce_peer":
            return _read_announce_peer(given)
        case b"get":
            target = _string(given, b"target", NODE_ID_LENGTH)
            return Get(target, _number(given, b"seq"), _want(given))
        case b"sample_infohashes":
            return SampleInfohashes(_string(given, b"target", NODE_ID_LENGTH), _want(given))
    # BEP 51 relies on it: whoever does not know a method still helps a lookup along.
    for key in (b"target", b"info_hash"):
        if key in given:
            return FindNode(_string(given, key, NODE_ID_LENGTH), _want(given))
    return None


def _read_announce_peer(given: Mapping[bytes, Value]) -> AnnouncePeer:
    port = None
    if not _flag(given, b"implied_port"):
        port = _number(given, b"port")
        if port is None or not 0 < port < 65536:
            raise _BadArgumentError("bad port")
    return AnnouncePeer(
        _string(given, b"info_hash", NODE_ID_LENGTH),
        port,
        _string(given, b"token"),
        _flag(given, b"seed"),
    )


def _read_put(given: Mapping[bytes, Value], is_canonical: bool) -> Put:
    if b"v" not in given:
        raise _BadArgumentError("bad v")
    token, value = _string(given, b"token"), encode_value(given[b"v"])
    if b"k" not in given:
        return Put(token=token, value=value, is_canonical=is_canonical)
    seq = _number(given, b"seq")
    if seq is None or seq < 0:
        raise _BadArgumentError("bad seq")
    return Put(
        token=token,
        value=value,
        key=_string(given, b"k", KEY_LENGTH),
        signature=_string(given, b"sig", SIGNATURE_LENGTH),
        seq=seq,
        salt=_string(given, b"salt") if b"salt" in given else b"",
        cas=_number(given, b"cas"),
        is_canonical=is_canonical,
    )


def _decode_response(message: Mapping[bytes, Value], transaction_id: bytes) -> Response:
    given = message.get(b"r")
    if not isinstance(given, dict):
        raise KrpcDecodeError("response without results")
    node_id = _sized(given, b"id", NODE_ID_LENGTH)
    if node_id is None:
        raise KrpcDecodeError("response without a node id")
    token, version, values = given.get(b"token"), message.get(b"v"), given.get(b"values")
    return Response(
        transaction_id=transaction_id,
        node_id=node_id,
        nodes=_run(given, b"nodes", NODE_INFO_LENGTH),
        nodes6=_run(given, b"nodes6", NODE_INFO_LENGTH_V6),
        values=_read_values(values) if values else (),
        token=token if isinstance(token, bytes) and len(token) <= MAX_TOKEN_LENGTH else None,
        external=_external(message),
        version=version[:4] if isinstance(version, bytes) else b"",
        value=encode_value(given[b"v"]) if b"v" in given else None,
        key=_sized(given, b"k", KEY_LENGTH),
        signature=_sized(given, b"sig", SIGNATURE_LENGTH),
        seq=_count(given, b"seq"),
        samples=_run(given, b"samples", NODE_ID_LENGTH),
        num=_count(given, b"num"),
        interval=_count(given, b"interval"),
        seed_filter=_sized(given, b"BFsd", FILTER_LENGTH),
        peer_filter=_sized(given, b"BFpe", FILTER_LENGTH),
    )


def _sized(given: Mapping[bytes, Value], key: bytes, length: int) -> bytes | None:
    """Return a string of exactly ``length`` bytes, or None."""
    value = given.get(key)
    return value if isinstance(value, bytes) and len(value) == length else None


def _run(given: Mapping[bytes, Value], key: bytes, size: int) -> bytes | None:
    """Return a string of whole entries of ``size`` bytes, an incomplete last one cut off."""
    value = given.get(key)
    return value[: len(value) // size * size] if isinstance(value, bytes) else None


def _count(given: Mapping[bytes, Value], key: bytes) -> int | None:
    """Return an integer from 0, or None."""
    value = given.get(key)
    return value if isinstance(value, int) and value >= 0 else None


def _read_values(values: Value) -> tuple[bytes, ...]:
    """Return the compact peers in ``values``; BEP 32 allows both families in one list."""
    if not isinstance(values, list):
        return ()
    return tuple(value for value in values if isinstance(value, bytes) and len(value) in (6, 18))


def _external(message: Mapping[bytes, Value]) -> bytes:
    value = message.get(b"ip")
    return value if isinstance(value, bytes) and len(value) in (6, 18) else b""


def _decode_error(message: Mapping[bytes, Value], transaction_id: bytes) -> ErrorReply:
    code: Value = ErrorCode.GENERIC
    text: Value = b""
    given = message.get(b"e")
    # Interop: some nodes send a bare string, or a list without a text.
    if isinstance(given, list) and given:
        code, text = given[0], given[-1]
    elif isinstance(given, bytes):
        text = given
    return ErrorReply(
        transaction_id,
        code if isinstance(code, int) else ErrorCode.GENERIC,
        clean_text(text, limit=MAX_ERROR_TEXT_LENGTH) if isinstance(text, bytes) else "",
        _external(message),
    )
