"""net.dht_requests: searches that several nodes work on, without tasks."""

from __future__ import annotations

import asyncio

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.net.dht_requests import PeersResult, Search
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.net.dht_scene import DhtScene

HASH = InfoHash(b"h" * 20)


def test_callbacks_hear_peers_as_they_come_and_the_end_once(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        scene = DhtScene(loop)
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
        scene.close()

    simulate(main)


def test_a_cancelled_search_says_nothing_and_leaves_nothing(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        scene = DhtScene(loop)
        dhts = await scene.add_network(4)
        ended: list[Search[PeersResult]] = []
        search = dhts[2].get_peers(HASH, ended=ended.append)
        search.cancel()
        search.cancel()
        assert dhts[2].stats()[0].status.num_lookups == 0
        assert [endpoint async for endpoint in search] == []
        await asyncio.sleep(10)
        assert not ended
        scene.close()

    simulate(main)


def test_cancelling_who_waits_cancels_the_search(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        scene = DhtScene(loop)
        dhts = await scene.add_network(4)
        waiting = asyncio.ensure_future(dhts[2].get(b"t" * 20))
        await asyncio.sleep(0.01)
        assert dhts[2].stats()[0].status.num_lookups == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert dhts[2].stats()[0].status.num_lookups == 0
        scene.close()

    simulate(main)


def test_several_may_wait_for_one_search(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        scene = DhtScene(loop)
        dhts = await scene.add_network(3)
        await dhts[1].announce(HASH, 7000).wait()
        search = dhts[2].get_peers(HASH)
        results = await asyncio.gather(search.wait(), search.wait())
        assert results[0] == results[1]
        assert [endpoint async for endpoint in search] == [Endpoint("10.0.2.1", 7000)]
        scene.close()

    simulate(main)
