"""
Sessions that are told this and that by several callers at once, and what must hold all the same.

A ``World`` has a seed of a few small torrents and some ``Actor``s. Each of those is a machine with
a session, whose disk may fail, and callers that give it random orders: they do not wait for each
other, change their minds (a task is cancelled where it waits) and do not hear that the session
ends. After each life of a session it is looked at what it leaves, then it begins anew from its
state folder; its files may have been damaged meanwhile. Everything is drawn from the loop's
chance: a seed repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.testing.disk import CachedCalls, SimWorker
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from bittern.testing.peer import ScriptedPeer
from tests.engine.scene import PORT
from tests.engine.web import BASE
from tests.sim.orders import PATIENCE, Orders
from tests.sim.told import WatchedSession, check_events, short
from tests.sim.unreliable import OF_MOVES, UnreliableCalls, UnreliableTracker, UnreliableWeb
from tests.sim.works import SUFFIX, Work, all_works


class Snapshot:
    """
    What is in a folder at an instant: what a program finds that was killed then.

    Args:
        folder: with all that is below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*")
            if path.is_file()
        }

    def restore(self) -> None:
        """Have it all again; what is still there stays the same file."""
        for path in self._folder.rglob("*"):
            if path.is_file() and path not in self._files:
                path.unlink()
        for path, (data, time) in self._files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
            os.utime(path, ns=(time, time))


