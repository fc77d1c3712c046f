"""
DHT messages to bytes; the format is described in ``krpc``.

Everything is written in its one canonical form, keys in order. A node that answers
thousands of queries a second encodes results once and frames them with
``encode_response``.

Sources: BEP 5, 32, 33, 42, 43, 44, 51.
"""

from __future__ import annotations

from typing import Final, assert_never

from bittern.codec.krpc_message import (
    VERSION,
    AnnouncePeer,
    Arguments,
    ErrorReply,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Put,
    Query,
    Response,
    SampleInfohashes,
    Want,
)


def encode(message: Query | Response | ErrorReply) -> bytes:
    """Encode a message; what it lacks is left out."""
    match message:
        case Query(transaction_id, node_id, arguments, is_read_only):
            return encode_query(transaction_id, node_id, arguments, is_read_only=is_read_only)
        case Response():
            return _encode_response(message)
        case ErrorReply(transaction_id, code, text, external):
            return encode_error(transaction_id, code, text, external)
        case _:
            assert_never(message)


def encode_query(
    transaction_id: bytes, node_id: bytes, arguments: Arguments, *, is_read_only: bool = False
) -> bytes:
    """Return a query."""
    method, head, tail = _encode_arguments(arguments)
    return b"d1:ad%b2:id20:%b%be1:q%d:%b%b1:t%d:%b1:v4:%b1:y1:qe" % (
        head,
        node_id,
        tail,
        len(method),
        method,
        b"2:roi1e" if is_read_only else b"",
        len(transaction_id),
        transaction_id,
        VERSION,
    )


def encode_response(
    transaction_id: bytes, node_id: bytes, external: bytes, *, head: bytes = b"", tail: bytes = b""
) -> bytes:
    """
    Return a response around results that are encoded already.

    Args:
        transaction_id: of the query.
        node_id: our own.
        external: the asker's address and port, 6 or 18 bytes; empty to leave it out.
        head: keys and values that sort before ``id``.
        tail: keys and values that sort after it.
    """
    return b"d%b1:rd%b2:id20:%b%be1:t%d:%b1:v4:%b1:y1:re" % (
        b"2:ip%d:%b" % (len(external), external) if external else b"",
        head,
        node_id,
        tail,
        len(transaction_id),
        transaction_id,
        VERSION,
    )


def encode_error(transaction_id: bytes, code: int, text: str, external: bytes = b"") -> bytes:
    """Return an error; ``external`` as for ``encode_response``."""
    raw = text.encode()
    return b"d1:eli%de%d:%be%b1:t%d:%b1:v4:%b1:y1:ee" % (
        code,
        len(raw),
        raw,
        b"2:ip%d:%b" % (len(external), external) if external else b"",
        len(transaction_id),
        transaction_id,
        VERSION,
    )


def encode_entry(key: bytes, value: bytes) -> bytes:
    """Return a key and a string, as they stand in a dictionary."""
    return b"%d:%b%d:%b" % (len(key), key, len(value), value)


def _encode_arguments(arguments: Arguments) -> tuple[bytes, bytes, bytes]:
    """Return the method, and what sorts before and after ``id``."""
    match arguments:
        case Ping():
            return b"ping", b"", b""
        case FindNode(target, want):
            return b"find_node", b"", b"6:target20:%b%b" % (target, _WANTS[want])
        case GetPeers(info_hash, want, noseed, scrape):
            tail = b"9:info_hash20:%b%b%b%b" % (
                info_hash,
                b"6:noseedi1e" if noseed else b"",
                b"6:scrapei1e" if scrape else b"",
                _WANTS[want],
            )
            return b"get_peers", b"", tail
        case AnnouncePeer():
            return b"announce_peer", b"", _encode_announce(arguments)
        case Get(target, seq, want):
            known = b"" if seq is None else b"3:seqi%de" % seq
            return b"get", b"", b"%b6:target20:%b%b" % (known, target, _WANTS[want])
        case Put():
            cas = b"" if arguments.cas is None else b"3:casi%de" % arguments.cas
            return b"put", cas, _encode_put(arguments)
        case SampleInfohashes(target, want):
            return b"sample_infohashes", b"", b"6:target20:%b%b" % (target, _WANTS[want])
        case _:
            assert_never(arguments)


_WANTS: Final = {
    Want.NONE: b"",
    Want.V4: b"4:wantl2:n4e",
    Want.V6: b"4:wantl2:n6e",
    Want.V4 | Want.V6: b"4:wantl2:n42:n6e",
}


def _encode_announce(arguments: AnnouncePeer) -> bytes:
    # BEP 5: nodes that do not know implied_port take the port, so there is always one.
    return b"%b9:info_hash20:%b4:porti%de%b%b" % (
        b"12:implied_porti1e" if arguments.port is None else b"",
        arguments.info_hash,
        arguments.port or 1,
        b"4:seedi1e" if arguments.is_seed else b"",
        encode_entry(b"token", arguments.token),
    )


def _encode_put(arguments: Put) -> bytes:
    parts = []
    if arguments.key is not None and arguments.signature is not None:
        parts.append(encode_entry(b"k", arguments.key))
        if arguments.salt:
            parts.append(encode_entry(b"salt", arguments.salt))
        parts.append(b"3:seqi%de" % (arguments.seq or 0))
        parts.append(encode_entry(b"sig", arguments.signature))
    parts.append(encode_entry(b"token", arguments.token))
    parts.append(b"1:v" + arguments.value)
    return b"".join(parts)


def _encode_response(message: Response) -> bytes:
    strings = (
        (b"k", message.key),
        (b"nodes", message.nodes),
        (b"nodes6", message.nodes6),
        (b"samples", message.samples),
        (b"sig", message.signature),
        (b"token", message.token),
    )
    entries = {key: encode_entry(key, value) for key, value in strings if value is not None}
    numbers = ((b"interval", message.interval), (b"num", message.num), (b"seq", message.seq))
    entries |= {key: b"%d:%bi%de" % (len(key), key, n) for key, n in numbers if n is not None}
    if message.value is not None:
        entries[b"v"] = b"1:v" + message.value
    if message.values:
        peers = b"".join(b"%d:%b" % (len(value), value) for value in message.values)
        entries[b"values"] = b"6:valuesl%be" % peers
    filters = ((b"BFpe", message.peer_filter), (b"BFsd", message.seed_filter))
    return encode_response(
        message.transaction_id,
        message.node_id,
        message.external,
        head=b"".join(encode_entry(key, value) for key, value in filters if value is not None),
        tail=b"".join(entries[key] for key in sorted(entries)),
    )
