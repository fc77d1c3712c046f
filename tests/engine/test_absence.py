"""engine.absence: going on after the machine slept, or has come into another network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from bittern.codec import wire
from bittern.core.announce import Event
from bittern.engine.absence import (
    ASK_PERIOD,
    LOOK_INTERVAL,
    MAX_ASKS,
    MIN_ABSENCE,
    SETTLE_TIME,
    TEST_TIME,
    Absence,
    Machine,
    Unmoved,
)
from bittern.engine.session import Session
from bittern.testing.loop import VirtualLoop
from bittern.testing.peer import ScriptedPeer
from tests.engine.scene import Scene, in_scene, until
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked
from tests.virtual_time import simulated

HOME, CAFE = frozenset({"10.1.1.1"}), frozenset({"10.2.2.2"})
HOUR = 3600.0


class Laptop:
    """A machine that sleeps and travels when it is told to."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.slept = 0.0
        self.where = HOME
        self._time = time

    def time(self) -> float:
        return self._time() + self.slept

    def hosts(self) -> frozenset[str]:
        return self.where


class Asked:
    """A source that remembers when it was asked, and for how long we were away."""

    def __init__(self) -> None:
        self.log: list[tuple[float, float]] = []

    def missed(self, seconds: float) -> None:
        self.log.append((asyncio.get_running_loop().time(), seconds))


class Bench:
    """An absence that is ticked once a second, as by a session."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.laptop = Laptop(loop.time)
        self.asked = Asked()
        self.absence = Absence(
            self.laptop,
            rng=loop.random,
            now=loop.time(),
            peers=lambda: (),
            idle_timeout=lambda: 120.0,
            sources=lambda: (self.asked,),
        )

    async def run(self, seconds: float) -> None:
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            self.absence.tick(now=self.loop.time())
            await asyncio.sleep(1)


@simulated
async def test_who_never_sleeps_nor_moves_asks_nobody(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    for _ in range(60):
        await bench.run(60)
        bench.laptop.slept += MIN_ABSENCE - 2
    assert bench.asked.log == []
    still = Unmoved(loop)
    assert (still.time(), still.hosts()) == (loop.time(), frozenset())


@simulated
async def test_after_a_sleep_others_are_asked_once_the_network_is_there(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    await bench.run(60)
    bench.laptop.slept += HOUR
    await bench.run(60)
    [(at, missed)] = bench.asked.log
    assert missed == HOUR
    assert 60 + SETTLE_TIME[0] <= at <= 60 + SETTLE_TIME[1] + 1


@simulated
async def test_who_sleeps_again_at_once_is_told_of_all_of_it(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    for _ in range(2):
        await bench.run(2)
        bench.laptop.slept += HOUR
    await bench.run(60)
    assert [missed for _, missed in bench.asked.log] == [2 * HOUR]


@simulated
async def test_a_process_that_stood_still_asks_as_well(loop: VirtualLoop) -> None:
    """Its timers have counted all of it."""
    bench = Bench(loop)
    await bench.run(10)
    await asyncio.sleep(600)
    await bench.run(60)
    assert [missed for _, missed in bench.asked.log] == [0.0]


@pytest.mark.parametrize(
    ("journey", "num_asked"),
    [
        ([CAFE], 1),
        ([frozenset()], 0),
        ([frozenset(), HOME], 1),
        ([HOME | CAFE], 1),
        ([HOME | CAFE, HOME], 1),
        ([CAFE, HOME], 2),
    ],
)
@simulated
async def test_others_are_asked_from_a_new_address(
    loop: VirtualLoop, journey: list[frozenset[str]], num_asked: int
) -> None:
    bench = Bench(loop)
    await bench.run(2 * LOOK_INTERVAL)
    for where in journey:
        bench.laptop.where = where
        await bench.run(2 * LOOK_INTERVAL)
    assert [missed for _, missed in bench.asked.log] == [0.0] * num_asked


@simulated
async def test_an_address_that_goes_to_and_fro_asks_others_now_and_then(loop: VirtualLoop) -> None:
    """As where two ways lead out of a network; a tracker may name no interval to insist on."""
    bench = Bench(loop)
    for _ in range(50):
        for bench.laptop.where in (HOME, CAFE):
            await bench.run(LOOK_INTERVAL)
    log = [at for at, _ in bench.asked.log]
    assert len(log) == 2 * MAX_ASKS
    assert all(later - at >= ASK_PERIOD for at, later in pairwise(log[::MAX_ASKS]))


@simulated
async def test_others_are_asked_after_every_long_sleep(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    for _ in range(10):
        await bench.run(60)
        bench.laptop.slept += ASK_PERIOD
    await bench.run(60)
    assert len(bench.asked.log) == 10


def on_a_laptop(session: type[Session]) -> tuple[type[Session], list[Laptop]]:
    """Return a session that runs on one, and where to find it."""
    found: list[Laptop] = []

    class Carried(session):  # type: ignore[valid-type, misc]
        def _find_machine(self) -> Machine:
            found.append(Laptop(self._loop.time))
            return found[-1]

    return Carried, found


@in_scene()
async def test_trackers_and_peers_after_a_night(scene: Scene) -> None:
    """The tracker would have been asked in half an hour, and no earlier than in five minutes."""
    client = FakeClient()
    make, laptops = on_a_laptop(tracked(client))
    config = {"trackers": ((URL,),)}
    node = await scene.node(make=make, enable_trackers=True, torrent=config)
    gone, there = [await scene.scripted(node, bitfield=wire.HAVE_NONE) for _ in range(2)]

    async def answer(peer: ScriptedPeer) -> None:
        while True:
            await peer.expect(None, timeout=HOUR)
            peer.send(wire.KEEP_ALIVE)

    await asyncio.sleep(10)
    scene.spawn(answer(there))
    assert [event for _, event, _ in client.heard] == [Event.STARTED]
    began = scene.loop.time()
    laptops[0].slept += 8 * HOUR
    await until(lambda: len(client.heard) == 2)
    assert scene.loop.time() - began <= SETTLE_TIME[1] + 2
    await gone.expect(None)
    await gone.expect_closed(timeout=TEST_TIME + 3)
    assert scene.loop.time() - began <= TEST_TIME + 3
    await asyncio.sleep(60)
    assert node.torrent.num_connections == 1
    assert len(client.heard) == 2


@in_scene()
async def test_a_short_sleep_closes_no_connection(scene: Scene) -> None:
    make, laptops = on_a_laptop(Session)
    node = await scene.node(make=make)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    await asyncio.sleep(10)
    laptops[0].slept += MIN_ABSENCE
    await peer.expect(None, timeout=2)
    await asyncio.sleep(TEST_TIME + 10)
    assert node.torrent.num_connections == 1
    peer.send(wire.KEEP_ALIVE)
    await asyncio.sleep(100)
    assert node.torrent.num_connections == 1
