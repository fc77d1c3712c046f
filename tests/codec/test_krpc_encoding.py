"""DHT messages written to the wire; the round trip is in ``test_krpc``."""

from __future__ import annotations

import pytest

from bittern.codec.bencode import decode
from bittern.codec.krpc_encoding import (
    encode,
    encode_entry,
    encode_error,
    encode_query,
    encode_response,
)
from bittern.codec.krpc_message import (
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

ID = b"abcdefghij0123456789"
TARGET = b"mnopqrstuvwxyz123456"

QUERIES: list[tuple[Arguments, bytes]] = [
    (Ping(), b"d1:ad2:id20:%be1:q4:ping1:t2:aa1:v4:bt011:y1:qe"),
    (
        FindNode(TARGET, Want.V4),
        (
            b"d1:ad2:id20:%b6:target20:mnopqrstuvwxyz1234564:wantl2:n4ee1:q9:find_node"
            b"1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
    (
        GetPeers(TARGET, Want.V6, noseed=True, scrape=True),
        (
            b"d1:ad2:id20:%b9:info_hash20:mnopqrstuvwxyz1234566:noseedi1e6:scrapei1e4:wantl2:n6ee"
            b"1:q9:get_peers1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
    (
        AnnouncePeer(TARGET, 80, b"tok", is_seed=True),
        (
            b"d1:ad2:id20:%b9:info_hash20:mnopqrstuvwxyz1234564:porti80e4:seedi1e5:token3:toke"
            b"1:q13:announce_peer1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
    (
        AnnouncePeer(TARGET, None, b"tok"),
        (
            b"d1:ad2:id20:%b12:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti1e"
            b"5:token3:toke1:q13:announce_peer1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
    (
        Get(TARGET, 7, Want.V4 | Want.V6),
        (
            b"d1:ad2:id20:%b3:seqi7e6:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q3:get"
            b"1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
    (
        Put(token=b"tok", value=b"2:hi"),
        b"d1:ad2:id20:%b5:token3:tok1:v2:hie1:q3:put1:t2:aa1:v4:bt011:y1:qe",
    ),
    (
        SampleInfohashes(TARGET),
        (
            b"d1:ad2:id20:%b6:target20:mnopqrstuvwxyz123456e1:q17:sample_infohashes"
            b"1:t2:aa1:v4:bt011:y1:qe"
        ),
    ),
]


@pytest.mark.parametrize(("arguments", "template"), QUERIES)
def test_queries(arguments: Arguments, template: bytes) -> None:
    assert encode_query(b"aa", ID, arguments) == template % ID


def test_a_read_only_node_says_so() -> None:
    data = encode_query(b"aa", ID, Ping(), is_read_only=True)
    assert data == b"d1:ad2:id20:%be1:q4:ping2:roi1e1:t2:aa1:v4:bt011:y1:qe" % ID


def test_a_mutable_put_has_all_its_keys_in_order() -> None:
    put = Put(token=b"t", value=b"i5e", key=b"k" * 32, signature=b"s" * 64, seq=0, salt=b"x", cas=9)
    data = encode_query(b"aa", ID, put)
    message = decode(data, require_sorted=True)
    assert isinstance(message, dict)
    assert message[b"a"] == {
        b"cas": 9, b"id": ID, b"k": b"k" * 32, b"salt": b"x", b"seq": 0,
        b"sig": b"s" * 64, b"token": b"t", b"v": 5,
    }  # fmt: skip


def test_an_item_without_salt_names_none() -> None:
    put = Put(token=b"t", value=b"i5e", key=b"k" * 32, signature=b"s" * 64)
    message = decode(encode_query(b"aa", ID, put), require_sorted=True)
    assert isinstance(message, dict)
    assert message[b"a"] == {
        b"id": ID, b"k": b"k" * 32, b"seq": 0, b"sig": b"s" * 64, b"token": b"t", b"v": 5,
    }  # fmt: skip


def test_an_answer_carries_the_askers_address_in_front() -> None:
    data = encode_response(b"aa", ID, b"123456", tail=encode_entry(b"token", b"x"))
    assert data == b"d2:ip6:1234561:rd2:id20:%b5:token1:xe1:t2:aa1:v4:bt011:y1:re" % ID
    assert encode_response(b"aa", ID, b"").startswith(b"d1:rd2:id20:")


def test_errors() -> None:
    assert encode_error(b"aa", 203, "bad") == b"d1:eli203e3:bade1:t2:aa1:v4:bt011:y1:ee"
    with_address = encode_error(b"aa", 203, "bad", b"123456")
    assert with_address == b"d1:eli203e3:bade2:ip6:1234561:t2:aa1:v4:bt011:y1:ee"


def test_an_empty_response_has_no_results_but_the_id() -> None:
    data = encode(Response(transaction_id=b"aa", node_id=ID))
    assert data == b"d1:rd2:id20:%be1:t2:aa1:v4:bt011:y1:re" % ID


def test_a_response_has_its_results_in_order() -> None:
    response = Response(
        transaction_id=b"aa",
        node_id=ID,
        external=b"123456",
        value=b"2:hi",
        values=(b"peer-1", b"peer-2"),
        nodes=b"n" * 26,
        token=b"tok",
        seq=4,
        interval=60,
        peer_filter=b"p" * 256,
        seed_filter=b"s" * 256,
    )
    message = decode(encode(response), require_sorted=True)
    assert isinstance(message, dict)
    assert message[b"ip"] == b"123456"
    assert message[b"r"] == {
        b"BFpe": b"p" * 256, b"BFsd": b"s" * 256, b"id": ID, b"interval": 60, b"nodes": b"n" * 26,
        b"seq": 4, b"token": b"tok", b"v": b"hi", b"values": [b"peer-1", b"peer-2"],
    }  # fmt: skip


def test_messages_of_every_kind_are_encoded() -> None:
    query = Query(b"aa", ID, FindNode(TARGET, Want.V4), is_read_only=True)
    assert encode(query) == encode_query(b"aa", ID, query.arguments, is_read_only=True)
    error = ErrorReply(b"aa", 203, "bad", b"123456")
    assert encode(error) == encode_error(b"aa", 203, "bad", b"123456")