class Actor(Orders):
    """
    A machine with a session, its files, and those who give it orders.

    Args:
        world: the others.
        name: of its folder.
    """

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.host = world.network.add_host(f"10.0.0.{len(world.actors) + 2}")
        self.root = world.folder / name
        self.calls = UnreliableCalls(world.loop)
        self.tracker = UnreliableTracker(world.loop)
        files = {url: data for work in world.works for url, data in work.on_web(BASE).items()}
        self.web = UnreliableWeb(world.loop, files)
        self.rng = random.Random(world.loop.random.random())
        self.suffix = self.rng.choice([None, SUFFIX])
        self.is_killed = self.rng.random() < 0.5
        """Now and then, or else its files are changed. After a kill those that were being written
        may be newer than what is known of them, so that nobody would notice a change."""
        self.worker = SimWorker(world.loop)
        self._session: WatchedSession | None = None
        self.expected: dict[str, int] = {}
        """By work, the pieces that the state folder must know when it is added again."""

    @property
    def session(self) -> WatchedSession:
        assert self._session is not None
        return self._session

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host.addresses[0], PORT)

    # --- a session's life --------------------------------------------------------------------

    def make_session(self) -> WatchedSession:
        """Make a session that is to live in this actor's state folder."""
        loop = self.world.loop
        self.worker = SimWorker(loop, delay=self.rng.choice([0.0, 0.001, 0.05]))
        config = SessionConfig(
            listen_host=self.host.addresses[0],
            listen_port=PORT,
            enable_dht=False,
            enable_lsd=False,
            hashing_threads=1,
            state_dir=self.root / "state",
            part_suffix=self.suffix,
            rest_after=self.rng.choice([1.0, 60.0]),
            checkpoint_interval=self.rng.choice([0.5, 30.0]),
            max_open_files=self.rng.choice([2, 64]),
            preallocate=self.rng.random() < 0.2,
        )
        self._session = WatchedSession(
            config,
            network=self.host,
            rng=random.Random(self.rng.random()),
            random_bytes=self.rng.randbytes,
            worker=self.worker,
            os_calls=self.calls,
            clock=loop.time,
        )
        self._session.client = self.tracker
        self._session.web = self.web
        return self._session

    async def live(self, *, is_faulty: bool) -> None:
        """Run a session through random orders to its end, and look at what it leaves."""
        rng = self.rng
        if rng.random() < 0.1:
            await self.enter_in_vain()
        session = self.make_session()
        self.note(f"--- begins, {'faulty' if is_faulty else 'reliable'}")
        await session.__aenter__()
        self.calls.faults.clear()
        self.deleted.clear()
        self.forgotten.clear()
        await self.take_up()
        if is_faulty:
            self.calls.spoil(session)
            self.calls.fault_rate = rng.choice([0.003, 0.02, 0.1])
            self.calls.slow_rate = rng.choice([0.0, 0.05])
        callers = [
            self.world.loop.create_task(self.call(), name=f"caller {number} of {self.root.name}")
            for number in range(rng.randint(1, 4))
        ]
        await asyncio.sleep(rng.uniform(1.0, 12.0))
        killed = Snapshot(self.root) if self.is_killed and rng.random() < 0.5 else None
        known = dict(self._settings())
        if rng.random() < 0.3:
            await _end(callers)
        await self.close()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await _end(callers)
        self.calls.fault_rate = self.calls.slow_rate = 0.0
        await self.look_at_the_rest()
        if killed is not None:
            self.note("was killed before that")
            killed.restore()
            self.last.update(known)
            self.expected = dict.fromkeys(known, 0)
        if rng.random() < 0.3:
            self.damage()

    def damage(self) -> None:
        """Change, cut or remove a file, as those may to whom it belongs."""
        files = sorted(
            path for output in self.outputs for path in output.rglob("*") if path.is_file()
        )
        if not files:
            return
        path = self.rng.choice(files)
        data = bytearray(path.read_bytes())
        match self.rng.randrange(3):
            case 0:
                path.unlink()
                done = "removes"
            case 1 if data:
                del data[self.rng.randrange(len(data)) :]
                path.write_bytes(data)
                done = "cuts"
            case _ if data and not self.is_killed:
                data[self.rng.randrange(len(data))] ^= 1
                path.write_bytes(data)
                done = "changes"
            case _:
                return
        self.note(f"somebody {done} {path.relative_to(self.root)}")
        for work in self.world.works:
            if work.name in self.expected:
                self.expected[work.name] &= work.right_pieces(self.last[work.name])

    async def enter_in_vain(self) -> None:
        """Have somebody enter a session who does not wait for it."""
        session = self.make_session()
        entering = asyncio.ensure_future(session.__aenter__())
        await asyncio.sleep(self.rng.choice([0.0, 0.0005, 0.01, 0.06]))
        entering.cancel()
        with suppress(asyncio.CancelledError):
            await entering
            await session.__aexit__(None, None, None)
        self.note("was entered in vain")
        assert not self.host.open_things()

    def _settings(self) -> Iterator[tuple[str, TorrentConfig]]:
        """Yield works that are in the session, with the settings of their torrents."""
        for torrent in self.session.torrents:
            yield self.world.work_of(torrent).name, torrent.config

    async def close(self) -> None:
        """End the session; who does so may not wait for it."""
        self.note("closes")
        job = asyncio.ensure_future(self.session.__aexit__(None, None, None))
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.choice([0.0, 0.0, 0.01, 0.3]))
            job.cancel()
        async with asyncio.timeout(PATIENCE):
            with suppress(asyncio.CancelledError):
                await asyncio.shield(job)
        self.note("has closed")

    async def take_up(self) -> None:
        """Add again what was there at the end, and see that nothing is lost."""
        for work in self.world.works:
            expected = self.expected.pop(work.name, None)
            if expected is None or self.rng.random() < 0.1:
                continue
            torrent = await self.session.add(
                self.rng.choice(work.links) if self.rng.random() < 0.3 else work.raw,
                TorrentConfig(output=self.last[work.name].output),
            )
            have = torrent.have_bits
            self.note(f"takes up {work.name}: {have:b} of {expected:b}")
            assert not expected & ~have, f"{work.name}: {expected:b} was there, {have:b} is known"
            right = work.right_pieces(torrent.config)
            assert not have & ~right, f"{work.name}: takes up {have:b}, right are {right:b}"

    async def look_at_the_rest(self) -> None:
        """Prove that a session that has ended left nothing open, and told the truth."""
        session = self.session
        assert not len(session._services.handles), "open files"
        assert not self.host.open_things(), f"open: {self.host.open_things()}"
        assert not self.worker.backlog, "storage jobs"
        assert not self.web.num_open, "requests to web servers"
        assert not session.torrents
        for torrent, (first, stream) in session.ever.items():
            assert torrent.state is TorrentState.STOPPED, f"{torrent!r} at the end"
            told = [event async for event in stream]
            try:
                check_events(told, first)
            except AssertionError as error:
                error.add_note(f"{torrent.name}: " + " ".join(map(short, told)))
                raise
            if not self.calls.faults:
                failed = [e for e in told if isinstance(e, events.StorageFailed)]
                assert not failed, f"{torrent!r} with a disk without faults: {failed}"
        newest = {self.world.work_of(torrent): torrent for torrent in session.ever}
        for work, torrent in newest.items():
            self.last[work.name] = torrent.config
            if torrent in self.deleted:
                continue
            if torrent in session.believing:
                continue
            right = work.right_pieces(torrent.config)
            have = torrent.have_bits if torrent.shelf.has_metainfo else 0
            self.note(f"left {work.name}: has {have:b}, right are {right:b}")
            if not self.calls.faults & OF_MOVES:
                assert not have & ~right, f"{work.name}: has {have:b}, right are {right:b}"
            if not self.forgotten & {torrent, work.name} and not self.calls.faults:
                self.expected[work.name] = have

    # --- the end -----------------------------------------------------------------------------

    async def complete(self) -> None:
        """Add everything once more, with a disk that works, and get all of it."""
        session = self.make_session()
        self.note("--- the last time")
        self.calls.faults.clear()
        await session.__aenter__()
        await self.take_up()
        for work in self.world.works:
            if any(self.world.work_of(torrent) is work for torrent in session.torrents):
                continue
            last = self.last.get(work.name)
            output = self.outputs[0] if last is None else last.output
            torrent = await session.add(work.raw, TorrentConfig(output=output))
            have, right = torrent.have_bits, work.right_pieces(torrent.config)
            assert not have & ~right, f"{work.name}: begins with {have:b}, right are {right:b}"
        for torrent in session.torrents:
            torrent.change(files=None)
            torrent.add_peers([self.world.source], "user")
        for torrent in session.torrents:
            try:
                async with asyncio.timeout(600):
                    await torrent.wait_complete()
            except (TimeoutError, BitTorrentError) as error:
                error.add_note(f"{torrent!r} {torrent.config} {torrent.diagnose()}")
                raise
        await self.close()
        await self.look_at_the_rest()
        for torrent in session.ever:
            work = self.world.work_of(torrent)
            wrong = [
                str(path)
                for path, data in zip(work.paths(torrent.config), work.files, strict=True)
                if path is not None and (not path.is_file() or path.read_bytes() != data)
            ]
            assert not wrong, f"complete, but not: {wrong}"


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, and hear of what went wrong in one."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


