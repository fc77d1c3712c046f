"""Answers by the rules, never longer than allowed (BEP 5, 32, 33, 44, 51; Limits: N1, N3)."""

from __future__ import annotations

import random

import pytest

from bittern.codec.bencode import decode as decode_value
from bittern.codec.krpc import PLAIN_QUERY, decode
from bittern.codec.krpc_encoding import encode, encode_query
from bittern.codec.krpc_message import (
    AnnouncePeer,
    Arguments,
    BadQuery,
    ErrorCode,
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
from bittern.core.endpoint import Endpoint
from bittern.dht.address import pack_host
from bittern.dht.items import Item
from bittern.dht.limits import (
    MAX_ANSWER_LENGTH,
    MAX_PEERS_ANSWER_LENGTH,
    MAX_SAMPLES,
    SAMPLE_INTERVAL,
    SIGNATURE_RATE,
)
from bittern.dht.responder import Asker
from tests.dht.bench import ASKER, ASKER_ID, KEY, NOW, OWN, TARGET, Bench


def test_ping(bench: Bench) -> None:
    assert bench.answer(Ping()) == Response(
        transaction_id=b"tt", node_id=OWN, external=ASKER.to_compact(), version=b"bt01"
    )
    assert bench.exchange.counters.num_answered == 1


@pytest.mark.parametrize("is_ipv6", [False, True])
def test_find_node_names_the_closest(rng: random.Random, is_ipv6: bool) -> None:
    bench = Bench(rng, is_ipv6=is_ipv6)
    bench.fill_table()
    bench.prove()
    answer = bench.answer(FindNode(TARGET))
    nodes, others = answer.nodes, answer.nodes6
    if is_ipv6:
        nodes, others = others, nodes
    expected = {node.compact for node in bench.table.closest(int.from_bytes(TARGET, "big"))}
    size = 38 if is_ipv6 else 26
    assert nodes is not None
    assert {nodes[at : at + size] for at in range(0, len(nodes), size)} == expected
    assert others is None


def test_nodes_of_the_other_family_on_request(bench: Bench, bench6: Bench) -> None:
    """BEP 32: want."""
    for each in (bench, bench6):
        each.fill_table()
        each.prove()
    bench.exchange.responder.other_table = bench6.table
    bench6.exchange.responder.other_table = bench.table
    both = Want.V4 | Want.V6
    for each in (bench, bench6):
        answer = each.answer(FindNode(TARGET, both))
        assert answer.nodes == bench.table.closest_compact(TARGET, 999)
        assert answer.nodes6 == bench6.table.closest_compact(TARGET, 999)
        ((data, _),) = each.query(FindNode(TARGET, both))
        decode_value(data, require_sorted=True)
    only = bench.answer(FindNode(TARGET, Want.V6))
    assert only.nodes is None
    assert only.nodes6 is not None
    only = bench.answer(FindNode(TARGET, Want.V4))
    assert only.nodes6 is None


def test_without_the_other_family_want_is_ignored(bench: Bench) -> None:
    bench.fill_table()
    answer = bench.answer(FindNode(TARGET, Want.V6))
    assert answer.nodes
    assert answer.nodes6 is None


def test_get_peers_gives_nodes_token_and_peers(bench: Bench) -> None:
    bench.fill_table()
    bench.prove()
    answer = bench.answer(GetPeers(TARGET))
    assert answer.token is not None
    assert len(answer.token) == 8
    assert answer.nodes is not None
    assert answer.values == ()
    bench.fill_torrent()
    answer = bench.answer(GetPeers(TARGET))
    assert len(answer.values) == 50
    assert answer.nodes is not None
    assert len(answer.nodes) == 208


def test_ipv6_get_peers(bench6: Bench) -> None:
    bench6.fill_table()
    bench6.fill_torrent()
    bench6.prove()
    answer = bench6.answer(GetPeers(TARGET))
    assert len(answer.values) == 20
    assert {len(value) for value in answer.values} == {18}


def test_both_ways_of_asking_give_the_same_answer(bench: Bench) -> None:
    """Also near our own id, where no entry is made in advance."""
    bench.fill_table()
    bench.fill_torrent(40)
    bench.peers.add(OWN, b"123456", is_seed=False, now=NOW)
    bench.prove()
    for arguments in (
        Ping(),
        FindNode(TARGET),
        FindNode(OWN),
        GetPeers(TARGET),
        GetPeers(OWN),
        GetPeers(OWN[:-1] + b"x"),
    ):
        plain = encode_query(b"tt", ASKER_ID, arguments)
        ((fast, _),) = bench.feed(plain)
        # A key that nobody knows keeps the pattern from matching.
        odd = plain.replace(b"1:y1:qe", b"1:xi1e1:y1:qe")
        ((slow, _),) = bench.feed(odd)
        assert decode(fast) == decode(slow)


def test_scrape_gives_filters(bench: Bench) -> None:
    """BEP 33."""
    bench.fill_table()
    bench.prove()
    assert bench.answer(GetPeers(TARGET, scrape=True)).seed_filter is None
    bench.fill_torrent()
    ((data, _),) = bench.query(GetPeers(TARGET, Want.V4 | Want.V6, scrape=True))
    assert len(data) <= MAX_PEERS_ANSWER_LENGTH
    answer = decode(data)
    assert isinstance(answer, Response)
    assert (answer.seed_filter, answer.peer_filter) == bench.peers.filters(TARGET, now=NOW)
    assert answer.values
    assert answer.token


def test_noseed(bench: Bench) -> None:
    bench.fill_torrent(40)
    bench.prove()
    answer = bench.answer(GetPeers(TARGET, noseed=True))
    assert len(answer.values) == 20
    assert all(value[2] % 2 for value in answer.values)


def test_announce_needs_the_token(bench: Bench) -> None:
    refusal = bench.error(AnnouncePeer(TARGET, 80, b"12345678"))
    assert refusal.code == ErrorCode.PROTOCOL
    token = bench.token()
    bench.answer(AnnouncePeer(TARGET, 80, token))
    assert bench.answer(GetPeers(TARGET)).values == (pack_host("8.8.8.8") + b"\0\x50",)
    # BEP 5: implied_port takes the source's port.
    bench.answer(AnnouncePeer(TARGET, None, token, is_seed=True))
    assert bench.answer(GetPeers(TARGET)).values == (ASKER.to_compact(),)
    # The token belongs to an address.
    other = Endpoint("8.8.8.9", 4000)
    ((data, _),) = bench.query(AnnouncePeer(TARGET, 80, token), source=other)
    assert isinstance(decode(data), ErrorReply)


def test_items(bench: Bench) -> None:
    """BEP 44."""
    token = bench.token()
    bench.answer(Put(token=token, value=b"5:hello"))
    item = Item(b"5:hello")
    answer = bench.answer(Get(item.target))
    assert (answer.value, answer.key) == (b"5:hello", None)
    assert answer.token is not None
    bench.answer(Put(token=token, value=b"1:a", key=KEY, signature=b"good" * 16, seq=4, salt=b"s"))
    mutable = Item(b"1:a", KEY, b"s", 4, b"good" * 16)
    answer = bench.answer(Get(mutable.target))
    assert (answer.value, answer.key, answer.seq) == (b"1:a", KEY, 4)
    assert answer.signature == b"good" * 16
    # Only the number if the asker has it already.
    answer = bench.answer(Get(mutable.target, seq=4))
    assert (answer.value, answer.key, answer.seq) == (None, None, 4)
    assert bench.answer(Get(mutable.target, seq=3)).value == b"1:a"
    assert bench.answer(Get(TARGET)).value is None


def test_put_is_refused_with_a_reason(bench: Bench) -> None:
    token = bench.token()
    bad = Put(token=token, value=b"1:a", key=KEY, signature=b"bad!" * 16, seq=4)
    assert bench.error(bad).code == ErrorCode.BAD_SIGNATURE
    assert bench.error(Put(token=b"", value=b"1:a")).code == ErrorCode.PROTOCOL
    long = Put(token=token, value=b"1001:" + b"x" * 1001)
    assert bench.error(long).code == ErrorCode.VALUE_TOO_BIG
    good = Put(token=token, value=b"1:a", key=KEY, signature=b"good" * 16, seq=4)
    bench.answer(good)
    older = Put(token=token, value=b"1:b", key=KEY, signature=b"good" * 16, seq=3)
    assert bench.error(older).code == ErrorCode.SEQ_TOO_LOW


def test_signatures_are_checked_at_a_bounded_rate(bench: Bench) -> None:
    """Limit: N3. The same item again needs no check."""
    token = bench.token()
    codes = []
    for number in range(int(SIGNATURE_RATE) + 20):
        put = Put(token=token, value=b"1:a", key=KEY, signature=b"good" * 16, seq=number)
        ((data, _),) = bench.query(put)
        message = decode(data)
        codes.append(message.code if isinstance(message, ErrorReply) else None)
    assert codes.count(None) == int(SIGNATURE_RATE)
    assert set(codes[int(SIGNATURE_RATE) :]) == {ErrorCode.SERVER}
    last = Put(
        token=token, value=b"1:a", key=KEY, signature=b"good" * 16, seq=int(SIGNATURE_RATE) - 1
    )
    bench.answer(last)


def test_samples(bench: Bench) -> None:
    """BEP 51."""
    bench.fill_table()
    bench.prove()
    answer = bench.answer(SampleInfohashes(TARGET))
    assert (answer.samples, answer.num, answer.interval) == (b"", 0, SAMPLE_INTERVAL)
    for number in range(30):
        bench.peers.add(bytes([number]) * 20, b"123456", is_seed=False, now=NOW)
    answer = bench.answer(SampleInfohashes(TARGET))
    assert answer.num == 30
    assert answer.samples is not None
    assert len(answer.samples) == 20 * MAX_SAMPLES
    assert answer.nodes


# --- N1 -----------------------------------------------------------------------------------

QUERIES: list[Arguments] = [
    Ping(),
    FindNode(TARGET),
    FindNode(TARGET, Want.V4 | Want.V6),
    GetPeers(TARGET),
    GetPeers(TARGET, Want.V4 | Want.V6, scrape=True),
    Get(TARGET),
    SampleInfohashes(TARGET),
    AnnouncePeer(TARGET, 1, b""),
    Put(token=b"", value=b"0:"),
]


@pytest.mark.parametrize("arguments", QUERIES)
@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("is_read_only", [False, True])
def test_a_stranger_gets_at_most_four_times_its_query(
    rng: random.Random, arguments: Arguments, is_ipv6: bool, is_read_only: bool
) -> None:
    """Limit: N1. Whatever is stored, and whatever is asked for."""
    bench, other = Bench(rng, is_ipv6=is_ipv6), Bench(rng, is_ipv6=not is_ipv6)
    for each in (bench, other):
        each.fill_table()
    bench.fill_torrent()
    for number in range(30):
        bench.peers.add(bytes([number]) * 20, bytes(6 + 12 * is_ipv6), is_seed=False, now=NOW)
    bench.exchange.responder.other_table = other.table
    bench.items.put(Item(b"995:" + b"x" * 995), b"", now=NOW)
    query = encode_query(b"tt", ASKER_ID, arguments, is_read_only=is_read_only)
    sent = bench.feed(query)
    assert sum(len(data) for data, _ in sent) <= 4 * len(query)


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("near", [TARGET, OWN], ids=["far", "near"])
def test_a_plain_answer_is_as_long_as_it_may_be_and_no_longer(
    rng: random.Random, is_ipv6: bool, near: bytes
) -> None:
    """Limit: N1. Every limit that the length of a query may give."""
    bench = Bench(rng, is_ipv6=is_ipv6)
    bench.fill_table()
    bench.fill_torrent()
    source = bench.guard.source(bench.asker.host, now=NOW)
    for arguments in (FindNode(near), GetPeers(near)):
        for transaction_id in (b"tt", b"tttt"):
            query = PLAIN_QUERY(encode_query(transaction_id, ASKER_ID, arguments))
            assert query is not None
            lengths, nodes = [], None
            for limit in (*range(200, 800), MAX_ANSWER_LENGTH):
                answer = bench.exchange.responder.answer_plain(query, source, 9, limit, NOW)
                lengths.append(len(answer))
                assert len(answer) <= min(limit, MAX_PEERS_ANSWER_LENGTH)
                response = decode(answer)
                assert isinstance(response, Response)
                nodes = response.nodes6 if is_ipv6 else response.nodes
                assert nodes is not None
            assert len(nodes or b"") == 8 * (38 if is_ipv6 else 26)
            assert max(lengths) == lengths[-1]


@pytest.mark.parametrize("arguments", QUERIES)
def test_nobody_gets_more_than_fits_a_datagram(rng: random.Random, arguments: Arguments) -> None:
    """Limit: N1."""
    bench = Bench(rng, is_ipv6=True)
    other = Bench(rng)
    for each in (bench, other):
        each.fill_table()
    bench.fill_torrent()
    bench.exchange.responder.other_table = other.table
    bench.prove()
    ((data, _),) = bench.query(arguments)
    assert len(data) <= MAX_ANSWER_LENGTH
    if not isinstance(arguments, Get):
        assert len(data) <= MAX_PEERS_ANSWER_LENGTH


def test_the_largest_item_fits(bench: Bench) -> None:
    """BEP 44: up to 1,000 bytes, with key, signature and nodes."""
    bench.fill_table()
    bench.prove()
    item = Item(b"996:" + b"x" * 996, KEY, b"", (1 << 63) - 1, b"good" * 16)
    bench.items.put(item, b"", now=NOW)
    ((data, _),) = bench.query(Get(item.target))
    assert len(data) <= MAX_ANSWER_LENGTH
    answer = decode(data)
    assert isinstance(answer, Response)
    assert answer.value == item.value
    assert answer.nodes


def test_a_long_item_waits_for_proof(bench: Bench) -> None:
    """Limit: N1. A ping first, no longer than the query; the item after its answer."""
    bench.fill_table()
    item = Item(b"900:" + b"x" * 900)
    bench.items.put(item, b"", now=NOW)
    query = encode_query(b"tt", ASKER_ID, Get(item.target))
    ((ping, target),) = bench.feed(query)
    assert target == ASKER
    assert len(ping) <= len(query)
    message = decode(ping)
    assert isinstance(message, Query)
    assert isinstance(message.arguments, Ping)
    # Somebody else cannot prove it for him.
    pong = encode(Response(transaction_id=message.transaction_id, node_id=ASKER_ID))
    assert bench.feed(pong, Endpoint("8.8.8.9", 4000)) == []
    ((data, target),) = bench.feed(pong)
    answer = decode(data)
    assert isinstance(answer, Response)
    assert answer.transaction_id == b"tt"
    assert answer.value == item.value
    # From now on at once.
    assert bench.answer(Get(item.target)).value == item.value


def test_a_short_item_needs_no_proof(bench: Bench) -> None:
    bench.fill_table()
    item = Item(b"5:hello")
    bench.items.put(item, b"", now=NOW)
    answer = bench.answer(Get(item.target))
    assert answer.value == b"5:hello"
    assert answer.nodes


def test_filters_wait_for_proof_too(bench: Bench) -> None:
    bench.fill_torrent()
    ((ping, _),) = bench.query(GetPeers(TARGET, scrape=True))
    message = decode(ping)
    assert isinstance(message, Query)
    pong = encode(Response(transaction_id=message.transaction_id, node_id=ASKER_ID))
    ((data, _),) = bench.feed(pong)
    answer = decode(data)
    assert isinstance(answer, Response)
    assert answer.seed_filter is not None


def test_a_read_only_asker_is_not_pinged(bench: Bench) -> None:
    """BEP 43: it would not answer. It gets what may be had without."""
    bench.fill_torrent()
    item = Item(b"900:" + b"x" * 900, KEY, b"", 4, b"good" * 16)
    bench.items.put(item, b"", now=NOW)
    ((data, _),) = bench.query(Get(item.target), is_read_only=True)
    answer = decode(data)
    assert isinstance(answer, Response)
    assert (answer.value, answer.key, answer.signature, answer.seq) == (None, None, None, None)
    assert answer.token
    ((data, _),) = bench.query(GetPeers(TARGET, scrape=True), is_read_only=True)
    answer = decode(data)
    assert isinstance(answer, Response)
    assert answer.seed_filter is None


def test_errors_go_to_who_has_proven_itself(bench: Bench) -> None:
    """Limit: N4. Others could make us send errors to anybody."""
    bad = BadQuery(b"tt", ErrorCode.PROTOCOL, "bad id")

    def answer() -> bytes | None:
        asker = Asker(bench.guard.source(ASKER.host, now=NOW), ASKER, MAX_ANSWER_LENGTH)
        return bench.exchange.responder.answer(bad, asker, now=NOW)

    assert answer() is None
    bench.prove()
    data = answer()
    assert data is not None
    error = decode(data)
    assert isinstance(error, ErrorReply)
    assert (error.transaction_id, error.code, error.text) == (b"tt", ErrorCode.PROTOCOL, "bad id")


def test_an_error_that_would_be_too_long_is_not_sent(bench: Bench) -> None:
    bench.prove()
    responder = bench.exchange.responder
    asker = Asker(bench.guard.source(ASKER.host, now=NOW), ASKER, 20)
    bad = BadQuery(b"tt", ErrorCode.PROTOCOL, "bad id")
    assert responder.answer(bad, asker, now=NOW) is None


def test_a_good_token_is_a_proof(bench: Bench) -> None:
    bench.fill_torrent()
    bench.answer(AnnouncePeer(TARGET, 80, bench.token()))
    assert len(bench.answer(GetPeers(TARGET)).values) == 50
