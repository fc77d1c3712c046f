"""What a session may be told to do, in random order, by several callers at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittern.core.errors import ConfigError, StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.torrent import Torrent
from bittern.storage.adopt import ReuseHow
from bittern.testing.disk import SimWorker
from tests.engine.sources.fake_tracker import URL
from tests.engine.web import BASE
from tests.sim.told import WatchedSession
from tests.sim.unreliable import OF_MOVES, UnreliableCalls
from tests.sim.works import content_of

if TYPE_CHECKING:
    from tests.sim.verbs import World

PATIENCE = 300.0
"""Virtual seconds within which any order is carried out."""

_WEIGHTS = {
    "add": 10,
    "remove": 4,
    "start": 3,
    "pause": 3,
    "resume": 4,
    "recheck": 4,
    "move": 4,
    "rename": 4,
    "select": 3,
    "change": 2,
    "change_session": 1,
    "look": 2,
    "name_peers": 4,
    "wait": 2,
    "stop": 0.3,
    "forget": 0.5,
    "slow": 1,
}
"""How often each order is given; the method of that name carries it out."""


class Orders:
    """
    A session and the orders for it; ``call`` gives them.

    Attributes:
        world: where it lives.
        rng: decides.
        calls: its disk.
        worker: its storage jobs.
        last: by work, the settings of the torrent that was last in a session.
        deleted: torrents whose data was to be deleted.
        forgotten: torrents, and names of works, of which the state folder was to know no more.
        log: what has happened.
    """

    world: World
    root: Path
    rng: random.Random
    calls: UnreliableCalls
    worker: SimWorker

    def __init__(self) -> None:
        self.last: dict[str, TorrentConfig] = {}
        self.deleted: set[Torrent] = set()
        self.forgotten: set[Torrent | str] = set()
        self.log: list[str] = []

    @property
    def session(self) -> WatchedSession:
        """The one that lives now."""
        raise AssertionError("an actor has one")

    @property
    def outputs(self) -> list[Path]:
        """Folders for files."""
        return [self.root / name for name in ("one", "two", "three")]

    def note(self, text: str) -> None:
        """Keep what happens, for whoever has to find out why."""
        self.log.append(f"{self.world.loop.time():.4f} {self.root.name}: {text}")

    async def call(self) -> None:
        """Give orders, one after the other."""
        rng = self.rng
        names, weights = zip(*_WEIGHTS.items(), strict=True)
        while True:
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.01, 0.1, 1.0]))
            name = rng.choices(names, weights)[0]
            await self.order(name, getattr(self, f"_do_{name}"))

    async def order(self, name: str, job: Callable[[], Any]) -> None:
        """Give one order; maybe do not wait for its end."""
        task = self.world.loop.create_task(job(), name=name)
        is_cancelled = False
        try:
            if self.rng.random() < 0.25:
                for _ in range(self.rng.choice([0, 1, 2, 3, 5, 8])):
                    await asyncio.sleep(0)
                await asyncio.sleep(self.rng.choice([0.0, 0.0, 0.001, 0.05, 1.0]))
                is_cancelled = task.cancel()
            done, _ = await asyncio.wait([task], timeout=PATIENCE)
            assert done, f"{name} is not over after {PATIENCE:g} s"
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            raise
        if task.cancelled():
            assert is_cancelled, f"{name} was cancelled by nobody"
            self.note(f"{name}: given up")
            return
        error = task.exception()
        if error is not None:
            self.note(f"{name}: {error!r}")
            self._judge(name, error)

    def _judge(self, name: str, error: BaseException) -> None:
        """Accept an error that is documented, where there is a reason for it."""
        if isinstance(error, ConfigError):
            return
        if isinstance(error, StorageError) and "a bug" not in str(error):
            is_known = "something is there already" in str(error)
            if self.calls.faults or is_known:
                return
        raise AssertionError(f"{name}: {error!r}") from error

    def _name(self, torrent: Torrent) -> str:
        number = list(self.session.ever).index(torrent)
        return f"{self.world.work_of(torrent).name}#{number}"

    def _any_torrent(self) -> Torrent | None:
        """Choose a torrent, rarely one that was removed already."""
        known = self.session.torrents
        if not known or self.rng.random() < 0.05:
            known = list(self.session.ever)
        return self.rng.choice(known) if known else None

    async def _do_add(self) -> None:
        rng = self.rng
        work = rng.choice(self.world.works)
        last = self.last.get(work.name)
        known = [t for t in self.session.ever if self.world.work_of(t) is work]
        if known:
            last = known[-1].config
        is_back = last is not None and rng.random() < 0.8
        files = None
        if rng.random() < 0.2:
            stored = [i for i, e in enumerate(work.metainfo.info.files) if not e.is_pad]
            files = frozenset(rng.sample(stored, rng.randint(0, len(stored))))
        link = rng.choice(work.links)
        source = link if rng.random() < 0.3 else work.raw
        output = last.output if is_back and last is not None else rng.choice(self.outputs)
        self.note(f"add {work.name} {'by link ' if source is link else ''}in {output.name}")
        torrent = await self.session.add(
            source,
            TorrentConfig(
                output=output,
                paused=rng.random() < 0.2,
                files=files,
                sequential=rng.random() < 0.2,
                reuse_session=rng.random() < 0.5,
                reuse_from=tuple(rng.sample(self.outputs, rng.choice([0, 0, 1]))),
                reuse_how=rng.choice(list(ReuseHow)),
                trackers=((URL,),) if rng.random() < 0.5 else (),
                web_seeds=(BASE,) if rng.random() < 0.3 else (),
                skip_check=rng.random() < 0.1,
                peers=tuple(self.world.endpoints) if rng.random() < 0.8 else (),
            ),
        )
        assert torrent in self.session.ever

    async def _do_remove(self) -> None:
        torrent = self._any_torrent()
        if torrent is None:
            return
        deletes, keeps = self.rng.random() < 0.4, self.rng.random() < 0.4
        self.note(f"remove {self._name(torrent)} {deletes=} {keeps=}")
        deleted = set(self.deleted)
        if deletes:
            work, output = self.world.work_of(torrent), torrent.config.output
            self.deleted.update(
                other
                for other in self.session.ever
                if other not in self.session.torrents
                and self.world.work_of(other) is work
                and other.config.output == output
            )
            self.deleted.add(torrent)
        if not keeps:
            self.forgotten.add(torrent)
        try:
            await self.session.remove(torrent, delete_data=deletes, keep_state=keeps)
        except ConfigError:  # it has come back, or all is over
            self.deleted &= deleted
            raise
        assert torrent.state is TorrentState.STOPPED
        work = self.world.work_of(torrent)
        if not any(self.world.work_of(other) is work for other in self.session.torrents):
            assert torrent.roster is None
            if deletes and torrent.shelf.has_metainfo:
                left = [str(p) for p in work.paths(torrent.config) if p and content_of(p)]
                assert not left, f"deleted, but there: {left}"

    async def _do_start(self) -> None:
        if torrent := self._any_torrent():
            self.note(f"start {self._name(torrent)}")
            await torrent.start(force_check=self.rng.random() < 0.3)

    async def _do_pause(self) -> None:
        if torrent := self._any_torrent():
            self.note(f"pause {self._name(torrent)}")
            await torrent.pause()

    async def _do_resume(self) -> None:
        if torrent := self._any_torrent():
            self.note(f"resume {self._name(torrent)}")
            await torrent.resume()

    async def _do_recheck(self) -> None:
        if torrent := self._any_torrent():
            self.note(f"recheck {self._name(torrent)}")
            await torrent.recheck()

    async def _do_move(self) -> None:
        if torrent := self._any_torrent():
            output = self.rng.choice(self.outputs)
            self.note(f"move {self._name(torrent)} to {output.name}")
            await torrent.move(output)

    async def _do_rename(self) -> None:
        if torrent := self._any_torrent():
            work = self.world.work_of(torrent)
            index = self.rng.randrange(len(work.files))
            folder = self.rng.choice(["", f"{work.name}.d/"])
            path = f"{folder}{work.name}-{index}-{self.rng.randrange(3)}"
            self.note(f"rename {self._name(torrent)} {index} {path}")
            await torrent.rename_file(index, path)

    async def _do_select(self) -> None:
        if torrent := self._any_torrent():
            work, rng = self.world.work_of(torrent), self.rng
            stored = [i for i, e in enumerate(work.metainfo.info.files) if not e.is_pad]
            chosen = rng.sample(stored, rng.randint(0, len(stored)))
            files = rng.choice([None, frozenset(chosen)])
            self.note(f"select {self._name(torrent)} {files}")
            torrent.change(files=files, priorities=dict.fromkeys(chosen[:1], rng.randint(1, 7)))

    async def _do_change(self) -> None:
        if torrent := self._any_torrent():
            rng = self.rng
            self.note(f"change {self._name(torrent)}")
            torrent.change(
                sequential=rng.random() < 0.5,
                super_seeding=rng.random() < 0.2,
                max_download_rate=rng.choice([None, 20_000, 1_000_000]),
                max_upload_rate=rng.choice([None, 20_000]),
                max_connections=rng.choice([None, 1, 5]),
                upload_slots=rng.choice([None, 1]),
                trackers=rng.choice([(), ((URL,),)]),
                web_seeds=rng.choice([(), (BASE,)]),
            )

    async def _do_change_session(self) -> None:
        rng = self.rng
        self.note("change session")
        self.session.change(
            max_download_rate=rng.choice([None, 50_000]),
            max_upload_rate=rng.choice([None, 50_000]),
            max_connections=rng.choice([1, 500]),
            upload_slots=rng.choice([1, 8]),
        )

    async def _do_look(self) -> None:
        for torrent in list(self.session.ever):
            torrent.stats()
            torrent.peers()
            torrent.web_seeds()
            torrent.sources()
            torrent.trackers()
            torrent.diagnose()
            assert len(torrent.file_progress()) in (0, len(self.world.work_of(torrent).files))
            assert torrent.num_left >= 0

    async def _do_name_peers(self) -> None:
        if torrent := self._any_torrent():
            torrent.add_peers(self.rng.sample(self.world.endpoints, 1), "user")
            torrent.announce_now()

    async def _do_wait(self) -> None:
        if torrent := self._any_torrent():
            with suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await torrent.wait_complete()
            if torrent.is_complete and torrent.config.files is None and torrent.swarm is not None:
                self._check_whole(torrent)

    def _check_whole(self, torrent: Torrent) -> None:
        """Prove that the files of a torrent are there, under their names, unless it is moving."""
        if torrent._condition.lock.locked() or self.calls.faults & OF_MOVES:
            return
        if torrent in self.session.believing:
            return
        work = self.world.work_of(torrent)
        paths = work.paths(torrent.config)
        for index, (path, data) in enumerate(zip(paths, work.files, strict=True)):
            assert path is None or path == torrent.path_of(index)
            assert path is None or path.read_bytes() == data, f"{path} is not whole"

    async def _do_stop(self) -> None:
        if torrent := self._any_torrent():
            self.note(f"stop {self._name(torrent)}")
            await torrent.stop()

    async def _do_forget(self) -> None:
        work = self.rng.choice(self.world.works)
        info = work.metainfo.info
        if not any(self.world.work_of(torrent) is work for torrent in self.session.torrents):
            self.note(f"forget {work.name}")
            self.forgotten.add(work.name)
            await self.session.forget([info.wire_hash])

    async def _do_slow(self) -> None:
        self.worker.delay = self.rng.choice([0.0, 0.001, 0.01, 0.3])
        self.note(f"jobs take {self.worker.delay:g} s")
