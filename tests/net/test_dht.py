"""net.dht: verbs over several nodes, bootstrap, state; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from bittern.codec.bencode import decode
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, KrpcFailure, MisuseError, QueryTimeout
from bittern.core.ids import InfoHash
from bittern.dht.items import immutable_target, mutable_target
from bittern.dht.limits import WELL_KNOWN_ROUTERS, DhtConfig
from bittern.net.dht import Dht
from bittern.net.signing import SigningKey
from tests.net.dht_scene import PORT, DhtScene, Names, in_dht_scene
from tests.virtual_time import simulated

HASH = InfoHash(b"h" * 20)


@in_dht_scene()
async def test_peers_that_one_announced_are_found_by_all(scene: DhtScene) -> None:
    dhts = await scene.add_network(6)
    result = await dhts[1].announce(HASH, 7000).wait()
    assert result.num_stored == 5
    await dhts[2].announce(HASH, PORT, implied=True, is_seed=True).wait()
    for dht in dhts:
        found = [endpoint async for endpoint in dht.get_peers(HASH)]
        assert sorted(found) == [Endpoint("10.0.2.1", 7000), Endpoint("10.0.3.1", PORT)]
    estimate = await dhts[5].scrape(HASH)
    assert estimate.num_seeds == pytest.approx(1, abs=0.1)
    assert estimate.num_leechers == pytest.approx(1, abs=0.1)
    assert estimate.num_peers == 2
    assert len(estimate.nodes) == 5
    assert [node.status.num_nodes for node in dhts[0].stats()] == [5]


@in_dht_scene()
async def test_an_implied_port_is_said_openly_where_the_socket_has_another(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    await dhts[1].announce(HASH, 7000, implied=True).wait()
    found = [endpoint async for endpoint in dhts[2].get_peers(HASH)]
    assert found == [Endpoint("10.0.2.1", 7000)]


@in_dht_scene()
async def test_both_families_are_searched_and_name_each_others_nodes(scene: DhtScene) -> None:
    dhts = await scene.add_network(4, families="46")
    await dhts[1].announce(HASH, 7000).wait()
    found = [endpoint async for endpoint in dhts[2].get_peers(HASH, noseed=True)]
    assert sorted(found) == [Endpoint("10.0.2.1", 7000), Endpoint("fd00::2", 7000)]
    # A node that knows only an IPv4 address gets into the other network as well (BEP 32).
    late = scene.add(nodes=[("10.0.1.1", PORT)], families="46")
    await late.bootstrap()
    await asyncio.sleep(60)
    assert all(len(shell.node.table) >= 4 for shell in late.shells)


@in_dht_scene()
async def test_immutable_items(scene: DhtScene) -> None:
    dhts = await scene.add_network(5)
    result = await dhts[1].put_immutable([b"some", 7])
    assert result.item is not None
    assert result.num_stored == 4
    assert result.item.target == immutable_target(b"l4:somei7ee")
    found = await dhts[3].get(result.item.target)
    assert found.item is not None
    assert decode(found.item.value) == [b"some", 7]
    assert found.num_copies >= 1
    assert (await dhts[3].get(b"x" * 20)).item is None
    with pytest.raises(ConfigError, match="at most 1000 bytes"):
        await dhts[1].put_immutable(b"x" * 1000)


@in_dht_scene()
async def test_mutable_items(scene: DhtScene) -> None:
    dhts = await scene.add_network(5)
    key = SigningKey(b"s" * 32)
    target = mutable_target(key.public_key, b"salt")
    for number, dht in enumerate(dhts[1:4]):
        result = await dht.put_mutable(key, number, salt=b"salt")
        assert result.item is not None
        assert result.item.seq == number
        assert result.num_stored == 4
        found = (await dhts[4].get(target, b"salt")).item
        assert found == result.item
    # Without the salt the signature cannot be checked.
    assert (await dhts[4].get(target)).item is None
    with pytest.raises(KrpcFailure, match=r"301.*2 is stored, not 1"):
        await dhts[1].put_mutable(key, b"x", salt=b"salt", cas=1)
    assert (await dhts[1].put_mutable(key, b"x", salt=b"salt", cas=2)).num_stored == 4
    with pytest.raises(KrpcFailure, match=r"302.*3 is stored already"):
        await dhts[1].put_mutable(key, b"y", salt=b"salt", seq=3)
    with pytest.raises(KrpcFailure, match="302"):
        await dhts[1].put_mutable(key, b"y", salt=b"salt", seq=2)
    # The same again is no change, and keeps it alive; anybody may do that.
    again = await dhts[1].put_mutable(key, b"x", salt=b"salt", seq=3)
    assert again.item is not None
    assert (await dhts[2].put_item(again.item)).num_stored == 4
    older = await dhts[2].get(target, b"salt")
    assert older.item == again.item
    for bad in ({"salt": b"s" * 65}, {"seq": -1}):
        with pytest.raises(ConfigError):
            await dhts[1].put_mutable(key, b"x", **bad)


@in_dht_scene()
async def test_an_older_item_does_not_replace_a_newer_one(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    key = SigningKey(b"s" * 32)
    old = (await dhts[1].put_mutable(key, b"old", seq=1)).item
    new = (await dhts[1].put_mutable(key, b"new", seq=2)).item
    assert old is not None
    result = await dhts[2].put_item(old)
    assert result.num_stored == 0
    assert result.item == new


@in_dht_scene()
async def test_single_nodes(scene: DhtScene) -> None:
    first, second = await scene.add_network(2)
    await second.announce(HASH, 7000).wait()
    endpoint = Endpoint("10.0.1.1", PORT)
    ponged = await second.ping(endpoint)
    assert ponged.node.endpoint == endpoint
    assert ponged.round_trip == pytest.approx(0.04)
    sampled = await second.sample(endpoint, HASH)
    assert sampled.samples == (HASH,)
    with pytest.raises(QueryTimeout):
        await second.ping(Endpoint("10.0.9.1", PORT))
    with pytest.raises(QueryTimeout, match="no IPv6 here"):
        await second.ping(Endpoint("fd00::1", PORT))
    with pytest.raises(MisuseError, match="bootstrap"):
        await scene.add().ping(endpoint)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await second.ping(Endpoint("10.0.9.1", PORT))
    assert first.num_nodes == 1


@in_dht_scene()
async def test_names_are_looked_up_and_routers_never_enter_the_table(scene: DhtScene) -> None:
    await scene.add_network(4)
    names = Names(scene.loop, {"router.example": ["10.0.1.1", "fd00::1"]})
    dht = scene.add(
        routers=[("router.example", PORT), ("gone.example", PORT)],
        nodes=[("10.0.2.1", PORT)],
        names=names,
    )
    assert await dht.bootstrap() >= 3
    assert sorted(names.asked) == ["10.0.2.1", "gone.example", "router.example"]
    assert Endpoint("10.0.1.1", PORT) not in {node.endpoint for node in dht.shells[0].node.table}


@in_dht_scene()
async def test_without_anybody_bootstrap_gives_up_and_goes_on_trying(scene: DhtScene) -> None:
    dht = scene.add(nodes=[("10.0.2.1", PORT)])
    search = dht.get_peers(HASH)
    assert await dht.bootstrap() == 0
    assert [endpoint async for endpoint in search] == []
    other = scene.add()
    assert await other.bootstrap() == 0
    await asyncio.sleep(60)
    assert dht.num_nodes == other.num_nodes == 1


@in_dht_scene()
async def test_a_search_that_began_before_the_bootstrap_waits_for_it(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    await dhts[1].announce(HASH, 7000).wait()
    names = Names(scene.loop, {"slow.example": ["10.0.1.1"]}, delay=3.0)
    late = scene.add(nodes=[("slow.example", PORT)], names=names)
    search = late.get_peers(HASH)
    joining = asyncio.ensure_future(late.bootstrap())
    assert [endpoint async for endpoint in search] == [Endpoint("10.0.2.1", 7000)]
    assert await joining > 0


@in_dht_scene()
async def test_saved_nodes_are_enough_when_no_name_resolves(scene: DhtScene) -> None:
    dhts = await scene.add_network(4)
    await dhts[1].announce(HASH, 7000).wait()
    saved = dhts[3].save()
    slow = Names(scene.loop, {}, delay=30.0)
    late = scene.add(routers=WELL_KNOWN_ROUTERS, state=saved, names=slow)
    begun_at = scene.loop.time()
    search = late.get_peers(HASH)
    joining = asyncio.ensure_future(late.bootstrap())
    assert [endpoint async for endpoint in search] == [Endpoint("10.0.2.1", 7000)]
    assert scene.loop.time() - begun_at < 3
    assert await joining >= 3
    assert sorted(slow.asked) == sorted(host for host, _ in WELL_KNOWN_ROUTERS)


@in_dht_scene()
async def test_an_id_is_kept_for_its_address_only(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    saved = dhts[2].save()
    own_id = dhts[2].shells[0].node.table.own_id
    dhts[2].close()
    scene.sockets[2][0].close()
    moved = scene.add(state=saved)
    assert moved.shells[0].node.table.own_id != own_id
    assert await moved.bootstrap() >= 2
    same = Dht(scene.sockets[2], state=saved)
    assert same.shells[0].node.table.own_id == own_id
    same.close()


@pytest.mark.parametrize("state", [b"", b"x", b"i1e", b"li1ee", b"ld4:hosti1eee", b"ld2:idi1eee"])
@in_dht_scene()
async def test_a_bad_state_is_no_state(scene: DhtScene, state: bytes) -> None:
    assert await scene.add(state=state).bootstrap() == 0


@in_dht_scene()
async def test_a_read_only_node_finds_and_is_in_no_table(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    await dhts[1].announce(HASH, 7000).wait()
    quiet = scene.add(nodes=[("10.0.1.1", PORT)], config=DhtConfig(is_read_only=True))
    await quiet.bootstrap()
    assert [endpoint async for endpoint in quiet.get_peers(HASH)]
    await asyncio.sleep(60)
    with pytest.raises(QueryTimeout):
        await dhts[0].ping(Endpoint("10.0.4.1", PORT))
    assert all(dht.num_nodes == 2 for dht in dhts)


@in_dht_scene()
async def test_nodes_of_peers_enter_the_table(scene: DhtScene) -> None:
    one, other = scene.add(), scene.add()
    await one.bootstrap()
    await other.bootstrap()
    one.add_nodes([Endpoint("10.0.2.1", PORT), Endpoint("fd00::2", PORT), Endpoint("10.0.2.1", 0)])
    await asyncio.sleep(10)
    assert one.num_nodes == other.num_nodes == 1


@in_dht_scene()
async def test_closing_ends_what_is_under_way(scene: DhtScene) -> None:
    dhts = await scene.add_network(2)
    scene.hosts[0].vanish()
    silent = Endpoint("10.0.1.1", PORT)
    pinging = asyncio.ensure_future(dhts[1].ping(silent))
    getting = asyncio.ensure_future(dhts[1].get(b"t" * 20))
    search = dhts[1].get_peers(HASH)
    await asyncio.sleep(0.1)
    dhts[1].close()
    dhts[1].close()
    with pytest.raises(QueryTimeout, match="closed"):
        await pinging
    assert (await getting).item is None
    assert [endpoint async for endpoint in search] == []
    with pytest.raises(QueryTimeout):
        await dhts[1].ping(silent)
    dhts[1].add_nodes([silent])
    never = scene.add()
    never.close()
    assert await never.bootstrap() == 0
    assert "Dht" in repr(never)


@simulated
async def test_without_sockets_nothing_is_found() -> None:
    dht = Dht([])
    assert await dht.bootstrap() == 0
    assert [endpoint async for endpoint in dht.get_peers(HASH)] == []
    assert (await dht.put_immutable(b"x")).num_stored == 0
    dht.close()


@in_dht_scene()
async def test_nodes_that_a_torrent_names_are_looked_up(scene: DhtScene) -> None:
    """BEP 5. A name without an address costs nothing, and a port of 0 is none."""
    dhts = await scene.add_network(2)
    names = Names(scene.loop, {"node.example": ["10.0.1.1"], "odd.example": ["10.0.2.1"]})
    dht = scene.add(names=names)
    assert await dht.bootstrap() == 0
    named = [("node.example", PORT), ("gone.example", PORT), ("odd.example", 0)]
    await dht.add_names(named)
    await asyncio.sleep(30)
    assert dht.num_nodes
    assert sorted(names.asked) == ["gone.example", "node.example", "odd.example"]
    assert dhts[0].num_nodes


async def test_a_node_without_a_resolver_makes_one_for_the_time_it_needs_it() -> None:
    dht = Dht([])
    await dht.add_names([("127.0.0.1", 1), ("name.invalid", 1)])
    dht.close()


@in_dht_scene()
async def test_whoever_gives_up_on_one_node_hears_nothing_later(scene: DhtScene) -> None:
    dhts = await scene.add_network(2)
    asking = asyncio.ensure_future(dhts[1].ping(Endpoint("10.0.1.1", PORT)))
    await asyncio.sleep(0)
    asking.cancel()
    dhts[1].close()
    with pytest.raises(asyncio.CancelledError):
        await asking
