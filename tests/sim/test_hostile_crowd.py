"""A download among very many hostile peers of every kind and two honest ones (R6)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from bittern.core.errors import PeerTimeout
from bittern.engine import events
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.peer import ExpectationFailed, ScriptedListener, ScriptedPeer
from tests.engine.scene import PORT, Watch, endpoint_of
from tests.sim.hostile_zoo import ATTACKS, LIARS, Attack, Visit
from tests.sim.place import Place
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow

HONEST_RATE = 70_000
MAX_MEMORY = 64 << 20
MAX_TIMES_CLEAN = 1.5


class Crowd:
    """
    Hostile hosts, each with its own kind of attack, that dial a victim again and again and do
    the same to it when it dials them.
    """

    def __init__(self, place: Place, attacks: Sequence[Attack]) -> None:
        self._place = place
        self._loop = place.loop
        self.attacks = {place.add_host(): attack for attack in attacks}
        self._listeners = [ScriptedListener(host, host.addresses[0], PORT) for host in self.attacks]
        self._tasks: list[asyncio.Task[None]] = []
        self.num_visits = 0

    def start(self, victim: SimHost) -> None:
        """Attack until ``stop``."""
        for number, (host, attack) in enumerate(self.attacks.items()):
            listener = self._listeners[number]
            for job in (self._dial(number, host, attack, victim),
                        self._receive(number, attack, listener)):  # fmt: skip
                self._tasks.append(self._loop.create_task(job, name=f"{attack.__name__} {number}"))

    async def stop(self) -> None:
        """End all attacks."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _dial(self, number: int, host: SimHost, attack: Attack, victim: SimHost) -> None:
        while True:
            with contextlib.suppress(OSError, PeerTimeout):
                peer = await ScriptedPeer.connect(host, endpoint_of(victim))
                await self._visit(number, peer, attack)
            await asyncio.sleep(5)

    async def _receive(self, number: int, attack: Attack, listener: ScriptedListener) -> None:
        while True:
            peer = await listener.accept(timeout=100_000)
            await self._visit(number, peer, attack)

    async def _visit(self, number: int, peer: ScriptedPeer, attack: Attack) -> None:
        self.num_visits += 1
        chance = random.Random(self._loop.random.random())
        try:
            await attack(Visit(self._place, peer, number, chance))
        except ExpectationFailed:
            pass
        finally:
            peer.close()


async def download(
    loop: VirtualLoop, folder: Path, attacks: Sequence[Attack], *, num_pieces: int
) -> float:
    """Let a session download from two honest seeds among attackers; return how long it took."""
    async with Place(loop, folder, num_pieces=num_pieces) as place:
        honest = [place.add_host(upload_rate=HONEST_RATE) for _ in range(2)]
        victim = place.add_host()
        for host in honest:
            await place.add(host, is_seed=True)
        crowd = Crowd(place, attacks)
        known = [*honest, *crowd.attacks]
        loop.random.shuffle(known)
        began = loop.time()
        crowd.start(victim)
        torrent = await place.add(victim, peers=tuple(map(endpoint_of, known)))
        watch = Watch(torrent)
        await torrent.wait_complete()
        seconds = loop.time() - began
        assert place.has_content(victim)
        await asyncio.sleep(0)
        banned = {event.endpoint.host for event in watch.of(events.PeerBanned)}
        liars = {host.addresses[0] for host, attack in crowd.attacks.items() if attack in LIARS}
        assert banned <= liars
        assert crowd.num_visits >= len(attacks)
        await crowd.stop()
    return seconds


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@simulated
async def test_one_kind_of_hostile_peer(loop: VirtualLoop, attack: Attack, tmp_path: Path) -> None:
    """Four of a kind cost a short download little, and nobody else is banned for it."""
    seconds = await download(loop, tmp_path, [attack] * 4, num_pieces=16)
    assert seconds < 2 * 16 * 65_536 / (2 * HONEST_RATE) + 5


@pytest.mark.parametrize(
    ("count", "num_pieces"), [(50, 64), pytest.param(200, 128, marks=pytest.mark.soak)]
)
@simulated(limit=20_000)
async def test_a_download_among_hostile_peers_of_every_kind(
    loop: VirtualLoop, count: int, num_pieces: int, tmp_path: Path
) -> None:
    """R6. The right content, in 1.5 times the time of a clean run, within 64 MiB, no honest ban."""
    clean = await download(loop, tmp_path / "clean", [], num_pieces=num_pieces)
    attacks = [ATTACKS[number % len(ATTACKS)] for number in range(count)]
    tracemalloc.start()
    try:
        seconds = await download(loop, tmp_path / "hostile", attacks, num_pieces=num_pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY
    assert seconds <= MAX_TIMES_CLEAN * clean
