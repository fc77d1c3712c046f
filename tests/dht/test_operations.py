"""Lookups and what is written at their end, on a host that keeps what is asked."""

from __future__ import annotations

import pytest

from bittern.codec.krpc_message import (
    AnnouncePeer,
    Arguments,
    FindNode,
    Get,
    GetPeers,
    Put,
    Response,
    Want,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.bloom import make_filter
from bittern.dht.events import (
    DhtEvent,
    ItemFound,
    ItemLookupEnded,
    NodesFound,
    OtherFamilyHeard,
    PeersFound,
    PeersLookupEnded,
)
from bittern.dht.items import Item
from bittern.dht.lookup import Lookup
from bittern.dht.operations import (
    ItemOperation,
    MakeItem,
    Operation,
    PeersOperation,
    Refresh,
)
from bittern.dht.transactions import Waiter

TARGET = bytes(20)
OWN = b"\xff" * 20
HASH = TARGET
KEY = b"k" * 32
GOOD = b"good" * 16


def compact(number: int) -> bytes:
    return bytes([20, number, 1, 1, 0, 80])


def node_id(number: int) -> bytes:
    return number.to_bytes(20, "big")


class Host:
    """Keeps queries with their waiters, events, and what has ended."""

    def __init__(self) -> None:
        self.asked: list[tuple[Endpoint, Arguments, Waiter]] = []
        self.events: list[DhtEvent] = []
        self.ended: list[Operation] = []

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        self.asked.append((endpoint, arguments, waiter))

    def emit(self, event: DhtEvent) -> None:
        self.events.append(event)

    def operation_ended(self, operation: Operation, *, now: float) -> None:
        self.ended.append(operation)

    def answer(self, **results: object) -> Arguments:
        """Answer the oldest query, as the node that was asked; return what was asked."""
        endpoint, arguments, waiter = self.asked.pop(0)
        number = int(endpoint.host.split(".")[1])
        response = Response(transaction_id=b"aa", node_id=node_id(number), **results)  # type: ignore[arg-type]
        waiter.answered(response, now=1.0)
        return arguments

    def fail(self, error: KrpcFailure | QueryTimeout | None = None) -> None:
        _, _, waiter = self.asked.pop(0)
        waiter.failed(error or QueryTimeout(), now=1.0)


def lookup(count: int = 3) -> Lookup:
    made = Lookup(TARGET, OWN)
    for number in range(1, count + 1):
        made.add_start(node_id(number), compact(number))
    return made


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_plain_lookup_ends_with_its_nodes(host: Host) -> None:
    operation = Operation(host, 5, lookup(), FindNode(TARGET))
    operation.advance(now=0.0)
    assert [arguments for _, arguments, _ in host.asked] == [FindNode(TARGET)] * 3
    host.answer()
    host.fail()
    host.answer(nodes=node_id(9) + compact(9))
    assert host.answer() == FindNode(TARGET)
    (event,) = host.events
    assert isinstance(event, NodesFound)
    assert (event.request_id, event.num_queries) == (5, 4)
    assert [int.from_bytes(node.node_id, "big") for node in event.nodes] == [1, 3, 9]
    assert host.ended == [operation]
    assert "5" in repr(operation)


def test_slow_nodes_let_others_be_asked(host: Host) -> None:
    operation = Operation(host, 5, lookup(5), FindNode(TARGET))
    operation.advance(now=0.0)
    assert len(host.asked) == 3
    host.asked[0][2].slowed(now=1.0)
    assert len(host.asked) == 4


@pytest.mark.parametrize("error", [QueryTimeout(), KrpcFailure(201, "no")])
def test_who_fails_makes_room_for_another(host: Host, error: QueryTimeout | KrpcFailure) -> None:
    Operation(host, 5, lookup(5), FindNode(TARGET)).advance(now=0.0)
    _, _, first = host.asked[0]
    host.fail(error)
    assert len(host.asked) == 3
    assert first not in [waiter for _, _, waiter in host.asked]


def test_each_family_is_looked_through_by_its_own_nodes(host: Host) -> None:
    """BEP 32: an answer may name nodes of both."""
    start, next_one = (bytes([0x2A, n]) + bytes(14) + b"\0\x50" for n in (1, 2))
    made = Lookup(TARGET, OWN)
    made.add_start(node_id(1), start)
    Operation(host, 5, made, FindNode(TARGET)).advance(now=0.0)
    _, _, waiter = host.asked.pop()
    response = Response(
        transaction_id=b"aa",
        node_id=node_id(1),
        nodes=node_id(5) + compact(5),
        nodes6=node_id(2) + next_one,
    )
    waiter.answered(response, now=1.0)
    assert [endpoint for endpoint, _, _ in host.asked] == [Endpoint("2a02::", 80)]


def test_a_cancelled_lookup_is_silent(host: Host) -> None:
    operation = Operation(host, 5, lookup(), FindNode(TARGET))
    operation.advance(now=0.0)
    operation.cancel()
    host.asked[2][2].slowed(now=1.0)
    host.answer()
    host.fail()
    host.answer()
    assert host.events == []
    assert host.asked == []


def test_a_cancelled_announce_is_silent_too(host: Host) -> None:
    operation = PeersOperation(
        host, 5, lookup(1), GetPeers(HASH), lambda token: AnnouncePeer(HASH, 80, token)
    )
    operation.advance(now=0.0)
    host.answer(token=b"one")
    operation.cancel()
    host.answer()
    assert host.events == []
    assert host.ended == []


def test_nobody_to_ask_ends_at_once(host: Host) -> None:
    Operation(host, 5, lookup(0), FindNode(TARGET)).advance(now=0.0)
    assert host.events == [NodesFound(5, (), 0)]


# --- refresh ------------------------------------------------------------------------------


def test_a_refresh_tells_nobody_but_its_maker(host: Host) -> None:
    ends: list[float] = []
    refresh = Refresh(host, lookup(1), FindNode(TARGET), ends.append)
    refresh.advance(now=0.0)
    host.answer()
    assert (host.events, ends, host.ended) == ([], [1.0], [refresh])
    Refresh(host, lookup(0), FindNode(TARGET), None).advance(now=0.0)
    assert host.events == []


def test_nodes_of_the_other_family_are_passed_on(host: Host) -> None:
    """BEP 32: "leaking" data between the two DHTs at bootstrap."""
    arguments = FindNode(TARGET, Want.V4 | Want.V6)
    Refresh(host, lookup(1), arguments, None).advance(now=0.0)
    other = b"x" * 20 + b"\x2a" + bytes(15) + b"\0\x50"
    host.answer(nodes=b"", nodes6=other)
    assert host.events == [OtherFamilyHeard((Endpoint("2a00::", 80),))]
    made = Lookup(TARGET, OWN)
    made.add_start(b"", b"\x2a" + bytes(15) + b"\0\x50")
    Refresh(host, made, arguments, None).advance(now=0.0)
    _, _, waiter = host.asked.pop()
    waiter.answered(
        Response(transaction_id=b"aa", node_id=node_id(1), nodes=b"y" * 20 + compact(5)), now=1.0
    )
    assert host.events[1:] == [OtherFamilyHeard((Endpoint("20.5.1.1", 80),))]


# --- peers --------------------------------------------------------------------------------


def test_peers_come_once_and_plausible(host: Host) -> None:
    PeersOperation(host, 5, lookup(), GetPeers(HASH), None).advance(now=0.0)
    first, second = b"\x09\x09\x09\x09\0\x50", b"\x09\x09\x09\x0a\0\x50"
    host.answer(values=(first, first, b"\x7f\0\0\1\0\x50", b"\x09\x09\x09\x09\0\0"))
    host.answer(values=(first, second))
    host.answer(values=(first,))
    assert host.events[:2] == [
        PeersFound(5, (Endpoint("9.9.9.9", 80),), Endpoint("20.1.1.1", 80)),
        PeersFound(5, (Endpoint("9.9.9.10", 80),), Endpoint("20.2.1.1", 80)),
    ]
    end = host.events[2]
    assert isinstance(end, PeersLookupEnded)
    assert (end.num_peers, end.num_stored, end.num_queries) == (2, 0, 3)
    assert (end.num_seeds_estimate, end.num_leechers_estimate) == (None, None)


def test_an_announce_goes_to_who_gave_a_token(host: Host) -> None:
    def announce(token: bytes) -> AnnouncePeer:
        return AnnouncePeer(HASH, 80, token)

    PeersOperation(host, 5, lookup(), GetPeers(HASH), announce).advance(now=0.0)
    host.answer(token=b"one")
    host.answer()
    host.answer(token=b"three")
    assert host.events == []
    # A node that is asked to store something may be slow; that changes nothing.
    host.asked[0][2].slowed(now=1.0)
    assert host.answer() == announce(b"one")
    host.fail(KrpcFailure(203, "bad token"))
    (end,) = host.events
    assert isinstance(end, PeersLookupEnded)
    assert end.num_stored == 1
    assert len(host.ended) == 1


def test_an_announce_without_tokens_ends_the_same(host: Host) -> None:
    PeersOperation(
        host, 5, lookup(1), GetPeers(HASH), lambda token: AnnouncePeer(HASH, 80, token)
    ).advance(now=0.0)
    host.answer()
    assert isinstance(host.events[-1], PeersLookupEnded)


def test_estimates_join_filters_and_values(host: Host) -> None:
    """BEP 33, with a node that knows nothing of it."""
    seeds = [bytes([1, 1, 1, n]) for n in range(40)]
    others = [bytes([2, 2, 2, n]) for n in range(60)]
    operation = PeersOperation(host, 5, lookup(5), GetPeers(HASH, scrape=True), None)
    operation.advance(now=0.0)
    host.answer(peer_filter=make_filter(others[:2]))  # half an answer is none
    host.answer(seed_filter=make_filter(seeds[:2]))
    host.answer(seed_filter=make_filter(seeds[:30]), peer_filter=make_filter(others[:40]))
    host.answer(seed_filter=make_filter(seeds[20:]), peer_filter=make_filter(others[20:50]))
    host.answer(values=tuple(each + b"\0\x50" for each in others[40:] + seeds[:5]))
    end = host.events[-1]
    assert isinstance(end, PeersLookupEnded)
    assert end.num_seeds_estimate == pytest.approx(40, rel=0.1)
    assert end.num_leechers_estimate == pytest.approx(60, rel=0.1)


def test_a_scrape_without_any_answer_estimates_nothing(host: Host) -> None:
    operation = PeersOperation(host, 5, lookup(1), GetPeers(HASH, scrape=True), None)
    operation.advance(now=0.0)
    host.answer()
    end = host.events[-1]
    assert isinstance(end, PeersLookupEnded)
    assert end.num_seeds_estimate is None


# --- items --------------------------------------------------------------------------------


def item_operation(
    host: Host,
    item: Item,
    *,
    make: MakeItem | None = None,
    uses_cas: bool = False,
    count: int = 3,
    named: int = 0,
) -> None:
    made = Lookup(item.target, OWN)
    for number in range(1, count + 1):
        made.add_start(node_id(named or number), compact(number))
    ItemOperation(
        host,
        5,
        made,
        Get(item.target),
        salt=item.salt,
        verify=lambda key, signature, message: signature == GOOD,
        make=make,
        uses_cas=uses_cas,
    ).advance(now=0.0)


def results(item: Item) -> dict[str, object]:
    return {
        "value": item.value,
        "key": item.key,
        "seq": item.seq,
        "signature": item.signature,
    }


def test_an_immutable_item_is_enough_once(host: Host) -> None:
    item = Item(b"2:hi")
    item_operation(host, item)
    host.answer(value=b"2:ho")  # not what was asked for
    assert host.events == []
    host.answer(value=b"2:hi")
    assert [type(event) for event in host.events] == [ItemFound, ItemLookupEnded]
    end = host.events[1]
    assert isinstance(end, ItemLookupEnded)
    assert (end.item, end.num_copies) == (item, 1)
    # What still comes is ignored.
    host.answer(value=b"2:hi")
    assert len(host.events) == 2


def mutable(seq: int, value: bytes = b"1:a", signature: bytes = GOOD) -> Item:
    return Item(value, KEY, b"salt", seq, signature)


def test_the_newest_mutable_item_wins(host: Host) -> None:
    item_operation(host, mutable(0), count=5)
    host.answer(**results(mutable(3)))
    host.answer(**results(mutable(9, signature=b"bad!" * 16)))
    host.answer(**results(mutable(5, b"1:b")))
    host.answer(**results(mutable(3)))
    host.answer(**results(mutable(5, b"1:b")))
    found = [event.item.seq for event in host.events if isinstance(event, ItemFound)]
    assert found == [3, 5]
    end = host.events[-1]
    assert isinstance(end, ItemLookupEnded)
    assert end.item == mutable(5, b"1:b")
    assert end.num_copies == 2


def test_an_item_without_signature_is_not_believed(host: Host) -> None:
    item_operation(host, mutable(0), count=1)
    host.answer(value=b"1:a", key=KEY)
    end = host.events[-1]
    assert isinstance(end, ItemLookupEnded)
    assert end.item is None


def test_a_put_gets_what_is_there_and_writes_what_is_made(host: Host) -> None:
    seen: list[Item | None] = []

    def make(newest: Item | None) -> Item:
        seen.append(newest)
        return mutable(8, b"1:c")

    item_operation(host, mutable(0), make=make, uses_cas=True)
    host.answer(token=b"one", **results(mutable(7)))
    host.answer(token=b"two")
    host.answer()
    assert seen == [mutable(7)]
    first = host.answer()
    assert first == Put(
        token=b"one", value=b"1:c", key=KEY, signature=GOOD, seq=8, salt=b"salt", cas=7
    )
    # BEP 44: no cas for a node that had nothing.
    _, second, _ = host.asked[0]
    assert second == Put(token=b"two", value=b"1:c", key=KEY, signature=GOOD, seq=8, salt=b"salt")
    host.fail(KrpcFailure(301, "cas"))
    end = host.events[-1]
    assert isinstance(end, ItemLookupEnded)
    assert (end.item, end.num_stored) == (mutable(8, b"1:c"), 1)
    assert [refusal.code for refusal in end.refusals] == [301]


def test_a_node_under_another_id_than_it_was_named_by_has_its_cas(host: Host) -> None:
    item_operation(
        host, mutable(0), make=lambda _: mutable(8, b"1:c"), uses_cas=True, count=1, named=9
    )
    host.answer(token=b"one", **results(mutable(7)))
    ((_, put, _),) = host.asked
    assert isinstance(put, Put)
    assert put.cas == 7


def test_an_immutable_put_carries_nothing_but_the_value(host: Host) -> None:
    item = Item(b"2:hi")
    item_operation(host, item, make=lambda newest: item, count=1)
    host.answer(token=b"one", value=b"2:hi")
    assert host.answer() == Put(token=b"one", value=b"2:hi")
    host_end = host.events[-1]
    assert isinstance(host_end, ItemLookupEnded)
    assert host_end.num_stored == 1


def test_a_put_may_decide_to_write_nothing(host: Host) -> None:
    item_operation(host, mutable(0), make=lambda newest: None, count=1)
    host.answer(token=b"one", **results(mutable(7)))
    end = host.events[-1]
    assert isinstance(end, ItemLookupEnded)
    assert (end.item, end.num_stored) == (mutable(7), 0)


def test_silence_is_no_refusal(host: Host) -> None:
    item_operation(host, Item(b"2:hi"), make=lambda newest: Item(b"2:hi"), count=1)
    host.answer(token=b"one")
    host.fail(QueryTimeout())
    end = host.events[-1]
    assert isinstance(end, ItemLookupEnded)
    assert (end.num_stored, end.refusals) == (0, ())
