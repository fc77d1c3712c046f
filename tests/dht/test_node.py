"""Two and more nodes joined in memory, over links that lose, repeat and reorder."""

from __future__ import annotations

import random

import pytest

from bittern.codec.bencode import decode as decode_value
from bittern.codec.bencode import encode as encode_value
from bittern.codec.krpc_encoding import encode, encode_query
from bittern.codec.krpc_message import Ping, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError, QueryTimeout
from bittern.core.ids import InfoHash
from bittern.dht.address import pack_endpoint, pack_host
from bittern.dht.events import (
    AddressLearned,
    Bootstrapped,
    DhtEvent,
    ItemFound,
    ItemLookupEnded,
    NodesFound,
    OtherFamilyHeard,
    PeersFound,
    PeersLookupEnded,
    Ponged,
    QueryFailed,
    Sampled,
)
from bittern.dht.items import Item
from bittern.dht.limits import (
    ITEM_LIFETIME,
    MAX_STRANGER_FACTOR,
    MIN_TABLE_NODES,
    PEER_LIFETIME,
    UPKEEP_INTERVAL,
    DhtConfig,
)
from bittern.dht.node import DhtNode
from bittern.dht.security import is_verified, make_node_id
from tests.codec.fuzzing import mutate
from tests.sim.dht_world import World

HASH = InfoHash(b"h" * 20)


MAX_TRIES = 10
"""How often a client asks again in ten minutes."""


class Party:
    """A few nodes in one world, the first of which all others know."""

    def __init__(self, seed: int, count: int, *, loss: float = 0.0, is_ipv6: bool = False) -> None:
        self.world = World(seed, loss=loss)
        self.endpoints: list[Endpoint] = []
        self.nodes: list[DhtNode] = []
        for number in range(count):
            where = Endpoint(f"2a00:{number + 1:x}::1", 6881) if is_ipv6 else None
            endpoint, node = self.world.add_node(where, knows=tuple(self.endpoints[:1]))
            self.endpoints.append(endpoint)
            self.nodes.append(node)
            self.world.run(1.0)
        self.world.run(10.0)
        for node in self.nodes:
            node.events()

    def events(self, index: int, seconds: float = 20.0) -> list[DhtEvent]:
        """Send what node ``index`` was just told to, let time pass, return what it says."""
        self.world.settle(self.endpoints[index])
        self.world.run(seconds)
        return self.nodes[index].events()

    @property
    def now(self) -> float:
        return self.world.now


def only(events: list[DhtEvent], kind: type) -> list[object]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("is_ipv6", [False, True])
def test_two_nodes_find_each_other(seed: int, is_ipv6: bool) -> None:
    party = Party(seed, 2, is_ipv6=is_ipv6)
    one, two = party.nodes
    assert one.table.get(party.endpoints[1]) is not None
    assert two.table.get(party.endpoints[0]) is not None
    assert one.status.is_ready
    assert (one.status.num_nodes, one.status.num_nodes_estimate) == (1, 1)


@pytest.mark.parametrize("is_ipv6", [False, True])
def test_an_announced_peer_is_found(seed: int, is_ipv6: bool) -> None:
    party = Party(seed, 3, is_ipv6=is_ipv6)
    party.nodes[1].announce(HASH, 7000, now=party.now)
    ((end),) = only(party.events(1), PeersLookupEnded)
    assert isinstance(end, PeersLookupEnded)
    assert (end.num_stored, end.num_peers) == (2, 0)
    request_id = party.nodes[2].get_peers(HASH, now=party.now)
    events = party.events(2)
    (found,) = only(events, PeersFound)
    assert isinstance(found, PeersFound)
    assert found.request_id == request_id
    assert found.peers == (Endpoint(party.endpoints[1].host, 7000),)


def test_an_implied_port_is_that_of_the_datagram(seed: int) -> None:
    party = Party(seed, 2)
    party.nodes[1].announce(HASH, None, now=party.now, is_seed=True, scrape=True)
    party.events(1)
    party.nodes[1].get_peers(HASH, now=party.now, scrape=True)
    events = party.events(1)
    (found,) = only(events, PeersFound)
    assert isinstance(found, PeersFound)
    assert found.peers == (party.endpoints[1],)
    (end,) = only(events, PeersLookupEnded)
    assert isinstance(end, PeersLookupEnded)
    # BEP 33: the first node knows one seed and nobody else.
    assert end.num_seeds_estimate == pytest.approx(1, abs=0.1)
    assert end.num_leechers_estimate == pytest.approx(0, abs=0.1)


