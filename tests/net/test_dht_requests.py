"""net.dht_requests: searches that several nodes work on, without tasks."""

from __future__ import annotations

import asyncio

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.core.ids import InfoHash
from bittern.dht.items import mutable_target
from bittern.net.dht_requests import PeersResult, Search
from bittern.net.signing import SigningKey
from tests.net.dht_scene import SETTLE_TIME, DhtScene, in_dht_scene

HASH = InfoHash(b"h" * 20)


@in_dht_scene()
async def test_callbacks_hear_peers_as_they_come_and_the_end_once(scene: DhtScene) -> None:
    dhts = await scene.add_network(4, families="46")
    await dhts[1].announce(HASH, 7000).wait()
    found: list[Endpoint] = []
    ended: list[Search[PeersResult]] = []
    search = dhts[2].get_peers(HASH, found=found.extend, ended=ended.append)
    assert not search.is_over
    assert search.result.num_peers == 0
    assert await search.wait() == search.result
    assert ended == [search]
    assert search.is_over
    assert sorted(found) == [Endpoint("10.0.2.1", 7000), Endpoint("fd00::2", 7000)]
    assert search.result.num_peers == 2
    assert search.result.num_seeds is None
    assert search.result.num_queries >= 2
    # With callbacks nothing is kept for iterating.
    assert [endpoint async for endpoint in search] == []
    await asyncio.sleep(10)
    assert len(ended) == 1


@in_dht_scene()
async def test_a_cancelled_search_says_nothing_and_leaves_nothing(scene: DhtScene) -> None:
    dhts = await scene.add_network(4)
    ended: list[Search[PeersResult]] = []
    search = dhts[2].get_peers(HASH, ended=ended.append)
    search.cancel()
    search.cancel()
    assert dhts[2].stats()[0].status.num_lookups == 0
    assert [endpoint async for endpoint in search] == []
    await asyncio.sleep(10)
    assert not ended


@in_dht_scene()
async def test_cancelling_who_waits_cancels_the_search(scene: DhtScene) -> None:
    dhts = await scene.add_network(4)
    waiting = asyncio.ensure_future(dhts[2].get(b"t" * 20))
    await asyncio.sleep(0.01)
    assert dhts[2].stats()[0].status.num_lookups == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert dhts[2].stats()[0].status.num_lookups == 0


@in_dht_scene()
async def test_several_may_wait_for_one_search(scene: DhtScene) -> None:
    dhts = await scene.add_network(3)
    await dhts[1].announce(HASH, 7000).wait()
    search = dhts[2].get_peers(HASH)
    results = await asyncio.gather(search.wait(), search.wait())
    assert results[0] == results[1]
    assert [endpoint async for endpoint in search] == [Endpoint("10.0.2.1", 7000)]


@in_dht_scene()
async def test_peers_come_one_by_one_to_who_iterates_and_leaving_early_ends_nothing(
    scene: DhtScene,
) -> None:
    dhts = await scene.add_network(4)
    for dht in dhts[:3]:
        await dht.announce(HASH, 7000).wait()
    search = dhts[3].get_peers(HASH)
    async for _ in search:
        break
    assert (await search.wait()).num_peers == 3
    assert len([endpoint async for endpoint in search]) == 2


@in_dht_scene()
async def test_who_named_a_peer_is_told_on_request(scene: DhtScene) -> None:
    dhts = await scene.add_network(4)
    await dhts[1].announce(HASH, 7000).wait()
    told: list[tuple[tuple[Endpoint, ...], Endpoint]] = []
    search = dhts[2].get_peers(HASH, named=lambda peers, node: told.append((peers, node)))
    await search.wait()
    # Several nodes name it, and it is told once.
    [(peers, node)] = told
    assert peers == (Endpoint("10.0.2.1", 7000),)
    assert node in {endpoint for dht in dhts for endpoint in scene.endpoints(dht)}


@in_dht_scene()
async def test_a_search_may_be_ended_by_what_it_has_found(scene: DhtScene) -> None:
    dhts = await scene.add_network(4, families="46")
    await dhts[1].announce(HASH, 7000).wait()
    found: list[Endpoint] = []
    ended: list[Search[PeersResult]] = []

    def enough(peers: tuple[Endpoint, ...]) -> None:
        found.extend(peers)
        search.cancel()

    search = dhts[2].get_peers(HASH, found=enough, ended=ended.append)
    await search.wait()
    await asyncio.sleep(10)
    assert len(found) == 1
    assert not ended
    assert [each.status.num_lookups for each in dhts[2].stats()] == [0, 0]


@in_dht_scene()
async def test_the_newest_item_of_both_networks_counts(scene: DhtScene) -> None:
    """And copies are counted of that one alone."""
    dhts = await scene.add_network(4, families="46")
    first = {e.is_ipv6: (e.host, e.port) for e in scene.endpoints(dhts[0])}
    key = SigningKey(b"s" * 32)
    target = mutable_target(key.public_key)
    num_stored = {}
    for family, seq in (("4", 5), ("6", 7)):
        publisher = scene.add(nodes=[first[family == "6"]], families=family)
        await publisher.bootstrap()
        await asyncio.sleep(SETTLE_TIME)
        num_stored[family] = (await publisher.put_mutable(key, seq, seq=seq)).num_stored
    assert num_stored == {"4": 4, "6": 4}
    result = await dhts[3].get(target)
    assert result.item is not None
    assert result.item.seq == 7
    assert 0 < result.num_copies <= 4
    assert result.num_queries >= 2


@in_dht_scene()
async def test_a_closed_node_ends_what_is_begun_later_at_once(scene: DhtScene) -> None:
    dhts = await scene.add_network(2)
    dhts[1].close()
    ended: list[Search[PeersResult]] = []
    search = dhts[1].get_peers(HASH, ended=ended.append)
    assert search.is_over
    assert ended == [search]
    assert [endpoint async for endpoint in search] == []
    assert (await dhts[1].get(b"t" * 20)).item is None


@in_dht_scene()
async def test_a_search_that_one_node_refuses_leaves_nothing_with_the_others(
    scene: DhtScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    dhts = await scene.add_network(4, families="46")
    second = dhts[2].shells[1]

    def refuse(*_: object) -> int:
        raise MisuseError("too many lookups wait")

    monkeypatch.setattr(second, "begin", refuse)
    with pytest.raises(MisuseError, match="too many"):
        dhts[2].get_peers(HASH)
    assert [stats.status.num_lookups for stats in dhts[2].stats()] == [0, 0]