class World:
    """
    A seed of all works, actors, and the network between them.

    Args:
        loop: that it runs on.
        folder: for all files.
    """

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.rng = random.Random(loop.random.random())
        self.works = all_works()
        self.network = SimNetwork(loop, link=Link(delay=0.02), is_traced=False)
        self.host: SimHost = self.network.add_host("10.0.0.1", upload_rate=150_000)
        self.source = Endpoint("10.0.0.1", PORT)
        self.actors: list[Actor] = []
        self._works = {
            info_hash: work
            for work in self.works
            for info_hash in (work.metainfo.info.info_hash, work.metainfo.info.info_hash_v2)
            if info_hash is not None
        }

    @property
    def endpoints(self) -> list[Endpoint]:
        """Who may be asked for pieces."""
        return [self.source, *(actor.endpoint for actor in self.actors)]

    @property
    def log(self) -> list[str]:
        """What has happened to all actors, in order."""
        lines = [line for actor in self.actors for line in actor.log]
        return sorted(lines, key=lambda line: float(line.split()[0]))

    def work_of(self, torrent: Torrent) -> Work:
        """Return what a torrent is."""
        known = torrent.info_hash or torrent.info_hash_v2
        assert known is not None
        return self._works[known]

    @asynccontextmanager
    async def seeding(self) -> AsyncIterator[None]:
        """Have a session that seeds everything and is left in peace."""
        folder = self.folder / "source"
        config = SessionConfig(
            listen_host=self.source.host,
            listen_port=PORT,
            enable_trackers=False,
            enable_dht=False,
            enable_lsd=False,
            hashing_threads=1,
        )
        session = Session(
            config,
            network=self.host,
            rng=random.Random(self.rng.random()),
            random_bytes=self.rng.randbytes,
            worker=SimWorker(self.loop),
            os_calls=CachedCalls(),
            clock=self.loop.time,
        )
        async with session:
            for work in self.works:
                work.write(folder)
                await session.add(work.raw, TorrentConfig(output=folder))
            yield

    async def disturb(self) -> None:
        """Cut links, and reset what goes over them."""
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 3.0))
            one, other = self.rng.sample([self.host, *(a.host for a in self.actors)], 2)
            match self.rng.randrange(3):
                case 0:
                    self.network.cut(one, other)
                    await asyncio.sleep(self.rng.uniform(0.1, 5.0))
                    self.network.heal(one, other)
                case 1:
                    for stream in list(one.streams):
                        stream.reset()
                case _:
                    await self._knock(self.rng.choice(self.actors))

    async def _knock(self, actor: Actor) -> None:
        """Connect, say who one is looking for, and leave."""
        work = self.rng.choice(self.works)
        host = self.network.add_host(f"10.1.0.{len(self.network.hosts)}")
        try:
            peer = await ScriptedPeer.connect(host, actor.endpoint)
        except OSError:
            return
        peer.send_handshake(work.metainfo.info.wire_hash, b"-SC0000-" + self.rng.randbytes(12))
        await asyncio.sleep(self.rng.choice([0.0, 0.1, 2.0]))
        peer.close()

    def check_names(self) -> None:
        """Prove that nothing was written but where it belongs."""
        known = {"source", *(actor.root.name for actor in self.actors)}
        assert {path.name for path in self.folder.iterdir()} <= known
        for actor in self.actors:
            allowed = {*(path.name for path in actor.outputs), "state"}
            assert {path.name for path in actor.root.iterdir()} <= allowed
            for output in actor.outputs:
                for path in output.rglob("*") if output.exists() else ():
                    top = path.relative_to(output).parts[0]
                    is_known = any(top.startswith(work.name) for work in self.works)
                    assert is_known, f"{path} is nobody's"