def test_who_was_away_looks_itself_up_again(seed: int) -> None:
    party = Party(seed, 12)
    party.events(3)
    num_asked = party.nodes[3].counters.num_asked
    party.nodes[3].refresh(now=party.now)
    party.events(3, seconds=5.0)
    assert party.nodes[3].counters.num_asked >= num_asked + 4


def test_announced_peers_expire(seed: int) -> None:
    party = Party(seed, 2)
    party.nodes[1].announce(HASH, 7000, now=party.now)
    party.events(1)
    assert party.nodes[0].status.num_peers == 1
    party.world.run(PEER_LIFETIME + 120)
    assert party.nodes[0].status.num_peers == 0


def test_items_expire_that_nobody_stores_anew(seed: int) -> None:
    party = Party(seed, 2)
    item = Item(b"5:hello")
    party.nodes[1].put_item(item.target, lambda newest: item, now=party.now)
    party.events(1)
    assert party.nodes[0].status.num_items == 1
    party.world.run(ITEM_LIFETIME + 120)
    assert party.nodes[0].status.num_items == 0


def test_items_go_round(seed: int) -> None:
    party = Party(seed, 4)
    item = Item(b"5:hello")
    party.nodes[1].put_item(item.target, lambda newest: item, now=party.now)
    (end,) = only(party.events(1), ItemLookupEnded)
    assert isinstance(end, ItemLookupEnded)
    assert end.num_stored == 3
    party.nodes[2].get_item(item.target, now=party.now)
    events = party.events(2)
    (found,) = only(events, ItemFound)
    (end,) = only(events, ItemLookupEnded)
    assert isinstance(found, ItemFound)
    assert isinstance(end, ItemLookupEnded)
    assert found.item == end.item == item
    assert party.nodes[0].status.num_items == 1


def test_a_long_item_comes_after_a_proof(seed: int) -> None:
    """Limit: N1. Over two round trips, without the asker's doing."""
    party = Party(seed, 3)
    item = Item(b"900:" + b"x" * 900)
    party.nodes[1].put_item(item.target, lambda newest: item, now=party.now)
    party.events(1)
    endpoint, stranger = party.world.add_node(knows=(party.endpoints[0],))
    stranger.get_item(item.target, now=party.now)
    party.world.settle(endpoint)
    party.world.run(20.0)
    (end,) = only(stranger.events(), ItemLookupEnded)
    assert isinstance(end, ItemLookupEnded)
    assert end.item == item


def test_ping_and_sample(seed: int) -> None:
    party = Party(seed, 3)
    party.nodes[1].announce(HASH, 7000, now=party.now)
    party.events(1)
    ping = party.nodes[2].ping(party.endpoints[0], now=party.now)
    sample = party.nodes[2].sample(party.endpoints[0], HASH, now=party.now)
    nobody = party.nodes[2].ping(Endpoint("9.9.9.9", 9), now=party.now)
    events = party.events(2)
    (ponged,) = only(events, Ponged)
    assert isinstance(ponged, Ponged)
    assert (ponged.request_id, ponged.version) == (ping, b"bt01")
    assert ponged.node.node_id == party.nodes[0].table.own_id
    assert 0.02 <= ponged.round_trip <= 0.3
    (sampled,) = only(events, Sampled)
    assert isinstance(sampled, Sampled)
    assert (sampled.request_id, sampled.samples, sampled.num) == (sample, (HASH,), 1)
    (failed,) = only(events, QueryFailed)
    assert isinstance(failed, QueryFailed)
    assert failed.request_id == nobody
    assert isinstance(failed.error, QueryTimeout)


def test_a_lookup_may_be_cancelled(seed: int) -> None:
    party = Party(seed, 3)
    request_id = party.nodes[1].find_nodes(HASH, now=party.now)
    party.nodes[1].cancel(request_id, now=party.now)
    assert only(party.events(1), NodesFound) == []


