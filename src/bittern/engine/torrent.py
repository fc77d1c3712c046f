"""
One torrent of a session: its life from being added to being removed.

Holds what is there whether the torrent runs or not: metainfo, settings, state,
which pieces we have, totals, listeners. While it runs, the swarm and the
tracker announcer do the work; this module starts and stops them and carries
their news to the outside.

Sources: BEP 3; threats.md F6 (volume missing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Unpack

from bittern.codec.info import Info
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError, InputError, StorageError
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.engine import changes, events, moving
from bittern.engine.awake import Awake, part, use_web_seeds, wake
from bittern.engine.condition import Condition
from bittern.engine.config import TorrentConfig, check_peers
from bittern.engine.events import Event, TorrentState
from bittern.engine.ledger import Ledger
from bittern.engine.listeners import EventStream, Listeners
from bittern.engine.metadata import MetadataPhase, find_kept, is_enough, learn
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.reasons.diagnosis import Diagnosis
from bittern.engine.reasons.examination import diagnose
from bittern.engine.reasons.stall import StallWatch
from bittern.engine.rest import IdleClock
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceStatus
from bittern.engine.sources.finder import PeerFinder
from bittern.engine.sources.trackers import TrackerStatus
from bittern.engine.stats import (
    PeerInfo,
    TorrentStats,
    WebSeedInfo,
    describe_peers,
    describe_web_seeds,
    file_progress,
    measure,
)
from bittern.engine.store.content import check_choice, wanted_bits
from bittern.engine.torrent_services import TorrentServices
from bittern.policy.candidates import Candidates
from bittern.policy.peer_book import NEIGHBOURS
from bittern.policy.picker import Picker


class Torrent:
    """
    One torrent of a session; made by ``Session.add``. ``config`` has the settings that hold.

    Methods are called on the session's event loop. Those that start, check, move or rename raise
    ``ConfigError`` once it was removed.
    """

    def __init__(
        self, services: TorrentServices, source: Metainfo | Magnet, config: TorrentConfig
    ) -> None:
        self._services = services
        self.shelf: Shelf = Shelf(source)
        """What it is called and made of."""
        self.config: TorrentConfig = config
        self._condition = Condition(self.report, services.disk, is_paused=config.paused)
        self.listeners: Listeners = Listeners()
        self._stall = StallWatch()
        self._finder = PeerFinder(self, services)
        self.metadata_phase: MetadataPhase | None = None
        self._awake: Awake | None = None
        self.ledger: Ledger = Ledger(self.shelf.num_pieces)
        """What is there, what is wanted, what was moved."""
        self._idle_clock = IdleClock(services, can_rest=services.journal is not None)
        self.num_checked: int = 0
        self._was_resumed = False
        if self.shelf.has_metainfo:
            check_choice(config, self.info)

    @property
    def candidates(self) -> Candidates:
        """Known endpoints."""
        return self._finder.candidates

    # --- what it is ----------------------------------------------------------------------

    @property
    def swarm(self) -> Swarm | None:
        """The part that moves pieces, while it runs."""
        return None if self._awake is None else self._awake.swarm

    @property
    def metainfo(self) -> Metainfo | None:
        """The metainfo, None while unknown; that of a torrent at rest is read from disk."""
        return self.shelf.metainfo() if self.shelf.has_metainfo else None

    @property
    def info(self) -> Info:
        """The info dictionary; MetainfoError while it is unknown."""
        return self.shelf.metainfo().info

    @property
    def name(self) -> str:
        """The torrent's name as its maker gave it; not safe to print or to use as a path."""
        return self.shelf.name

    @property
    def info_hash(self) -> InfoHash | None:
        """The v1 info hash, None for a v2 torrent."""
        return self.shelf.info_hash

    @property
    def info_hash_v2(self) -> InfoHashV2 | None:
        """The v2 info hash, None for a v1 torrent."""
        return self.shelf.info_hash_v2

    @property
    def state(self) -> TorrentState:
        """What it is at."""
        return self._condition.state

    @property
    def error(self) -> BitTorrentError | None:
        """What stopped it; None while nothing did."""
        return self._condition.error

    @property
    def is_resting(self) -> bool:
        """True while everything is there and nobody is connected; little is kept in memory."""
        return self.is_complete and self._awake is None

    @property
    def all_hashes(self) -> tuple[InfoHash, ...]:
        """Every 20-byte hash that handshakes may name, ours first (BEP 52)."""
        return self.shelf.all_hashes

    @property
    def is_complete(self) -> bool:
        """True when everything wanted is there."""
        return self._condition.is_complete

    def stats(self) -> TorrentStats:
        """Return the numbers of this instant; all lengths are 0 before the metadata is known."""
        return measure(self)

    @property
    def roster(self) -> Roster | None:
        """The connections, while the torrent runs."""
        at_work = self.swarm or self.metadata_phase
        return None if at_work is None else at_work.roster

    @property
    def num_downloaded(self) -> int:
        """Bytes of blocks received in this and earlier runs."""
        return self.ledger.num_downloaded

    @property
    def num_uploaded(self) -> int:
        """Bytes of blocks sent in this and earlier runs."""
        return self.ledger.num_uploaded

    @property
    def have_bits(self) -> int:
        """The bitfield of the pieces we have (BEP 3) as a number, piece 0 being its highest bit."""
        return self.ledger.have

    @property
    def num_left(self) -> int:
        """Bytes still wanted; all of them count as 1 byte while the metadata is unknown."""
        if not self.shelf.has_metainfo:
            return 1
        return self.shelf.length_of(self.ledger.wanted & ~self.ledger.have)

    def file_progress(self) -> list[int]:
        """Return, by index, the verified bytes of each file; none while the metadata is unknown."""
        if not self.shelf.num_pieces:
            return []
        return file_progress(self.info, self.have_bits)

    def peers(self) -> list[PeerInfo]:
        """Return the connected peers."""
        return describe_peers(self.roster)

    def web_seeds(self) -> list[WebSeedInfo]:
        """Return the web seeds that may be used; none while the torrent does not run (BEP 19)."""
        return describe_web_seeds(self.sources(), self.swarm)

    def events(self, *, trace: bool = False) -> EventStream:
        """
        Return a stream of what happens from this call on, until the torrent is removed.

        Args:
            trace: single protocol messages as well, of connections made from now on.
        """
        return self.listeners.listen(trace=trace)

    async def wait_complete(self) -> None:
        """
        Wait until everything wanted is there and verified.

        Raises:
            StorageError: our disk failed; the torrent is in ``TorrentState.ERROR``.
            ConfigError: it was removed from its session.
        """
        await self._condition.wait_complete()

    # --- running -------------------------------------------------------------------------

    async def start(self, *, force_check: bool = False) -> None:
        """
        Find out what is there and join the swarm; returns once that is done.

        Args:
            force_check: hash all that is on disk, whatever the journal says.
        """
        self._condition.check_open()
        async with self._condition.lock:
            await self._start(force_check=force_check)

    async def _start(self, *, force_check: bool = False) -> None:
        if self.error is not None:
            await self._leave()  # what has failed may not have ended yet
        if self.roster is not None or self._condition.was_closed:
            return
        self._condition.begin()
        try:
            with self._condition.starting():
                kept = await find_kept(self._services.journal, self.shelf)
                if kept is not None and is_enough(kept.info, kept.piece_layers):
                    learn(self, kept.info.raw, kept.piece_layers, self._services.hashes_learned)
                roster = Roster(self, self._services, self.config, self.shelf, self.candidates)
                if self.shelf.has_metainfo:
                    await self._wake(roster, force_check=force_check)
                else:
                    self._wait_for_metadata(roster, kept)
        except (StorageError, InputError) as error:
            self._failed(error)
            await self._leave()

    def _wait_for_metadata(self, roster: Roster, kept: Metainfo | None) -> None:
        shelf, services = self.shelf, self._services
        self.metadata_phase = MetadataPhase(self, services, roster, shelf, services.journal, kept)
        self._condition.enter(TorrentState.METADATA)
        self._services.active[self] = None
        self._finder.start(self._services.sources, self.config)

    def metadata_received(self, raw: bytes, piece_layers: Mapping[bytes, bytes]) -> None:
        """Go on as a torrent whose metadata is known."""
        self._services.spawn(self._learn(raw, piece_layers), f"metadata of {self.name}")

    async def _learn(self, raw: bytes, piece_layers: Mapping[bytes, bytes]) -> None:
        async with self._condition.lock:
            phase = self.metadata_phase
            if phase is None:
                return
            try:
                with self._condition.starting():
                    learn(self, raw, piece_layers, self._services.hashes_learned)
                    self._finder.metadata_known()
                    await self._wake(phase.roster)  # the phase keeps connections meanwhile
            except (StorageError, InputError) as error:
                self._failed(error)
                await self._leave()

    async def _wake(self, roster: Roster, *, force_check: bool = False) -> None:
        if not self.is_complete:
            self._condition.enter(TorrentState.CHECKING)
        self.num_checked = 0
        force_check = self._condition.begin_check(is_forced=force_check)
        if not self._was_resumed:
            kept = await moving.with_kept_names(self._services, self.shelf, self.config)
            self.config = moving.placed(self.config, kept)
        config = self.config = changes.when_checked(self.config, is_forced=force_check)
        awake = await wake(
            self,
            self._services,
            self.shelf,
            config,
            roster,
            force_check=force_check,
            progress=self._check_progressed,
            is_stopped=lambda: self._condition.is_called_off,
        )
        self.ledger.have = awake.found.have
        is_first, self._was_resumed = not self._was_resumed, True
        if is_first:
            found = awake.found
            self.ledger.resume(downloaded=found.downloaded, uploaded=found.uploaded)
        self._awake, self.metadata_phase = awake, None
        if self._condition.end_check(can_go_on=awake.found.can_go_on):
            await self._leave()
            return
        self._use_web_seeds(awake.swarm)
        self.ledger.open(awake.swarm)
        for peer in list(roster.peers):
            awake.swarm.take_over(peer)
        self.apply_settings(config)  # what has been changed meanwhile
        self._join(awake.swarm.picker, is_first=is_first)

    def _join(self, picker: Picker, *, is_first: bool) -> None:
        # Whoever starts complete and knows nobody may rest at once; a connection rouses it.
        knows_nobody = not (self.num_connections or self.config.peers or len(self.candidates))
        self._idle_clock.start(knows_nobody=is_first and picker.is_complete and knows_nobody)
        was_complete = self.is_complete  # at rest until now
        self._settle(picker)
        if picker.is_complete and not was_complete:
            self.report(events.TorrentCompleted())
        self._services.active[self] = None
        self._finder.start(self._services.sources, self.config)

    async def recheck(self) -> None:
        """
        Hash all that is there, missing volume or not, and go on from that.

        Raises:
            StorageError: the disk failed.
        """
        self._condition.check_open()
        async with self._condition.leaving():
            with self._condition.starting():
                await self._condition.end(self._leave, TorrentState.CHECKING)
                await self._start(force_check=True)
        self._condition.raise_error()

    async def pause(self) -> None:
        """
        Leave the swarm but stay in the session; a check is called off, and done when resumed.

        One that an error has stopped keeps it, and is not tried again by itself.
        """
        async with self._condition.leaving():
            await self._condition.end(self._leave, TorrentState.PAUSED)

    async def resume(self) -> None:
        """Join the swarm again after ``pause`` or an error, which is forgotten."""
        await self.start()

    async def move(self, output: Path) -> None:
        """
        Move the content to another folder and go on there.

        Raises:
            StorageError: it cannot be moved, or there is something in its place; nothing was.
        """
        await self._relocate(lambda config: moving.in_folder(config, output))

    async def rename_file(self, index: int, path: str) -> None:
        """
        Give a file another name, or a place in another folder; kept in the state folder.

        Args:
            index: of the file.
            path: below the output folder, its elements joined by ``/``.

        Raises:
            ConfigError: there is no such file, or the path is unsafe or another file's.
            StorageError: as ``move``.
        """
        await self._relocate(lambda config: moving.under_name(self.shelf, config, index, path))

    async def _relocate(self, change: Callable[[TorrentConfig], TorrentConfig]) -> None:
        self._condition.check_open()
        change(self.config)  # what cannot be is said before anything stops
        async with self._condition.leaving():
            was_running = self.roster is not None or self._condition.is_running
            try:
                if was_running:
                    await self._condition.end(self._leave, TorrentState.CHECKING)
                await moving.move(self._services, self, change)
            finally:
                if was_running:
                    await self._start()

    async def stop(self) -> None:
        """Leave the swarm for good; events end. Idempotent."""
        self._condition.was_closed = True
        async with self._condition.leaving():
            await self._condition.end(self._leave, TorrentState.STOPPED)
        self.listeners.close()

    async def delete_data(self) -> None:
        """Remove the torrent's files, and nothing else; the torrent must be stopped."""
        await moving.delete_content(self._services, self.shelf, self.config)

    async def _leave(self) -> None:
        """Stop the swarm and let go of the files; totals and pieces are kept."""
        try:
            part(self.roster, self.swarm)
            await self._finder.stop()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        if self.metadata_phase is not None:
            self.metadata_phase.stop()
            self.metadata_phase = None
        awake, self._awake = self._awake, None
        if awake is not None:
            self.ledger.close()
            await awake.sleep(self._services, self.ledger)
            if (journal := self._services.journal) and awake.keeper.has_kept_metainfo:
                self.shelf.put_away(journal.metainfo_path(self.all_hashes[0]))
            self._finder.let_go()

    def _check_progressed(self, num_checked: int) -> None:
        if self.state is TorrentState.CHECKING:
            self.num_checked = num_checked
            self.report(events.CheckProgressed(num_checked, self.shelf.num_pieces))

    # --- settings ------------------------------------------------------------------------

    def add_peers(
        self, endpoints: Iterable[Endpoint], source: str, from_host: str | None = None
    ) -> None:
        """
        Take note of peers.

        Args:
            endpoints: where they accept connections.
            source: as in ``events.PeersFound``.
            from_host: the address of whoever named them; None for the user.
        """
        if found := check_peers(endpoints) if from_host is None else list(endpoints):
            num_new = self._finder.add(found, source, from_host)
            self.report(events.PeersFound(source, len(found)))
            if num_new or source not in NEIGHBOURS:  # those we know announce over and over
                self.rouse()
            self._services.request_dial()

    def trackers(self) -> list[TrackerStatus]:
        """Return the state of every tracker."""
        return self._finder.trackers()

    async def scrape(self) -> list[TrackerStatus]:
        """Ask every tracker how large its swarm is (BEP 48), and return the state of each."""
        return await self._finder.scrape()

    def sources(self) -> list[SourceStatus]:
        """Return the state of every source of peers; none while the torrent does not run."""
        return self._finder.statuses()

    def diagnose(self) -> Diagnosis:
        """Return all that is known of why the torrent does what it does, or nothing."""
        return diagnose(self, self._services, retry_at=self._condition.retry_at)

    def announce_now(self) -> None:
        """Ask trackers and other sources for peers again, as soon as their rules allow."""
        self._finder.ask_now()

    def change(self, **settings: Unpack[changes.TorrentChanges]) -> None:
        """
        Change settings, from now on; ``config`` tells what holds.

        Raises:
            ConfigError: a value is outside its range, or there is no such file; nothing changes.
        """
        before = self.config
        config = self.config = changes.change_torrent(before, settings, self.shelf)
        if config.trackers != before.trackers:
            self._finder.set_trackers(config)
        if config.web_seeds != before.web_seeds:
            if self.swarm is not None:
                self._use_web_seeds(self.swarm)
            self._finder.set_web_seeds(config)
        self.apply_settings(before)

    def _use_web_seeds(self, swarm: Swarm) -> None:
        metainfo = self.shelf.metainfo()
        use_web_seeds(swarm, self._services, metainfo, self.config, self.ledger)

    def apply_settings(self, before: TorrentConfig) -> None:
        """Let ours, and the session's, hold where ``before`` did."""
        session, is_new = self._services.config, changes.is_chosen_anew(self.config, before)
        if self.swarm is not None:
            changes.apply_to_swarm(self.swarm, self.config, before, session)
            if is_new and self._condition.is_at_work:
                self._settle(self.swarm.picker)
            return
        if self.roster is not None:
            changes.apply_to_roster(self.roster, self.config, session)
        if is_new and self.shelf.has_metainfo:
            self.ledger.wanted = wanted_bits(self.info, self.config)
            if self.num_left and self.rouse():
                self._condition.enter(TorrentState.CHECKING)

    def _settle(self, picker: Picker) -> None:
        is_complete = self.candidates.is_seeding = picker.is_complete
        self._condition.enter(TorrentState.SEEDING if is_complete else TorrentState.DOWNLOADING)

    @property
    def num_connections(self) -> int:
        """Connections, those in handshake too, and to web seeds."""
        roster, swarm = self.roster, self.swarm
        num_peers = 0 if roster is None else len(roster.peers)
        return num_peers if swarm is None else num_peers + swarm.web_seeds.num_active

    # --- what the swarm tells ------------------------------------------------------------

    @property
    def is_tracing(self) -> bool:
        """True while somebody wants single protocol messages."""
        return self.listeners.is_tracing

    @property
    def is_private(self) -> bool:
        """True when only the torrent's own trackers may name peers (BEP 27)."""
        return self.shelf.is_private

    def report(self, event: Event) -> None:
        """Tell the listeners, and other torrents of a file that they may lack."""
        self.listeners.report(event)
        if isinstance(event, events.FileCompleted):
            self._services.file_completed(self, event.index)

    def path_of(self, index: int) -> Path | None:
        """Return where a file is; None while the torrent does not run."""
        return None if self._awake is None else self._awake.content.storage.path_of(index)

    def take_file(self, names: Set[bytes], path: Path) -> None:
        """Take what is missing of the files with one of these fingerprints from another one."""
        if self._awake is not None:
            self._awake.borrower.take(names, path)

    def peer_opened(self, peer: PeerConnection) -> None:
        """Count the addresses met; read no further while the disk cannot follow (Limit: F16)."""
        if self.swarm is not None and self._services.disk.is_congested:
            peer.stream.pause_reading()
        self._idle_clock.start()
        self.ledger.meet(peer.endpoint.host)

    def tick(self, *, now: float) -> None:
        """Do what is due; called by the session about once a second."""
        at_work = self.swarm or self.metadata_phase
        if at_work is not None:
            at_work.tick(now=now)
        if self.listeners:
            self._stall.tick(self, now=now)
        if self._awake is not None:
            self._awake.tick(self.num_downloaded, self.num_uploaded, now=now)
            is_idle = self.is_complete and not self.num_connections
            if self._idle_clock.is_due(is_idle=is_idle, now=now):
                self._services.spawn(self._rest(), f"rest of {self.name}")
        elif at_work is None:
            self._services.active.pop(self, None)

    async def _rest(self) -> None:
        async with self._condition.lock:
            if self.is_complete and not self.num_connections:
                await self._let_go()

    def rouse(self) -> bool:
        """Wake up from rest, because somebody wants to connect; False if it is not at rest."""
        if self.is_resting and not self._condition.was_closed:
            self._services.spawn(self._condition.rouse(self._start), f"rouse {self.name}")
            return True
        return False

    def pieces_opened(self, pieces: list[int]) -> None:
        """Note pieces before they are written."""
        if self._awake is not None:
            self._awake.keeper.pieces_opened(pieces)

    def piece_lost(self, index: int) -> None:
        """Go back to downloading when a piece has gone from disk."""
        if self._condition.is_at_work and self.swarm and not self.swarm.picker.is_complete:
            self._settle(self.swarm.picker)
        self.report(events.PieceLost(index))

    def swarm_completed(self) -> None:
        """Change to seeding."""
        if self._condition.is_at_work:
            self._condition.enter(TorrentState.SEEDING)
            self._finder.completed()
            self.report(events.TorrentCompleted())

    def swarm_failed(self, error: BitTorrentError) -> None:
        """Leave the swarm: our disk or the torrent is at fault; a full disk is tried again."""
        self._failed(error)
        self._services.spawn(self._after_failure(), f"stop {self.name}")

    def _failed(self, error: BitTorrentError) -> None:
        job, name = self._condition.start_again, f"retry {self.name}"
        self._condition.fail(error, try_again=lambda: self._services.spawn(job(self._start), name))

    async def _after_failure(self) -> None:
        async with self._condition.lock:
            if self.error is not None:  # nobody has started it again meanwhile
                await self._leave()

    def __repr__(self) -> str:
        return f"<Torrent {self.name!r} {self.state.value}>"