@contextmanager
def no_bug_logged() -> Iterator[None]:
    """Fail when the log tells of a bug."""
    seen: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")

    logger, handler = logging.getLogger("bittern"), Collector(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not seen, seen


async def play(
    loop: VirtualLoop, folder: Path, *, num_actors: int = 2, num_lives: int = 3
) -> list[str]:
    """
    Let actors live through random orders, and complete everything in the end.

    Returns:
        What happened, a line for each order and what came of it.

    Raises:
        AssertionError: something does not hold; the notes say what happened.
    """
    folder.mkdir(exist_ok=True)
    world = World(loop, folder)
    for number in range(num_actors):
        world.actors.append(Actor(world, f"actor{number}"))
    try:
        with no_bug_logged():
            async with world.seeding():
                disturbing = [loop.create_task(world.disturb(), name="disturb")]

                async def live(actor: Actor) -> None:
                    for _ in range(num_lives):
                        await actor.live(is_faulty=actor.rng.random() < 0.5)

                async with asyncio.TaskGroup() as group:
                    for actor in world.actors:
                        group.create_task(live(actor))
                await _end(disturbing)
                for number, one in enumerate(world.network.hosts):
                    for other in world.network.hosts[:number]:
                        world.network.heal(one, other)
                for actor in world.actors:
                    await actor.complete()
        world.check_names()
        await asyncio.sleep(5)  # timers of jobs that the end of a session has run at once
    except BaseException as error:
        error.add_note("\n".join(world.log))
        raise
    return world.log
