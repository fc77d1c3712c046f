"""
What grows with the age of a session: nothing.

A client runs for months. Here it lives through the same hours again and again, with torrents that
come, go, fail and move, trackers dead and alive, a DHT, neighbours, a broken web server and peers
of every hostile kind; at equal points of the hour every container that can be reached from the
session is measured. What holds more each time is a leak, and is named by its path.

Reduced by default; ``-m soak`` lives longer and through all attacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import shutil
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.core.announce import AnnounceAnswer, AnnounceRequest
from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError, PeerTimeout, TrackerUnreachable
from bittern.engine.config import TorrentConfig
from bittern.engine.opening import Source
from bittern.engine.session import Session
from bittern.engine.sources.tracker_client import UDP_TIMEOUT
from bittern.engine.torrent import Torrent
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.containers import measure
from tests.engine.dht_place import DhtSession, Nodes, SimSocket
from tests.engine.scene import endpoint_of
from tests.engine.sources.fake_tracker import FakeClient, TrackedSession
from tests.engine.web import Web
from tests.sim.hostile_zoo import ATTACKS, Attack, Visit
from tests.sim.place import Place
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow

LIVE, DEAD = "http://tracker.example/announce", "udp://dead.example:80"
NUM_RESTING = 6
SETTLING_TIME = 1000.0
"""Seconds until short memories have passed: attempts, turns in the DHT, retries."""
NUM_WARM, NUM_MEASURED = 2, 4
SWEPT = "._queue._parked{}"
"""Stale places in queues of candidates: those of one torrent are swept out from 64 on."""


class HalfDead(FakeClient):
    """Trackers of which the one at ``DEAD`` says nothing."""

    async def announce(
        self,
        url: str,
        requests: Sequence[AnnounceRequest],
        *,
        answered: Callable[[AnnounceAnswer, str], None] = lambda answer, host: None,
    ) -> AnnounceAnswer:
        if url == DEAD:
            await asyncio.sleep(UDP_TIMEOUT)
            raise TrackerUnreachable("silent")
        return await super().announce(url, requests, answered=answered)


class Silence:
    """A local network without neighbours; a ``Multicast``."""

    def open(self, receive: Callable[[bytes, Endpoint], object]) -> None:
        """Hear nothing."""

    def refresh(self) -> bool:
        """Have the interfaces that there were before."""
        return False

    def send(self, datagrams: Mapping[str, bytes]) -> int:
        """Reach one interface."""
        return len(datagrams) // 2

    def close(self) -> None:
        """Do nothing."""


class Life:
    """
    A session that lives through round after round, and what it meets.

    Args:
        place: where.
        attacks: that are made upon it in each round.
    """

    def __init__(self, place: Place, attacks: list[Attack]) -> None:
        self.place = place
        self.attacks = attacks
        self.gone: list[weakref.ref[Torrent]] = []
        """Torrents that were removed."""
        self._trackers, self._web = HalfDead(), Web({})
        self._nodes = Nodes(place)
        self._hosts: list[SimHost] = []
        self._bad = place.folder / "no folder"

    async def begin(self) -> None:
        """Make the session, some torrents at rest in it, and a seed for the others."""
        place = self.place
        for _ in range(3):
            await self._nodes.add()
        web, client = self._web, self._trackers
        members = {"client": client, "_http": lambda _self: web}
        made = type("Made", (TrackedSession, DhtSession), members)
        self.seed = await place.node(is_seed=True)
        node = await place.node(
            is_seed=True,
            state_dir=place.state_dir,
            multicast=Silence(),
            worker_delay=0.001,
            **self._nodes.options(make=made, enable_trackers=True),
        )
        self.session: Session = node.session
        self.host = node.host
        self._hosts = [place.add_host() for _ in self.attacks]
        self._bad.write_bytes(b"")
        resting = place.folder / "resting"
        resting.mkdir()
        for number in range(NUM_RESTING):
            path = resting / str(number)
            path.write_bytes(bytes([number]) * 20_000)
            raw = create_torrent(path, options=CreateOptions(piece_length=16_384), num_threads=1)
            await self.session.add(raw, self._config(resting))
        made_of = random.Random(2).randbytes(300_000)
        (place.folder / "other").write_bytes(made_of)
        self.other = create_torrent(
            place.folder / "other", options=CreateOptions(piece_length=16_384), num_threads=1
        )
        await self.seed.session.add(self.other, TorrentConfig(output=place.folder))

    def _config(self, output: Path) -> TorrentConfig:
        trackers = ((DEAD,), (LIVE,))
        return TorrentConfig(output=output, trackers=trackers, web_seeds=("http://web.example/",))

    async def live(self) -> None:
        """Let a while, and what belongs into it, pass."""
        for number, attack in enumerate(self.attacks):
            await self._attack(number, attack)
        for fate in (self._completes, self._leaves_early, self._moves, self._fails, self._changes):
            for source in (self.other, self._link()):
                await self._with_torrent(source, fate)
        await asyncio.sleep(SETTLING_TIME)
        self._clear_records()

    def _link(self) -> str:
        (torrent,) = (each for each in self.seed.session.torrents if each.name == "other")
        return f"magnet:?xt=urn:btih:{torrent.info_hash}"

    async def _with_torrent(
        self, source: Source, fate: Callable[[Torrent], Awaitable[None]]
    ) -> None:
        output = self._bad if fate == self._fails else self.place.folder / "new"
        torrent = await self.session.add(
            source, replace(self._config(output), peers=(endpoint_of(self.seed),))
        )
        self.gone.append(weakref.ref(torrent))
        stream = torrent.events()
        await fate(torrent)
        del stream  # unread
        await self.session.remove(torrent, delete_data=fate != self._fails)

    async def _completes(self, torrent: Torrent) -> None:
        async with asyncio.timeout(300):
            await torrent.wait_complete()

    async def _leaves_early(self, torrent: Torrent) -> None:
        await asyncio.sleep(0.1)

    async def _moves(self, torrent: Torrent) -> None:
        await self._completes(torrent)
        await torrent.pause()
        await torrent.recheck()
        await torrent.move(self.place.folder / "moved")
        await torrent.rename_file(0, "another")

    async def _fails(self, torrent: Torrent) -> None:
        for _ in range(3):
            with pytest.raises(BitTorrentError):
                await self._completes(torrent)

    async def _changes(self, torrent: Torrent) -> None:
        for url in (DEAD, LIVE, "http://third.example/announce"):
            torrent.change(trackers=((url,),), web_seeds=(url,))
            torrent.announce_now()
            await asyncio.sleep(2)

    async def _attack(self, number: int, attack: Attack) -> None:
        with contextlib.suppress(OSError, PeerTimeout, ExpectationFailed, TimeoutError):
            async with asyncio.timeout(30):
                peer = await ScriptedPeer.connect(self._hosts[number], endpoint_of(self.host))
                try:
                    await attack(Visit(self.place, peer, number, random.Random(number)))
                finally:
                    peer.close()

    def _clear_records(self) -> None:
        """Forget what only tests want to know."""
        self._trackers.heard.clear()
        self._trackers.hashes.clear()
        self._web.requests.clear()
        self.place.network.attempts.clear()
        self.place.network.datagram_lengths.clear()
        for socket in self.session._gateway.sockets:
            assert isinstance(socket, SimSocket)
            socket.received.clear()
        shutil.rmtree(self.place.folder / "new", ignore_errors=True)

    def measure(self) -> Counter[str]:
        """Return the lengths of all containers of the session."""
        gc.collect()
        session = self.session
        # The world, and this test.
        beyond = (session._network, session._loop, session._group, self._nodes, self.place)
        return measure(*beyond, session=session)


@pytest.mark.parametrize(
    ("num_rounds", "num_attacks"),
    [(1, 6), pytest.param(20, len(ATTACKS), marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
@simulated(limit=1e9)
async def test_nothing_grows_with_age(
    loop: VirtualLoop, num_rounds: int, num_attacks: int, tmp_path: Path
) -> None:
    attacks = loop.random.sample(ATTACKS, num_attacks)
    async with Place(loop, tmp_path, num_pieces=8, is_traced=False) as place:
        life = Life(place, attacks)
        await life.begin()
        sizes: list[Counter[str]] = []
        for _ in range(NUM_WARM + NUM_MEASURED):
            for _ in range(num_rounds):
                await life.live()
            sizes.append(life.measure())
            assert [each() for each in life.gone] == [None] * len(life.gone)
            life.gone.clear()
        measured = sizes[NUM_WARM:]
        growing = {
            path: [each[path] for each in measured]
            for path in measured[-1]
            if not path.endswith(SWEPT)
            and all(
                after[path] >= before[path] + num_rounds
                for before, after in itertools.pairwise(measured)
            )
        }
        assert not growing