def test_requests_wait_for_the_bootstrap(seed: int) -> None:
    party = Party(seed, 20)
    party.nodes[1].announce(HASH, 7000, now=party.now)
    party.events(1)
    endpoint, newcomer = party.world.add_node(knows=(party.endpoints[0],))
    newcomer.get_peers(HASH, now=party.now)
    party.world.settle(endpoint)
    party.world.run(20.0)
    events = newcomer.events()
    assert len(only(events, PeersFound)) == 1
    assert isinstance(next(iter(events)), Bootstrapped)


def test_targets_and_ports_are_checked(seed: int) -> None:
    party = Party(seed, 1)
    with pytest.raises(MisuseError, match="20 bytes"):
        party.nodes[0].find_nodes(b"short", now=party.now)
    with pytest.raises(MisuseError, match="20 bytes"):
        party.nodes[0].get_item(b"short", now=party.now)
    for port in (0, 65536, -1):
        with pytest.raises(MisuseError, match="port"):
            party.nodes[0].announce(HASH, port, now=party.now)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_a_lossy_link_delays_but_does_not_stop(seed: int, loss: float) -> None:
    """One try may fail where every second answer is lost; a few tries do not."""
    party = Party(seed, 30, loss=loss)
    party.world.run(60.0)
    num_stored = 0
    for _ in range(MAX_TRIES):
        party.nodes[1].announce(HASH, 7000, now=party.now)
        (end,) = only(party.events(1, 60.0), PeersLookupEnded)
        assert isinstance(end, PeersLookupEnded)
        num_stored = max(num_stored, end.num_stored)
        if num_stored >= 2:
            break
    assert num_stored >= 2
    found: list[object] = []
    for _ in range(MAX_TRIES):
        party.nodes[2].get_peers(HASH, now=party.now)
        found = only(party.events(2, 60.0), PeersFound)
        if found:
            break
    assert found


def test_repeated_and_reordered_datagrams_do_no_harm(seed: int) -> None:
    """Every datagram comes twice, and each link has a delay of its own each time."""
    party = Party(seed, 8)
    send = party.world.send

    def twice(data: bytes, source: Endpoint, target: Endpoint) -> None:
        send(data, source, target)
        send(data, source, target)

    party.world.send = twice  # type: ignore[method-assign]
    party.nodes[1].announce(HASH, 7000, now=party.now)
    (end,) = only(party.events(1), PeersLookupEnded)
    assert isinstance(end, PeersLookupEnded)
    assert end.num_stored >= 5
    party.nodes[2].get_peers(HASH, now=party.now)
    (found,) = only(party.events(2), PeersFound)
    assert isinstance(found, PeersFound)
    assert len(found.peers) == 1


def test_state_carries_id_and_nodes_over(seed: int) -> None:
    party = Party(seed, 20)
    state = decode_value(encode_value(party.nodes[3].save()))
    party.world.remove(party.endpoints[3])
    again = DhtNode(
        random_bytes=party.world.rng.randbytes,
        rng=random.Random(1),
        verify=lambda key, signature, message: True,
        now=party.now,
        state=state,
    )
    assert again.table.own_id == party.nodes[3].table.own_id
    assert again.status.host == party.endpoints[3].host
    party.world.add(again, party.endpoints[3])
    party.world.run(10.0)
    assert len(again.table) >= MIN_TABLE_NODES


@pytest.mark.slow
def test_a_new_address_brings_a_new_id(seed: int) -> None:
    """BEP 42: restart with an id that fits, once enough nodes agree."""
    party = Party(seed, 30)
    party.world.run(60.0)
    endpoint = party.endpoints[5]
    node = party.nodes[5]
    old_id = node.table.own_id
    party.world.remove(endpoint)
    moved = party.world.draw_endpoint()
    party.world.add(node, moved)
    for _ in range(8):
        node.find_nodes(party.world.rng.randbytes(20), now=party.now)
        party.world.settle(moved)
        party.world.run(30.0)
    (learned,) = only(node.events(), AddressLearned)
    assert isinstance(learned, AddressLearned)
    assert learned.host == moved.host
    assert learned.node_id == node.table.own_id != old_id
    assert is_verified(node.table.own_id, pack_host(moved.host))
    assert node.status.host == moved.host
    assert len(node.table) >= MIN_TABLE_NODES
    # And it still answers, under its new id.
    request_id = party.nodes[0].ping(moved, now=party.now)
    ponged = [event for event in party.events(0) if isinstance(event, Ponged)]
    assert [(event.request_id, event.node.node_id) for event in ponged] == [
        (request_id, learned.node_id)
    ]


