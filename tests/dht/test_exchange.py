"""Traffic of one node: rates, rubbish, proofs, and whose answer it is (Limits: N1, N2, N4)."""

from __future__ import annotations

import random

from bittern.codec.bencode import encode as encode_value
from bittern.codec.krpc import decode
from bittern.codec.krpc_encoding import encode
from bittern.codec.krpc_message import (
    ErrorCode,
    ErrorReply,
    FindNode,
    Get,
    Ping,
    Query,
    Response,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import (
    LINK_DOWN_FAILURES,
    QUERY_TIMEOUT,
)
from tests.dht.bench import ASKER, ASKER_ID, NOW, OWN, TARGET, Bench
from tests.dht.test_transactions import Recorder

# --- N4 -----------------------------------------------------------------------------------


def test_rubbish_is_counted_and_not_answered(bench: Bench) -> None:
    for data in (b"", b"d", b"x" * 3000, b"d1:t2:aa1:y1:qe", b"le"):
        assert bench.feed(data) == []
    assert bench.exchange.counters.num_malformed == 5


def test_errors_go_to_known_nodes_only(bench: Bench) -> None:
    """Limit: N4."""
    unknown = encode_value({b"t": b"tt", b"y": b"q", b"q": b"vote", b"a": {b"id": ASKER_ID}})
    assert bench.feed(unknown) == []
    bench.prove()
    ((data, _),) = bench.feed(unknown)
    message = decode(data)
    assert isinstance(message, ErrorReply)
    assert (message.code, message.text) == (ErrorCode.METHOD_UNKNOWN, "unknown method")
    assert message.external == ASKER.to_compact()


def test_an_error_that_would_be_too_long_is_not_sent(bench: Bench) -> None:
    bench.prove()
    responder = bench.exchange.responder
    from bittern.codec.krpc_message import BadQuery
    from bittern.dht.responder import Asker

    asker = Asker(bench.guard.source(ASKER.host, now=NOW), ASKER, 20)
    bad = BadQuery(b"tt", ErrorCode.PROTOCOL, "bad id")
    assert responder.answer(bad, asker, now=NOW) is None


# --- read-only ----------------------------------------------------------------------------


def test_a_read_only_node_answers_nobody_and_says_so(rng: random.Random) -> None:
    """BEP 43."""
    bench = Bench(rng, is_read_only=True)
    for arguments in (Ping(), Get(TARGET)):
        assert bench.query(arguments) == []
    bench.exchange.ask(ASKER, Ping(), Recorder(), now=NOW)
    ((data, _),) = bench.exchange.datagrams_to_send()
    message = decode(data)
    assert isinstance(message, Query)
    assert message.is_read_only


def test_read_only_askers_are_not_suggested(bench: Bench) -> None:
    bench.query(Ping(), is_read_only=True)
    assert bench.suggested == []
    bench.query(Ping())
    bench.query(Get(TARGET))
    assert bench.suggested == [ASKER, ASKER]


# --- our own queries ----------------------------------------------------------------------


def ask(bench: Bench, target: Endpoint = ASKER) -> tuple[Recorder, bytes]:
    waiter = Recorder()
    bench.exchange.ask(target, FindNode(TARGET), waiter, now=bench.now)
    ((data, where),) = bench.exchange.datagrams_to_send()
    assert where == target
    message = decode(data)
    assert isinstance(message, Query)
    assert message.node_id == OWN
    return waiter, message.transaction_id


def test_an_answer_reaches_its_waiter_and_the_table(bench: Bench) -> None:
    waiter, transaction_id = ask(bench)
    response = Response(
        transaction_id=transaction_id, node_id=ASKER_ID, external=b"\x01\x02\x03\x04\0\x01"
    )
    bench.feed(encode(response))
    assert [type(heard) for heard in waiter.heard] == [Response]
    assert [node.node_id for node in bench.table] == [ASKER_ID]
    assert bench.told == [(ASKER, b"\x01\x02\x03\x04\0\x01")]
    # It has proven its address by that.
    assert bench.guard.max_answer(bench.guard.source(ASKER.host, now=NOW), 10, now=NOW) > 40


def test_answers_that_nobody_asked_for_change_nothing(bench: Bench) -> None:
    """Limit: N2."""
    waiter, transaction_id = ask(bench)
    good = encode(Response(transaction_id=transaction_id, node_id=ASKER_ID))
    error = encode(ErrorReply(transaction_id, 201, "no"))
    for data, source in (
        (good, Endpoint("8.8.8.8", 4001)),
        (good, Endpoint("8.8.8.9", 4000)),
        (error, Endpoint("8.8.8.9", 4000)),
        (encode(Response(transaction_id=b"xxxx", node_id=ASKER_ID)), ASKER),
    ):
        bench.feed(data, source)
    assert waiter.heard == []
    assert len(bench.table) == 0
    assert bench.exchange.counters.num_unmatched == 4


def test_a_refusal_reaches_its_waiter(bench: Bench) -> None:
    waiter, transaction_id = ask(bench)
    bench.feed(encode(ErrorReply(transaction_id, 203, "bad token")))
    (error,) = waiter.heard
    assert isinstance(error, KrpcFailure)
    assert (error.code, error.message) == (203, "bad token")


def test_routers_stay_out_of_the_table(bench: Bench) -> None:
    """BEP 5: do not add well-known nodes to the routing table."""
    bench.exchange.routers = frozenset({ASKER})
    waiter, transaction_id = ask(bench)
    bench.feed(encode(Response(transaction_id=transaction_id, node_id=ASKER_ID)))
    assert len(waiter.heard) == 1
    assert len(bench.table) == 0


def test_silence_counts_against_a_node_until_everybody_is_silent(bench: Bench) -> None:
    bench.fill_table(100)
    nodes = [node.endpoint for node in bench.table]
    num_before = len(nodes)
    for endpoint in nodes[:LINK_DOWN_FAILURES] * 2:
        ask(bench, endpoint)
    bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    # The first round marks, the second would remove, but by then our link is to blame.
    assert len(bench.table) == num_before
    assert bench.table.num_good() == num_before - LINK_DOWN_FAILURES
    assert bench.exchange.counters.num_timeouts == 2 * LINK_DOWN_FAILURES
    assert bench.exchange.next_timer() is None
    # One answer, and silence counts again.
    _waiter, transaction_id = ask(bench)
    bench.feed(encode(Response(transaction_id=transaction_id, node_id=ASKER_ID)))
    ask(bench, nodes[0])
    bench.exchange.expire(now=NOW + 2 * QUERY_TIMEOUT)
    assert bench.table.get(nodes[0]) is None


def test_a_waiter_hears_of_silence(bench: Bench) -> None:
    waiter, _ = ask(bench)
    assert bench.exchange.next_timer() is not None
    bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    assert waiter.heard[0] == "slow"
    assert isinstance(waiter.heard[1], QueryTimeout)
