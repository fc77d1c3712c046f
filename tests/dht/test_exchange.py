"""Traffic of one node: rates, rubbish, proofs, and whose answer it is (Limits: N1, N2, N4)."""

from __future__ import annotations

import random

import pytest

from bittern.codec.bencode import encode as encode_value
from bittern.codec.krpc import decode
from bittern.codec.krpc_encoding import encode, encode_query
from bittern.codec.krpc_message import (
    ErrorCode,
    ErrorReply,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Query,
    Response,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import (
    LINK_DOWN_FAILURES,
    MAX_CHALLENGES,
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


# --- N1 -----------------------------------------------------------------------------------


def test_rates_of_address_and_node(rng: random.Random) -> None:
    """Limit: N1. Whatever is asked; who is answered no more still counts as heard from."""
    for arguments in (Ping(), Get(TARGET)):
        bench = Bench(rng, query_rate=5.0)
        assert sum(len(bench.query(arguments)) for _ in range(100)) == 20
        assert bench.exchange.counters.num_answered == 20
        assert bench.exchange.counters.num_limited == 80
        assert len(bench.suggested) == 100
        assert bench.suggested_ids == {ASKER_ID}
        # Others pay nothing for it, and a second later it goes on.
        assert len(bench.query(arguments, source=Endpoint("8.8.8.9", 4000))) == 1
        bench.now += 1.0
        assert sum(len(bench.query(arguments)) for _ in range(100)) == 5
    bench = Bench(rng, upload_rate=1000.0)
    sent = sum(
        len(data)
        for number in range(100)
        for data, _ in bench.query(Ping(), source=Endpoint(f"9.9.{number}.9", 1))
    )
    assert 1000 <= sent < 1100


def test_pings_for_proof_are_bounded(bench: Bench) -> None:
    """Limit: N1. And those that nobody answers make room for others."""
    bench.fill_torrent()
    for _ in range(2):
        pings = 0
        for number in range(2 * MAX_CHALLENGES):
            ((data, _),) = bench.query(
                GetPeers(TARGET, scrape=True), source=Endpoint(f"9.9.{number}.9", 1)
            )
            pings += isinstance(decode(data), Query)
        assert pings == MAX_CHALLENGES
        bench.now += QUERY_TIMEOUT
        bench.exchange.expire(now=bench.now)


def test_who_does_not_prove_itself_gets_nothing_more(bench: Bench) -> None:
    bench.fill_torrent()
    bench.query(GetPeers(TARGET, scrape=True))
    # A second query meanwhile is answered in short.
    assert bench.answer(GetPeers(TARGET, scrape=True)).seed_filter is None
    bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    assert bench.exchange.datagrams_to_send() == []
    bench.now += QUERY_TIMEOUT
    ((data, _),) = bench.query(GetPeers(TARGET, scrape=True))
    assert isinstance(decode(data), Query)


def test_who_proves_itself_gets_what_was_kept_back(bench: Bench) -> None:
    """Not before, not for the word of somebody else, and once."""
    bench.fill_torrent()
    waiting = encode_query(b"tt", ASKER_ID, GetPeers(TARGET, scrape=True))
    ((ping, target),) = bench.feed(waiting)
    message = decode(ping)
    assert isinstance(message, Query)
    assert (message.arguments, target) == (Ping(), ASKER)
    # It takes a while, which is no reason to ask again.
    timer = bench.exchange.next_timer()
    assert timer is not None
    bench.now = timer
    bench.exchange.expire(now=timer)
    assert bench.exchange.datagrams_to_send() == []
    pong = encode(Response(transaction_id=message.transaction_id, node_id=ASKER_ID))
    assert bench.feed(pong, Endpoint("8.8.8.9", 4000)) == []
    ((data, target),) = bench.feed(pong)
    answer = decode(data)
    assert isinstance(answer, Response)
    assert (answer.transaction_id, target) == (b"tt", ASKER)
    assert answer.seed_filter is not None
    assert bench.feed(pong) == []


def test_who_refuses_to_prove_itself_gets_nothing_more(bench: Bench) -> None:
    """An error instead of a pong; it came from there, so the next query is answered at once."""
    bench.fill_torrent()
    ((ping, _),) = bench.query(GetPeers(TARGET, scrape=True))
    message = decode(ping)
    assert bench.feed(encode(ErrorReply(message.transaction_id, 202, "no"))) == []
    assert bench.answer(GetPeers(TARGET, scrape=True)).seed_filter is not None


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


def test_who_is_in_the_table_already_is_heard_from_again(bench: Bench) -> None:
    bench.table.note_answer(ASKER_ID, ASKER, now=bench.now)
    for arguments in (Ping(), Get(TARGET)):
        bench.now += 60.0
        bench.query(arguments)
        assert [node.heard_at for node in bench.table] == [bench.now]
    assert bench.suggested == []


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
    counters = bench.exchange.counters
    assert (counters.num_asked, counters.num_sent) == (1, 1)
    assert counters.sent_length == len(encode_query(transaction_id, OWN, FindNode(TARGET)))
    bench.feed(encode(response))
    assert counters.num_received == 1
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


@pytest.mark.parametrize("what", ["answer", "error", "silence"])
def test_who_has_given_up_waiting_hears_nothing_more(bench: Bench, what: str) -> None:
    """But the node is judged by what comes in the end."""
    _, transaction_id = ask(bench)
    bench.now += 0.1
    bench.feed(encode(Response(transaction_id=transaction_id, node_id=ASKER_ID)))
    waiter = Recorder(is_hurried=True)
    asked_at = bench.now
    bench.exchange.ask(ASKER, FindNode(TARGET), waiter, now=bench.now)
    ((data, _),) = bench.exchange.datagrams_to_send()
    transaction_id = decode(data).transaction_id
    while len(waiter.heard) < 2:
        timer = bench.exchange.next_timer()
        assert timer is not None
        bench.now = timer
        bench.exchange.expire(now=timer)
    assert bench.now < asked_at + QUERY_TIMEOUT
    assert bench.table.num_good() == 1
    if what == "answer":
        bench.feed(encode(Response(transaction_id=transaction_id, node_id=ASKER_ID)))
    elif what == "error":
        bench.feed(encode(ErrorReply(transaction_id, 201, "no")))
    else:
        bench.exchange.expire(now=asked_at + QUERY_TIMEOUT)
    assert [type(heard) for heard in waiter.heard] == [str, QueryTimeout]
    assert bench.exchange.counters.num_unmatched == 0
    assert bench.exchange.counters.num_timeouts == (what == "silence")
    assert bench.table.num_good() == (what != "silence")
    assert bench.exchange.next_timer() is None