def test_local_or_foreign_addresses_are_no_votes(seed: int) -> None:
    party = Party(seed, 1)
    node = party.nodes[0]
    before = node.status
    for number in range(40):
        for host in ("192.168.1.1", "0.0.0.0", "2a00::1"):
            external = pack_endpoint(Endpoint(host, 1))
            node.address_told(Endpoint(f"20.{number}.1.1", 1), external, now=party.now)
    assert node.status.host == before.host
    assert node.table.own_id == before.node_id


def test_the_id_stays_when_it_fits_the_address(seed: int) -> None:
    """A saved node that learns its own address again only says so."""
    world = World(seed)
    node = DhtNode(
        random_bytes=world.rng.randbytes,
        rng=world.rng,
        verify=lambda key, signature, message: True,
        now=0.0,
    )
    external = pack_endpoint(Endpoint("8.8.8.8", 1))
    for number in range(10):
        node.address_told(Endpoint(f"20.{number}.1.1", 1), external, now=0.0)
    own_id = node.table.own_id
    assert is_verified(own_id, external[:4])
    for number in range(40):
        node.address_told(Endpoint(f"20.{number}.1.1", 1), external, now=0.0)
    assert node.table.own_id == own_id
    assert len(only(node.events(), AddressLearned)) == 1


def test_a_saved_id_stays_when_it_fits_the_address(seed: int) -> None:
    """BEP 42. Our address was not known, and the id turns out to be right for it."""
    world, packed = World(seed), pack_host("8.8.8.8")
    own_id = make_node_id(world.rng.randbytes, packed)
    node = DhtNode(
        random_bytes=world.rng.randbytes,
        rng=world.rng,
        verify=lambda key, signature, message: True,
        now=0.0,
        state={b"id": bytes(own_id)},
    )
    assert node.table.own_id == own_id
    external = pack_endpoint(Endpoint("8.8.8.8", 1))
    for number in range(10):
        node.address_told(Endpoint(f"20.{number}.1.1", 1), external, now=0.0)
    assert only(node.events(), AddressLearned) == [AddressLearned("8.8.8.8", own_id)]
    assert node.table.own_id == own_id


def make_pair(world: World) -> tuple[DhtNode, DhtNode]:
    _, four = world.add_node(Endpoint("8.8.8.8", 6881))
    _, six = world.add_node(Endpoint("2a00::8", 6881))
    four.pair(six)
    return four, six


def test_a_pair_helps_each_other_into_the_network(seed: int) -> None:
    """BEP 32: who asks for both at bootstrap hears of the other family's nodes."""
    world = World(seed)
    _four, _six = make_pair(world)
    pairs = [(Endpoint("8.8.8.8", 6881), Endpoint("2a00::8", 6881))]
    for number in range(1, 5):
        where = (Endpoint(f"8.8.{number}.8", 1), Endpoint(f"2a00:0:0:{number}::8", 1))
        _, other_four = world.add_node(where[0], knows=(pairs[0][0],))
        _, other_six = world.add_node(where[1], knows=(pairs[0][1],))
        other_four.pair(other_six)
        world.run(5.0)
        pairs.append(where)
    _late4, node4 = world.add_node(Endpoint("8.9.9.8", 1), knows=(pairs[0][0],))
    node6 = DhtNode(
        random_bytes=world.rng.randbytes, rng=world.rng, is_ipv6=True, now=world.now,
        verify=lambda key, signature, message: True,
    )  # fmt: skip
    node4.pair(node6)
    world.run(10.0)
    heard = [each for each in node4.events() if isinstance(each, OtherFamilyHeard)]
    assert {endpoint for each in heard for endpoint in each.nodes} <= {pair[1] for pair in pairs}
    assert heard


