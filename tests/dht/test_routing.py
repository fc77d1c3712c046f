"""The routing table (BEP 5, 42, 45; Limit: N2)."""

from __future__ import annotations

import random

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.ids import NodeId
from bittern.dht.address import Reach, format_packed, reach_of
from bittern.dht.limits import (
    BUCKET_SIZE,
    FILL_SIZE,
    FRESH_LIFETIME,
    MAX_FAILURES,
    MAX_PER_NETWORK_IN_TABLE,
    MAX_TRUST,
    SUSPICION_LIFETIME,
)
from bittern.dht.routing import Node, RoutingTable
from bittern.dht.security import make_node_id

OWN = NodeId(bytes(20))


def endpoint(number: int) -> Endpoint:
    """Return an address in a /24 of its own."""
    return Endpoint(f"{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1", 1000)


def near(shared_bits: int, number: int) -> bytes:
    """Return an id that shares so many leading bits with OWN."""
    return ((1 << (159 - shared_bits)) + number).to_bytes(20, "big")


@pytest.fixture
def table() -> RoutingTable:
    return RoutingTable(OWN, is_ipv6=False, now=0.0)


def fill(table: RoutingTable, rng: random.Random, count: int, *, now: float = 0.0) -> list[Node]:
    for number in range(count):
        table.note_answer(rng.randbytes(20), endpoint(number), now=now)
    return list(table)


def test_who_answered_is_in(table: RoutingTable) -> None:
    table.note_answer(near(0, 1), endpoint(1), now=5.0)
    node = table.get(endpoint(1))
    assert node is not None
    assert node.node_id == near(0, 1)
    assert node.compact == near(0, 1) + endpoint(1).to_compact()
    assert node.stale_at == 5.0 + FRESH_LIFETIME
    assert "20.0.1.1" in repr(node)
    assert "1 nodes" in repr(table)


def test_we_are_not_in_our_own_table(table: RoutingTable) -> None:
    table.note_answer(OWN, endpoint(1), now=0.0)
    assert len(table) == 0
    assert not table.note_query(OWN, endpoint(1), now=0.0)


def test_the_closest_are_those_of_a_naive_sort(table: RoutingTable, rng: random.Random) -> None:
    nodes = fill(table, rng, 2000)
    deep = [near(bits, number) for bits in range(5, 30) for number in range(3)]
    for number, node_id in enumerate(deep):
        table.note_answer(node_id, endpoint(5000 + number), now=0.0)
    nodes = list(table)
    targets = [rng.getrandbits(160) for _ in range(50)]
    targets += [rng.getrandbits(160 - bits) for bits in range(1, 160, 3)] + [0, 1]
    for target in targets:
        for count in (1, 8, 30):
            expected = sorted(nodes, key=lambda node: node.number ^ target)[:count]
            assert table.closest(target, count) == expected
        compact = table.closest_compact(target.to_bytes(20, "big"), 208)
        best = sorted(nodes, key=lambda node: node.number ^ target)[:8]
        assert {compact[at : at + 26] for at in range(0, len(compact), 26)} == {
            node.compact for node in best
        }


