"""
Crowds in virtual time: a hundred different peers with churn, seeds that leave, those who give
little, and what one copy costs the seed.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from bittern.engine.torrent import Torrent
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import Link
from tests.engine.scene import endpoint_of
from tests.sim.place import Place, wait_all
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow


async def until_spread(torrents: Sequence[Torrent], num_pieces: int) -> None:
    """Wait until the torrents together have every piece."""
    while True:
        bits = 0
        for torrent in torrents:
            bits |= torrent.have_bits
        if bits.bit_count() == num_pieces:
            return
        await asyncio.sleep(0.1)


# --- a hundred peers -------------------------------------------------------------------------


async def live_through_churn(
    loop: VirtualLoop, folder: Path, *, count: int, num_pieces: int
) -> list[tuple[float, str]]:
    """
    Let ``count`` peers with lines, delays and fates of their own complete; return the trace.

    They come one after the other. A fifth crashes with some pieces, and comes back half a minute
    later; a tenth leaves once it is complete, half of those without a word.
    """
    chance = loop.random
    link = Link(delay=0.05)
    async with Place(loop, folder, num_pieces=num_pieces, link=link, is_traced=True) as place:
        hosts = [place.add_host(upload_rate=400_000) for _ in range(2)]
        for host in hosts:
            await place.add(host, is_seed=True)
        num_crashed = num_complete = 0

        async def live(number: int, host: SimHost) -> None:
            nonlocal num_crashed, num_complete
            known = tuple(map(endpoint_of, chance.sample(hosts, min(8, len(hosts)))))
            hosts.append(host)
            torrent = await place.add(host, peers=known)
            if number % 5 == 1:
                while not torrent.have_bits:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.1)
                if not torrent.is_complete:
                    num_crashed += 1
                    host.crash()
                    await place.end(host)
                    await asyncio.sleep(30)
                    torrent = await place.add(host, peers=known)
                    assert torrent.have_bits
            await torrent.wait_complete()
            assert place.has_content(host)
            num_complete += 1
            if number % 10 == 2:
                if number % 20 == 2:
                    host.vanish()
                await place.end(host)

        lives = []
        for number in range(count):
            rate = chance.choice([50_000, 100_000, 200_000, 400_000, 1_000_000])
            host = place.add_host(upload_rate=rate, download_rate=rate * chance.choice([2, 5, 10]))
            for other in chance.sample(hosts, min(5, len(hosts))):
                place.network.set_link(host, other, Link(delay=chance.uniform(0.005, 0.3)))
            lives.append(loop.create_task(live(number, host), name=f"life of {host}"))
            await asyncio.sleep(chance.expovariate(2))
        await asyncio.gather(*lives)
        assert num_complete == count
        assert num_crashed >= count // 10
        return place.network.trace


@pytest.mark.parametrize(
    ("count", "num_pieces"), [(16, 16), pytest.param(100, 64, marks=pytest.mark.soak)]
)
def test_different_peers_complete_through_churn_and_a_seed_repeats_all_of_it(
    count: int, num_pieces: int, tmp_path: Path, seed: int
) -> None:
    traces = [
        run(
            lambda loop, n=number: live_through_churn(  # type: ignore[misc]  # a loop variable
                loop, tmp_path / str(n), count=count, num_pieces=num_pieces
            ),
            seed=own,
        )
        for number, own in enumerate([seed, seed, seed + 1])
    ]
    assert len(traces[0]) > 500
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


# --- rarest first ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_seeds", "count", "num_pieces"),
    [(1, 6, 128), (2, 6, 128), pytest.param(2, 40, 512, marks=pytest.mark.soak)],
)
@simulated
async def test_seeds_may_leave_when_they_have_sent_little_more_than_one_copy(
    loop: VirtualLoop, num_seeds: int, count: int, num_pieces: int, tmp_path: Path
) -> None:
    """Rarest first, and everybody another one of the rarest: the swarm lives on without them."""
    async with Place(loop, tmp_path, num_pieces=num_pieces) as place:
        seeds = [place.add_host(upload_rate=100_000 // num_seeds) for _ in range(num_seeds)]
        others = [place.add_host(upload_rate=200_000) for _ in range(count)]
        at_seeds = [await place.add(host, is_seed=True) for host in seeds]
        everybody = tuple(map(endpoint_of, [*seeds, *others]))
        torrents = [await place.add(host, peers=everybody) for host in others]
        await until_spread(torrents, num_pieces)
        num_sent = sum(torrent.stats().uploaded for torrent in at_seeds)
        assert num_sent < 1.5 * len(place.data)
        for host in seeds:
            host.vanish()
        await wait_all(*torrents)
        assert all(map(place.has_content, others))
        assert loop.time() < 1.7 * len(place.data) / 100_000


# --- tit for tat -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "num_pieces"), [(8, 64), pytest.param(30, 128, marks=pytest.mark.soak)]
)
@simulated
async def test_those_who_give_are_served_first(
    loop: VirtualLoop, count: int, num_pieces: int, tmp_path: Path
) -> None:
    """
    Every piece is at half of the givers and at half of the takers, so nothing is scarce but
    lines. Givers send all they can, takers next to nothing; the first are done well before the
    others.
    """
    async with Place(loop, tmp_path, num_pieces=num_pieces) as place:
        givers = [place.add_host(upload_rate=100_000) for _ in range(count)]
        takers = [place.add_host(upload_rate=5_000) for _ in range(count)]
        pieces: dict[SimHost, list[int]] = {host: [] for host in [*givers, *takers]}
        for index in range(num_pieces):
            # A piece that only takers had would hold up everybody alike.
            for hosts in (givers, takers):
                for host in loop.random.sample(hosts, count // 2):
                    pieces[host].append(index)
        everybody = tuple(map(endpoint_of, pieces))
        done_at: dict[SimHost, float] = {}

        async def live(host: SimHost, torrent: Torrent) -> None:
            await torrent.wait_complete()
            done_at[host] = loop.time()

        lives = []
        for host in [host for pair in zip(givers, takers, strict=True) for host in pair]:
            torrent = await place.add(host, peers=everybody, pieces=pieces[host], upload_slots=4)
            lives.append(live(host, torrent))
        await asyncio.gather(*lives)
        giving, taking = (
            statistics.median(done_at[host] for host in hosts) for hosts in (givers, takers)
        )
        assert all(map(place.has_content, pieces))
        assert max(done_at[host] for host in givers) < min(done_at[host] for host in takers)
        assert taking > 3 * giving


# --- nobody starves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "num_pieces"), [(12, 16), pytest.param(60, 64, marks=pytest.mark.soak)]
)
@simulated(limit=100_000)
async def test_nobody_starves_at_a_seed_with_few_slots(
    loop: VirtualLoop, count: int, num_pieces: int, tmp_path: Path
) -> None:
    """H16. Leechers that cannot reach each other: all depend on the seed, and all move on."""
    async with Place(loop, tmp_path, num_pieces=num_pieces) as place:
        rate = 200_000
        seed = place.add_host(upload_rate=rate)
        await place.add(seed, is_seed=True, upload_slots=4)
        torrents = []
        for number in range(count):
            # Greedy ones with fast lines, and slow ones.
            line = 1_000_000 if number % 3 == 0 else 60_000
            host = place.add_host(download_rate=line, is_reachable=False)
            torrents.append(await place.add(host, peers=(endpoint_of(seed),)))
        # Three slots go round, and one keeps its turn for thirty seconds while others wait.
        patience = 30 * (count / 3 + 1)
        before = [torrent.num_downloaded for torrent in torrents]
        while not all(torrent.is_complete for torrent in torrents):
            await asyncio.sleep(patience)
            after = [torrent.num_downloaded for torrent in torrents]
            for torrent, old, new in zip(torrents, before, after, strict=True):
                assert torrent.is_complete or new > old, "one got nothing in a whole round"
            before = after
        assert loop.time() < 1.5 * count * len(place.data) / rate + patience


@pytest.mark.parametrize("slow", ["first", "last"])
@simulated
async def test_nobody_starves_who_is_slow_and_has_nothing_to_give(
    loop: VirtualLoop, slow: str, tmp_path: Path
) -> None:
    """In a swarm of the fast: optimistic unchokes and the seed's turns bring it to the end."""
    async with Place(loop, tmp_path, num_pieces=32) as place:
        seed = place.add_host(upload_rate=200_000)
        await place.add(seed, is_seed=True, upload_slots=3)
        lines = [500_000] * 8
        lines.insert(0 if slow == "first" else 8, 8_000)
        hosts = [place.add_host(upload_rate=line) for line in lines]
        everybody = tuple(map(endpoint_of, [seed, *hosts]))
        torrents = [await place.add(host, peers=everybody, upload_slots=3) for host in hosts]
        await wait_all(*torrents)
        assert all(map(place.has_content, hosts))
        assert loop.time() < 300