def test_only_different_families_pair(seed: int) -> None:
    party = Party(seed, 2)
    with pytest.raises(MisuseError):
        party.nodes[0].pair(party.nodes[1])


def test_time_is_asked_for_exactly(seed: int) -> None:
    """``next_timer`` names the next instant at which there is something to do."""
    party = Party(seed, 2)
    node = party.nodes[0]
    assert party.now <= node.next_timer() <= party.now + UPKEEP_INTERVAL
    node.ping(Endpoint("9.9.9.9", 9), now=party.now)
    seen = []
    for _ in range(30):
        at = node.next_timer()
        node.handle_timer(now=at)
        seen.append(at)
        assert node.next_timer() > at
        if any(isinstance(event, QueryFailed) for event in node.events()):
            break
    assert seen[-1] == party.now + 4.0


def test_counters_and_repr(seed: int) -> None:
    party = Party(seed, 2)
    counters = party.nodes[0].counters
    assert counters.num_received > 0
    assert counters.num_answered > 0
    assert counters.sent_length > 60 * counters.num_sent
    assert "1 nodes" in repr(party.nodes[0])


def test_a_node_that_asks_is_pinged_before_it_is_taken_in(seed: int) -> None:
    """BEP 5: only nodes that answered are good."""
    party = Party(seed, 12)
    node = party.nodes[0]
    forged = Endpoint("77.7.7.7", 7)
    for number in range(50):
        data = encode_query(b"aa", number.to_bytes(20, "big"), Ping())
        node.receive_datagram(data, Endpoint("77.7.7.7", 7), now=party.now)
    party.world.settle(party.endpoints[0])
    party.world.run(60.0)
    assert node.table.get(forged) is None


def test_fuzzed_datagrams_are_survived(seed: int, rng: random.Random) -> None:
    """Limit: N4. Mutants of everything that nodes say to each other, in both directions."""
    party = Party(seed, 6)
    corpus: list[bytes] = []
    send = party.world.send

    def keep(data: bytes, source: Endpoint, target: Endpoint) -> None:
        corpus.append(data)
        send(data, source, target)

    party.world.send = keep  # type: ignore[method-assign]
    node = party.nodes[1]
    node.announce(HASH, 7000, now=party.now, scrape=True)
    item = Item(b"5:hello", b"k" * 32, b"s", 3, b"g" * 64)
    node.put_item(item.target, lambda newest: item, salt=b"s", now=party.now)
    node.sample(party.endpoints[0], HASH, now=party.now)
    party.events(1)
    corpus.append(encode(Response(transaction_id=b"aaaa", node_id=b"i" * 20, nodes=b"x" * 208)))
    victim = party.nodes[0]
    source = Endpoint("77.7.7.7", 7)
    for step in range(2000):
        # Answers that match: the victim asks, and gets a mutant under the right id.
        now = party.now + step * 0.3
        victim.ping(source, now=now)
        sent = victim.datagrams_to_send()
        data = mutate(rng.choice(corpus), rng)
        if step % 2 and sent:
            transaction_id = sent[-1][0].partition(b"1:t4:")[2][:4]
            at = data.find(b"1:t4:")
            if at >= 0:
                data = data[: at + 5] + transaction_id + data[at + 9 :]
        victim.receive_datagram(data, source, now=now)
        for answer, _ in victim.datagrams_to_send():
            assert len(answer) <= max(MAX_STRANGER_FACTOR * len(data), 1400)
        victim.handle_timer(now=now)
        victim.datagrams_to_send()
        victim.events()
    assert victim.counters.num_malformed > 100
    assert victim.status.num_nodes <= 20


def test_a_read_only_node_uses_the_network_without_serving_it(seed: int) -> None:
    """BEP 43."""
    party = Party(seed, 10)
    party.nodes[1].announce(HASH, 7000, now=party.now)
    party.events(1)
    endpoint, node = party.world.add_node(
        knows=(party.endpoints[0],), config=DhtConfig(is_read_only=True)
    )
    node.get_peers(HASH, now=party.now)
    party.world.settle(endpoint)
    party.world.run(30.0)
    assert only(node.events(), PeersFound)
    assert all(other.table.get(endpoint) is None for other in party.nodes)