@pytest.mark.parametrize("room", [-5, 0, 25, 26, 100, 207, 208, 1000])
def test_a_short_answer_names_fewer(table: RoutingTable, rng: random.Random, room: int) -> None:
    fill(table, rng, 500)
    compact = table.closest_compact(rng.randbytes(20), room)
    assert len(compact) == 26 * min(8, max(0, room // 26))


def test_ipv6_infos_are_longer(rng: random.Random) -> None:
    table = RoutingTable(OWN, is_ipv6=True, now=0.0)
    for number in range(300):
        table.note_answer(rng.randbytes(20), Endpoint(f"2a00:{number:x}::1", 1), now=0.0)
    assert len(table.closest_compact(rng.randbytes(20), 1000)) == 8 * 38
    assert len(table.closest_compact(rng.randbytes(20), 100)) == 2 * 38


def test_a_full_bucket_keeps_its_old_nodes(table: RoutingTable) -> None:
    for number in range(BUCKET_SIZE + 3):
        table.note_answer(near(0, number), endpoint(number), now=float(number))
    assert [node.number & 0xFF for node in table] == list(range(BUCKET_SIZE))


def test_near_our_own_id_there_is_more_room(table: RoutingTable) -> None:
    for bits in (5, 6, 7, 20, 159):
        for number in range(BUCKET_SIZE if bits < 159 else 1):
            table.note_answer(near(bits, number), endpoint(bits * 50 + number), now=0.0)
    assert len(table) == 4 * BUCKET_SIZE + 1


def test_a_failing_node_is_not_named_and_goes_the_second_time(table: RoutingTable) -> None:
    """BEP 5: try once more before discarding a node."""
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    table.note_failure(endpoint(1))
    assert len(table) == 1
    assert table.num_good() == 0
    assert table.closest(0) == []
    assert table.closest_compact(near(0, 1), 208) == b""
    table.note_answer(near(0, 1), endpoint(1), now=1.0)
    assert table.num_good() == 1
    assert table.closest_compact(near(0, 1), 208) != b""
    for _ in range(MAX_FAILURES):
        table.note_failure(endpoint(1))
    assert len(table) == 0
    table.note_failure(endpoint(1))


def test_nobody_goes_while_our_link_is_down(table: RoutingTable) -> None:
    """BEP 45: entries should not be penalised for timeouts on a link known to be down."""
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    for _ in range(10):
        table.note_failure(endpoint(1), may_remove=False)
    assert len(table) == 1


def test_a_spare_takes_the_place_of_who_goes(table: RoutingTable) -> None:
    for number in range(BUCKET_SIZE + 2):
        table.note_answer(near(0, number), endpoint(number), now=float(number))
    for _ in range(MAX_FAILURES):
        table.note_failure(endpoint(3))
    assert len(table) == BUCKET_SIZE
    assert table.get(endpoint(3)) is None
    # The one that answered last.
    assert table.get(endpoint(BUCKET_SIZE + 1)) is not None


def test_a_newcomer_replaces_a_failing_node(table: RoutingTable) -> None:
    for number in range(BUCKET_SIZE):
        table.note_answer(near(0, number), endpoint(number), now=0.0)
    table.note_failure(endpoint(2))
    table.note_answer(near(0, 99), endpoint(99), now=1.0)
    assert table.get(endpoint(2)) is None
    assert table.get(endpoint(99)) is not None


def verified_nodes(rng: random.Random, count: int) -> list[tuple[bytes, Endpoint]]:
    """Return nodes in different networks that all belong into one bucket."""
    found: list[tuple[bytes, Endpoint]] = []
    while len(found) < count:
        packed = rng.randbytes(4)
        node_id = make_node_id(rng.randbytes, packed)
        if reach_of(packed) is Reach.PUBLIC and node_id[0] >> 3 == 0x10:
            found.append((node_id, Endpoint(format_packed(packed), 1)))
    return found


def test_a_verified_node_displaces_one_that_is_not(table: RoutingTable, rng: random.Random) -> None:
    """BEP 42; Limit: N2: prefer verified."""
    for number in range(BUCKET_SIZE):
        table.note_answer(near(0, number), endpoint(number), now=0.0)
    assert not any(node.is_verified for node in table)
    newcomers = verified_nodes(rng, BUCKET_SIZE + 1)
    for node_id, where in newcomers:
        table.note_answer(node_id, where, now=1.0)
    assert [node.is_verified for node in table] == [True] * BUCKET_SIZE
    assert table.get(newcomers[-1][1]) is None
    # Who was displaced waits; a verified spare is preferred.
    for _ in range(MAX_FAILURES):
        table.note_failure(newcomers[0][1])
    assert table.get(newcomers[-1][1]) is not None


def test_one_network_has_one_place_in_a_bucket(table: RoutingTable) -> None:
    """Limit: N2."""
    for number in range(20):
        table.note_answer(near(0, number), Endpoint(f"20.1.1.{number + 1}", 1), now=0.0)
    assert len(table) == 1
    table.note_failure(Endpoint("20.1.1.1", 1))
    table.note_answer(near(0, 30), Endpoint("20.1.1.30", 1), now=0.0)
    assert [node.endpoint.host for node in table] == ["20.1.1.30"]


def test_one_network_has_few_places_in_the_table(table: RoutingTable, rng: random.Random) -> None:
    """Limit: N2. A whole /24 of nodes with ids everywhere."""
    for number in range(2000):
        host = f"20.1.1.{number % 254 + 1}"
        table.note_answer(rng.randbytes(20), Endpoint(host, 1000 + number), now=0.0)
    assert len(table) == MAX_PER_NETWORK_IN_TABLE


def test_local_addresses_share_nothing(table: RoutingTable) -> None:
    for number in range(BUCKET_SIZE):
        table.note_answer(near(0, number), Endpoint("127.0.0.1", 1000 + number), now=0.0)
    assert len(table) == BUCKET_SIZE


def test_an_id_is_taken_once(table: RoutingTable) -> None:
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    table.note_answer(near(0, 1), endpoint(2), now=0.0)
    assert [node.endpoint for node in table] == [endpoint(1)]
    table.note_failure(endpoint(1))
    table.note_answer(near(0, 1), endpoint(2), now=0.0)
    assert [node.endpoint for node in table] == [endpoint(2)]


def test_an_address_with_another_id_loses_the_old_one(table: RoutingTable) -> None:
    """BEP 45."""
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    table.note_answer(near(1, 1), endpoint(1), now=1.0)
    assert [node.node_id for node in table] == [near(1, 1)]


def test_queries_are_heard_but_take_nobody_in(table: RoutingTable) -> None:
    assert table.note_query(near(0, 1), endpoint(1), now=0.0)
    assert table.note_query(near(9, 1), endpoint(1), now=0.0)
    assert len(table) == 0
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    assert not table.note_query(near(0, 1), endpoint(1), now=FRESH_LIFETIME)
    node = table.get(endpoint(1))
    assert node is not None
    assert node.stale_at == 2 * FRESH_LIFETIME
    # A forged id changes nothing.
    assert not table.note_query(near(3, 1), endpoint(1), now=2 * FRESH_LIFETIME)
    assert node.stale_at == 2 * FRESH_LIFETIME


def test_no_ping_is_wanted_for_a_full_bucket(table: RoutingTable) -> None:
    for number in range(BUCKET_SIZE):
        table.note_answer(near(0, number), endpoint(number), now=0.0)
        table.note_answer(near(7, number), endpoint(100 + number), now=0.0)
    assert not table.note_query(near(0, 99), endpoint(99), now=0.0)
    assert not table.note_query(near(7, 99), endpoint(99), now=0.0)
    assert table.note_query(near(8, 99), endpoint(99), now=0.0)


def test_queries_alone_do_not_keep_a_node_for_ever(table: RoutingTable) -> None:
    table.note_answer(near(0, 1), endpoint(1), now=0.0)
    table.note_query(near(0, 1), endpoint(1), now=MAX_TRUST)
    node = table.get(endpoint(1))
    assert node is not None
    assert node.stale_at == MAX_TRUST


def test_the_stalest_is_one_that_failed_then_the_longest_silent(table: RoutingTable) -> None:
    assert table.stalest(now=0.0) is None
    for number in range(4):
        table.note_answer(near(number, 1), endpoint(number), now=float(number))
    assert table.stalest(now=100.0) is None
    stalest = table.stalest(now=FRESH_LIFETIME + 10)
    assert stalest is not None
    assert stalest.endpoint == endpoint(0)
    table.note_failure(endpoint(2))
    stalest = table.stalest(now=100.0)
    assert stalest is not None
    assert stalest.endpoint == endpoint(2)


def test_every_bucket_is_refreshed_in_its_turn(table: RoutingTable, rng: random.Random) -> None:
    """BEP 5: buckets without change for 15 minutes."""
    for bits in range(5, 12):
        table.note_answer(near(bits, 1), endpoint(bits), now=0.0)
    assert table.stale_target(rng, now=FRESH_LIFETIME - 1) is None
    targets = []
    while (target := table.stale_target(rng, now=FRESH_LIFETIME + 1)) is not None:
        targets.append(int.from_bytes(target, "big"))
    buckets = {id(table._bucket_of(target)) for target in targets}
    # 31 buckets at the top, those of the chain down to the deepest node and one more.
    assert len(targets) == len(buckets) == 31 + 8
    # A change counts as a refresh.
    table.note_answer(near(0, 1), endpoint(77), now=FRESH_LIFETIME + 5)
    late = table.stale_target(rng, now=2 * FRESH_LIFETIME + 3)
    assert late is not None
    assert table._bucket_of(int.from_bytes(late, "big")) is not table._bucket_of(
        int.from_bytes(near(0, 1), "big")
    )


def test_a_lookup_refreshes_every_bucket_that_it_covered(rng: random.Random) -> None:
    now = FRESH_LIFETIME + 1
    for target, shared_bits in ((near(0, 5), 3), (near(7, 5), 7), (near(7, 5), 20)):
        fresh = RoutingTable(OWN, is_ipv6=False, now=0.0)
        for bits in range(5, 12):
            fresh.note_answer(near(bits, 1), endpoint(bits), now=0.0)
        number = int.from_bytes(target, "big")
        # All that share so many bits with the target are known now.
        distance = (1 << 160 - shared_bits) - 1
        fresh.note_lookup(number, distance, now=now)
        stale = []
        while (found := fresh.stale_target(rng, now=now)) is not None:
            stale.append(int.from_bytes(found, "big"))
        assert all(each ^ number > distance for each in stale)
        # 31 at the top, eight of the chain; of the target's surroundings none.
        assert len(stale) == 39 - {3: 4, 7: 6, 20: 0}[shared_bits]


def test_a_lookup_of_everything_refreshes_all(table: RoutingTable, rng: random.Random) -> None:
    table.note_lookup(5, (1 << 160) - 1, now=500.0)
    assert table.stale_target(rng, now=FRESH_LIFETIME + 1) is None
    table.note_lookup(5, -1, now=900.0)
    assert table.stale_target(rng, now=FRESH_LIFETIME + 500) is not None


def test_every_newcomer_is_to_be_examined(table: RoutingTable, rng: random.Random) -> None:
    nodes = fill(table, rng, 4)
    table.note_failure(nodes[1].endpoint)
    table.note_failure(nodes[1].endpoint)
    table.move_to(NodeId(nodes[0].node_id), now=1.0)
    untested = [table.vetting.take_untested() for _ in range(3)]
    assert untested == [(node.node_id, node.endpoint) for node in nodes[2:]] + [None]


def test_only_half_of_a_far_bucket_is_searched_for(table: RoutingTable) -> None:
    for number in range(FILL_SIZE):
        assert table.has_place(near(0, 99), far_size=FILL_SIZE)
        table.note_answer(near(0, number), endpoint(number), now=0.0)
        table.note_answer(near(9, number), endpoint(100 + number), now=0.0)
    assert not table.has_place(near(0, 99), far_size=FILL_SIZE)
    assert table.has_place(near(0, 99))
    # Our neighbours we want to know all.
    assert table.has_place(near(9, 99), far_size=FILL_SIZE)


def test_a_liar_is_out_for_a_while(table: RoutingTable) -> None:
    """Limit: N2."""
    for number in range(BUCKET_SIZE + 1):
        table.note_answer(near(0, number), endpoint(number), now=0.0)
    table.drop_liar(endpoint(3), now=0.0)
    table.drop_liar(endpoint(300), now=0.0)  # somebody from elsewhere
    assert table.get(endpoint(3)) is None
    assert table.get(endpoint(BUCKET_SIZE)) is not None
    table.note_answer(near(9, 3), endpoint(3), now=2.0)
    assert table.get(endpoint(3)) is None
    table.vetting.forgive(now=SUSPICION_LIFETIME)
    table.note_answer(near(9, 3), endpoint(3), now=SUSPICION_LIFETIME)
    assert table.get(endpoint(3)) is not None


def test_moving_to_another_id_keeps_what_fits(table: RoutingTable, rng: random.Random) -> None:
    nodes = fill(table, rng, 1000)
    new_id = NodeId(nodes[0].node_id)
    table.move_to(new_id, now=1.0)
    assert table.own_id == new_id
    assert new_id not in {node.node_id for node in table}
    assert len(table) > 200
    target = int.from_bytes(new_id, "big")
    assert table.closest(target, 8) == sorted(table, key=lambda node: node.number ^ target)[:8]


@pytest.mark.parametrize("count", [3, 200, 5000])
def test_the_size_of_the_network_is_estimated(count: int, rng: random.Random) -> None:
    own = NodeId(rng.randbytes(20))
    table = RoutingTable(own, is_ipv6=False, now=0.0)
    for number in range(count):
        table.note_answer(rng.randbytes(20), endpoint(number), now=0.0)
    assert count / 5 <= table.estimate_nodes() <= count * 5


def test_the_invariants_hold_under_random_use(rng: random.Random) -> None:
    table = RoutingTable(OWN, is_ipv6=False, now=0.0)
    for step in range(3000):
        where = Endpoint(f"20.0.{rng.randrange(60)}.{rng.randrange(1, 4)}", rng.randrange(1, 3))
        node_id = near(rng.randrange(12), rng.randrange(30))
        match rng.randrange(4):
            case 0 | 1:
                table.note_answer(node_id, where, now=float(step))
            case 2:
                table.note_failure(where)
            case _:
                table.note_query(node_id, where, now=float(step))
        if step % 100 == 0:
            check_invariants(table)
        if step % 5 == 0:
            check_entries(table)


def check_invariants(table: RoutingTable) -> None:
    in_buckets = [node for bucket in (*table._top, *table._chain) for node in bucket.nodes]
    assert sorted(map(id, in_buckets)) == sorted(map(id, table))
    for bucket in (*table._top, *table._chain):
        assert len(bucket.nodes) <= BUCKET_SIZE
        assert len(bucket.spares) <= 8
        assert len({node.network for node in bucket.nodes}) == len(bucket.nodes)
        assert len({node.node_id for node in bucket.nodes}) == len(bucket.nodes)
        assert all(table._bucket_of(node.number) is bucket for node in bucket.nodes)
        good = b"".join(node.compact for node in bucket.nodes if not node.num_failures)
        assert bucket.good_compact() == good
    assert table.num_good() == sum(not node.num_failures for node in table)
    for now in (0.0, 1000.0, 5000.0):
        stale = [node for node in table if node.num_failures or node.stale_at <= now]
        stalest = table.stalest(now=now)
        assert (stalest is None) == (not stale)
        assert stalest is None or stalest in stale
    counts: dict[bytes, int] = {}
    for node in table:
        counts[node.network] = counts.get(node.network, 0) + 1
    assert dict(table._networks) == counts
    assert max(counts.values(), default=0) <= MAX_PER_NETWORK_IN_TABLE


def check_entries(table: RoutingTable) -> None:
    """What is named to others: never who has failed or gone, and always those of the bucket."""
    good = {node.compact for node in table if not node.num_failures}
    for top in range(1, 32):
        entry = table.usual_entry(bytes([top << 3]) + bytes(19))
        body = entry.removeprefix(b"5:nodes").partition(b":")[2]
        named = {body[at : at + 26] for at in range(0, len(body), 26)}
        assert named <= good
        assert len(named) == min(BUCKET_SIZE, len(good))
        assert {compact for compact in good if compact[0] >> 3 == top} <= named


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("num_nodes", [0, 5, 100, 600])
def test_the_usual_entry_names_the_bucket_and_its_neighbours(
    rng: random.Random, num_nodes: int, is_ipv6: bool
) -> None:
    table = RoutingTable(OWN, is_ipv6=is_ipv6, now=0.0)
    key = b"6:nodes6" if is_ipv6 else b"5:nodes"
    size = 38 if is_ipv6 else 26
    for number in range(num_nodes):
        host = f"2a00:{number:x}::1" if is_ipv6 else f"20.{number // 250}.{number % 250}.1"
        endpoint = Endpoint(host, 1)
        table.note_answer(rng.randbytes(20), endpoint, now=0.0)
    for _ in range(4):
        for _ in range(100):
            target = rng.randbytes(20)
            entry = table.usual_entry(target)
            compact = table.closest_compact(target, 1000)
            if target[0] >> 3 == OWN[0] >> 3:
                assert entry == b""
                continue
            assert entry.startswith(b"%b%d:" % (key, len(compact)))
            body = entry.partition(b":")[2].partition(b":")[2]
            named = {body[at : at + size] for at in range(0, len(body), size)}
            best = {compact[at : at + size] for at in range(0, len(compact), size)}
            # All of its own bucket; the rest may be a little farther than the very closest.
            assert {info for info in best if info[0] >> 3 == target[0] >> 3} <= named
            assert len(named) == len(best)
        if len(table):
            table.note_failure(rng.choice(list(table)).endpoint)
