"""Whose turn it is (Limit: N2)."""

from __future__ import annotations

import random

import pytest

from bittern.codec.krpc import decode
from bittern.codec.krpc_message import FindNode, Query, Want
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.dht import agenda as agenda_module
from bittern.dht.agenda import Agenda
from bittern.dht.events import NodesFound
from bittern.dht.limits import BUCKET_SIZE, FRESH_LIFETIME, MAX_LOOKUPS, QUERY_TIMEOUT
from bittern.dht.lookup import Lookup
from bittern.dht.operations import Operation
from tests.dht.bench import ASKER_ID, NOW, OWN, TARGET, Bench


class Desk:
    """An agenda over a real exchange with one node in its table, which never answers."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.table.note_answer(ASKER_ID, Endpoint("8.8.8.8", 1), now=NOW)
        self.agenda = Agenda(bench.exchange, bench.table)

    def operation(self, number: int) -> Operation:
        return Operation(self.agenda, number, Lookup(TARGET, OWN), FindNode(TARGET))

    def ended(self) -> list[int]:
        events = self.agenda.take_events()
        return [event.request_id for event in events if isinstance(event, NodesFound)]

    def num_sent(self) -> int:
        return len(self.bench.exchange.datagrams_to_send())


@pytest.fixture
def desk(rng: random.Random) -> Desk:
    return Desk(Bench(rng))


def test_everything_waits_for_the_bootstrap(desk: Desk) -> None:
    desk.agenda.start(desk.operation(1), now=NOW)
    assert desk.num_sent() == 0
    desk.agenda.is_ready = True
    desk.agenda.advance(now=NOW)
    assert desk.num_sent() == 1
    assert len(desk.agenda) == 1


def test_a_few_run_and_the_rest_waits_its_turn(desk: Desk) -> None:
    desk.agenda.is_ready = True
    for number in range(MAX_LOOKUPS + 5):
        desk.agenda.start(desk.operation(number), now=NOW)
    assert desk.num_sent() == MAX_LOOKUPS
    desk.bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    ended = [
        event.request_id for event in desk.agenda.take_events() if isinstance(event, NodesFound)
    ]
    assert sorted(ended)[:MAX_LOOKUPS] == list(range(MAX_LOOKUPS))


def test_cancelling_lets_the_next_one_begin(desk: Desk) -> None:
    desk.agenda.is_ready = True
    for number in range(MAX_LOOKUPS + 2):
        desk.agenda.start(desk.operation(number), now=NOW)
    desk.num_sent()
    desk.agenda.cancel(MAX_LOOKUPS, now=NOW)  # waits
    assert desk.num_sent() == 0
    desk.agenda.cancel(0, now=NOW)  # runs
    assert desk.num_sent() == 1
    desk.agenda.cancel(999, now=NOW)
    desk.bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    ended = {
        event.request_id for event in desk.agenda.take_events() if isinstance(event, NodesFound)
    }
    assert ended == {*range(1, MAX_LOOKUPS), MAX_LOOKUPS + 1}
    assert len(desk.agenda) == 0


def test_the_queue_has_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agenda_module, "MAX_QUEUED_LOOKUPS", 3)
    for number in range(3):
        desk.agenda.start(desk.operation(number), now=NOW)
    with pytest.raises(MisuseError, match="waiting"):
        desk.agenda.start(desk.operation(3), now=NOW)


def test_refreshes_do_not_wait(desk: Desk) -> None:
    ends: list[float] = []
    desk.agenda.wants_both = True
    desk.agenda.refresh(TARGET, [(b"", Endpoint("9.9.9.9", 1))], ends.append, now=NOW)
    sent = desk.bench.exchange.datagrams_to_send()
    assert {target.host for _, target in sent} == {"8.8.8.8", "9.9.9.9"}
    message = decode(sent[0][0])
    assert isinstance(message, Query)
    assert message.arguments == FindNode(TARGET, Want.V4 | Want.V6)
    desk.bench.exchange.expire(now=NOW + QUERY_TIMEOUT)
    assert ends == [NOW + QUERY_TIMEOUT]
    assert desk.agenda.take_events() == []


def answered_lookup(count: int, *, lies: bool = False) -> Lookup:
    """Return a lookup that so many nodes of a small network have answered."""
    lookup = Lookup(TARGET, OWN)
    place = int.from_bytes(TARGET, "big")
    for number in range(count):
        node_id = (place ^ (number + 1 << 150)).to_bytes(20, "big")
        lookup.add_start(node_id, bytes([9, 9, number, 1, 0, 80]))
    made_up = b"".join(TARGET[:19] + bytes([n, 6, 6, n, 6, 0, 80]) for n in range(1, 9))
    while (candidate := lookup.next_query()) is not None:
        if candidate.node_id[:19] == TARGET[:19]:
            lookup.failed(candidate)
        else:
            names = made_up if lies and candidate.compact[2] == 0 else b""
            lookup.answered(candidate, candidate.node_id, names, None)
    return lookup


def test_a_lookup_tells_how_large_the_network_is(desk: Desk) -> None:
    assert desk.agenda.estimate_nodes() == 1
    lookup = answered_lookup(BUCKET_SIZE)
    desk.agenda.operation_ended(Operation(desk.agenda, 1, lookup, FindNode(TARGET)), now=NOW)
    assert desk.agenda.estimate_nodes() == lookup.estimate_nodes() > 500
    few = Operation(desk.agenda, 1, answered_lookup(3), FindNode(TARGET))
    desk.agenda.operation_ended(few, now=NOW)
    assert desk.agenda.estimate_nodes() == lookup.estimate_nodes()


def test_a_lookup_tells_who_lies(desk: Desk) -> None:
    lookup = answered_lookup(BUCKET_SIZE, lies=True)
    (liar,) = lookup.liars()
    desk.agenda.operation_ended(Operation(desk.agenda, 1, lookup, FindNode(TARGET)), now=NOW)
    assert list(desk.bench.table.vetting.suspects) == [liar.compact]
    # The next one does without it.
    assert desk.agenda.new_lookup(TARGET)._suspects is desk.bench.table.vetting.suspects


def test_a_lookup_counts_as_a_refresh_of_what_it_covered(desk: Desk, rng: random.Random) -> None:
    few = Operation(desk.agenda, 1, answered_lookup(3), FindNode(TARGET))
    desk.agenda.operation_ended(few, now=NOW + 100)
    assert desk.bench.table.stale_target(rng, now=NOW + FRESH_LIFETIME + 1) is None
