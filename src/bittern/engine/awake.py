"""Waking a torrent up: files, hashes, what is there, and the swarm over them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path

from bittern.codec.info import Info
from bittern.codec.metainfo import Metainfo, format_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import Event, FileReused
from bittern.engine.hashes.exchange import HashExchange
from bittern.engine.hashes.layer_maker import LayerMaker
from bittern.engine.hashes.seeker import HashSeeker
from bittern.engine.hashes.server import HashServer
from bittern.engine.ledger import Ledger
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.assembly import Assembly
from bittern.engine.pieces.borrowing import Borrower
from bittern.engine.pieces.repair import Repair
from bittern.engine.pieces.swarm import Swarm, SwarmOwner
from bittern.engine.pieces.web_seeds import choose_web_seeds
from bittern.engine.shelf import Shelf
from bittern.engine.store.content import Content, open_content, wanted_priorities
from bittern.engine.store.keeper import Found, Keeper
from bittern.engine.store.records import make_record
from bittern.engine.store.reuse import reuse_files
from bittern.engine.store.volumes import look_up
from bittern.engine.torrent_services import TorrentServices
from bittern.policy.picker import Picker
from bittern.storage.base import Storage
from bittern.storage.file_paths import Folding
from bittern.storage.resume import Resumed
from bittern.storage.reuse import Reuse
from bittern.storage.volume import probe_folding

log: logging.Logger = logging.getLogger(__name__)

MAX_FOLDINGS = 256
"""Output folders of which it is remembered which names fall together; the latest used stay."""


@dataclass(slots=True)
class Awake:
    """What a torrent has while it moves pieces."""

    content: Content
    keeper: Keeper
    found: Found
    swarm: Swarm
    borrower: Borrower
    """Takes what other torrents complete meanwhile."""
    verifies_before_upload: bool = True
    """Pieces that were not hashed in this session are known, since they are before an upload."""

    def tick(self, downloaded: int, uploaded: int, *, now: float) -> None:
        """Keep what is there when that is due; called about once a second."""
        have = self.swarm.picker.have
        self._tell_hashed()
        self.keeper.tick(have, downloaded=downloaded, uploaded=uploaded, now=now)

    def _tell_hashed(self) -> None:
        if self.verifies_before_upload:
            self.keeper.hashed_all_but(self.swarm.assembly.unverified)

    async def sleep(self, services: TorrentServices, ledger: Ledger) -> None:
        """Stop the swarm, keep what is there and the totals, let go of the files."""
        picker = self.swarm.picker
        partial = self.swarm.assembly.partial_blocks()
        self.borrower.stop()
        self.swarm.stop()
        self._tell_hashed()
        storage = self.content.storage
        try:
            await self.keeper.finish(
                picker.have,
                partial,
                downloaded=ledger.num_downloaded,
                uploaded=ledger.num_uploaded,
            )
        finally:
            try:
                await services.disk.run(storage.close, lane=storage)
            except StorageError as error:  # all is synced, and nothing of it is open any more
                log.warning("closing files of %s: %s", storage.root, error)


def root_of(config: TorrentConfig) -> Path:
    """Return the folder that a torrent's files are below."""
    place = config.output if config.data_path is None else config.data_path.absolute().parent
    return place.absolute()


async def look_for(
    services: TorrentServices,
    metainfo: Metainfo,
    config: TorrentConfig,
    *,
    is_forced: bool = False,
) -> tuple[Resumed | None, Path]:
    """Find out what is known of a torrent and which volume it is on; see ``volumes.look_up``."""
    return await look_up(
        services.disk,
        services.journal,
        metainfo.info.wire_hash,
        root_of(config),
        part_suffix=services.config.part_suffix,
        is_forced=is_forced,
    )


async def locate(services: TorrentServices, metainfo: Metainfo, config: TorrentConfig) -> Content:
    """
    Work out where a torrent's files are on their volume.

    Where that refuses names as Windows does, files may have names all the same that Windows would
    not give them, as ``aux.c``, from another program or from before we asked for that: what was
    begun under these goes on under them.
    """
    folding = await _folding_of(services, root_of(config))
    content = _open(services, metainfo, config, folding)
    if folding.refuses:
        plain = _open(services, metainfo, config, folding._replace(refuses=False))
        if await services.disk.run(lambda: _is_begun(plain, content) > _is_begun(content, plain)):
            return plain
    return content


def _open(
    services: TorrentServices, metainfo: Metainfo, config: TorrentConfig, folding: Folding
) -> Content:
    return open_content(
        metainfo,
        config,
        services.config,
        services.handles,
        folding=folding,
        os_calls=services.os_calls,
    )


def _is_begun(content: Content, other: Content) -> bool:
    """Tell whether a file is there that has another name in the other one."""
    for index, path in enumerate(content.paths):
        if path and path != other.paths[index]:
            with suppress(StorageError):  # a name that the volume does not take
                if content.storage.stat_file(index) is not None:
                    return True
    return False


async def _folding_of(services: TorrentServices, root: Path) -> Folding:
    """Ask each folder which names fall together there (P10), and remember the latest answers."""
    known = services.folding.pop(root, None)
    if known is None:
        known = await services.disk.run(lambda: probe_folding(root))
    services.folding[root] = known
    if len(services.folding) > MAX_FOLDINGS:
        del services.folding[next(iter(services.folding))]
    return known


async def wake(
    owner: SwarmOwner,
    services: TorrentServices,
    shelf: Shelf,
    config: TorrentConfig,
    roster: Roster,
    *,
    force_check: bool,
    progress: Callable[[int], None],
    is_stopped: Callable[[], bool],
) -> Awake:
    """
    Find out what is on disk and make a swarm over it.

    Args:
        owner: the torrent.
        services: of the session.
        shelf: has the metainfo, and takes piece layers that peers bring (BEP 52).
        config: of the torrent.
        roster: its connections.
        force_check: hash everything, whatever the journal says.
        progress: told on the loop how many pieces have been hashed.
        is_stopped: asked from threads; True ends hashing early.

    Raises:
        MetainfoError: the metainfo cannot be read back.
        VolumeMissing: the files are on one that is not mounted; not with ``force_check``.
        StorageError: files cannot be made or read.
        Inconsistent: the halves of a hybrid want different bytes (P13).
    """
    metainfo = shelf.take()
    info = metainfo.info
    known, volume = await look_for(services, metainfo, config, is_forced=force_check)
    content = await locate(services, metainfo, config)
    storage = content.storage
    keeper = _make_keeper(services, metainfo, content, config, volume)
    with _closed_on_failure(services, storage):
        found = await keeper.find(
            known,
            skip_check=config.skip_check and not force_check,
            force_check=force_check,
            progress=progress,
            is_stopped=is_stopped,
        )
        found = await _reuse(owner, services, info, config, content, found, is_stopped)
        await _prepare(services, content, config, Bitfield(info.geometry.num_pieces, found.have))
    swarm = _make_swarm(owner, services, content, found, metainfo, config, roster)
    keeper.piece_is_bad = swarm.assembly.piece_is_bad
    if info.has_v2:

        def layers_done() -> None:
            known = replace(metainfo, piece_layers=dict(content.hashes.piece_layers))
            shelf.put(known)
            keeper.keep_metainfo(format_metainfo(known))

        exchange = make_exchange(
            services,
            swarm,
            content,
            damaged=found.damaged,
            report=owner.report,
            layers_done=layers_done,
        )
        swarm.extensions.hashes = exchange
        if content.has_more_layers(metainfo):
            layers_done()  # what was on disk, here or elsewhere, has brought the last of them
        swarm.assembly.judge_blocks(exchange.seeker.fetch_block_hashes)
    borrower = _make_borrower(owner, services, swarm, content, info)
    return Awake(content, keeper, found, swarm, borrower, services.config.verify_before_upload)


async def _prepare(
    services: TorrentServices, content: Content, config: TorrentConfig, have: Bitfield
) -> None:
    storage = content.storage
    if not config.skip_check:
        await services.disk.run(lambda: storage.prepare(config.files), lane=storage)
        if services.config.part_suffix is not None:
            # Whose last piece came just before a kill, or whose renaming has failed.
            layout = content.layout
            await services.disk.run(
                lambda: storage.name_whole(layout.verified_lengths(have)), lane=storage
            )
    if config.make_links and have.is_full:
        await services.disk.run(storage.make_links, lane=storage)


@contextmanager
def _closed_on_failure(services: TorrentServices, storage: Storage) -> Iterator[None]:
    """Let go of files that nobody else will close, when what is done with them here has ended."""
    try:
        yield
    except BaseException:
        services.disk.submit(storage.close, _ignore, lane=storage)
        raise


def _ignore(result: None, error: BaseException | None) -> None:
    """Take no note of how files were closed of which nothing was written, or that have failed."""


def _make_swarm(
    owner: SwarmOwner,
    services: TorrentServices,
    content: Content,
    found: Found,
    metainfo: Metainfo,
    config: TorrentConfig,
    roster: Roster,
) -> Swarm:
    info = metainfo.info
    picker = Picker(info.geometry.num_pieces, services.rng, sequential=config.sequential)
    picker.set_have(found.have)
    if config.files is not None or config.priorities:
        picker.set_priorities(wanted_priorities(content.layout, picker.num_pieces, config))
    swarm = Swarm(owner, services, config, info_hash=info.wire_hash, picker=picker, roster=roster)
    assembly = Assembly(
        swarm,
        geometry=info.geometry,
        layout=content.layout,
        storage=content.storage,
        hashes=content.hashes,
        picker=picker,
        disk=services.disk,
        send_buffer=services.send_buffer,
        unverified=found.unverified if services.config.verify_before_upload else 0,
    )
    if config.make_links:
        assembly.make_links = content.storage.make_links
    swarm.attach(assembly)
    assembly.restore(found.partial)
    return swarm


def part(roster: Roster | None, swarm: Swarm | None) -> None:
    """
    Close the connections of a torrent that is to stop, and make no more.

    That is done before its trackers are told, which may be slow to hear of it: whoever pauses a
    torrent sees its traffic end. What has come by then is written and judged meanwhile.
    """
    if roster is not None:
        roster.close()
    if swarm is not None:
        swarm.web_seeds.stop()


def use_web_seeds(
    swarm: Swarm,
    services: TorrentServices,
    metainfo: Metainfo,
    config: TorrentConfig,
    ledger: Ledger,
) -> None:
    """
    Let a swarm have the web seeds of its torrent, unless they are switched off (BEP 19).

    May be called again when settings have changed.
    """
    known = ledger.web_seeds or {}
    is_enabled = services.config.enable_web_seeds and config.enable_web_seeds
    if is_enabled and (known or config.web_seeds or metainfo.web_seeds):
        ledger.web_seeds = choose_web_seeds(known, config.web_seeds, metainfo.web_seeds)
        swarm.web_seeds.use(metainfo.info, ledger.web_seeds, services.http())


def make_exchange(
    services: TorrentServices,
    swarm: Swarm,
    content: Content,
    *,
    damaged: Iterable[int],
    report: Callable[[Event], None],
    layers_done: Callable[[], None],
) -> HashExchange:
    """Make what asks for hashes and answers for them, and ask for what is missing (BEP 52)."""
    hashes = content.hashes

    def has_piece(peer: PeerConnection, index: int) -> bool:
        remote = peer.protocol.remote
        return remote is not None and index in remote

    seeker = HashSeeker(
        services,
        swarm.roster,
        hashes,
        layers_done=layers_done,
        inconsistent=swarm.torrent_inconsistent,
        is_holder=has_piece,
    )
    if hashes.missing_layers():
        seeker.fetch_layers()
    server = HashServer(
        services,
        hashes,
        content.storage,
        swarm.picker,
        swarm.upload_gate,
        piece_lost=swarm.assembly.piece_is_bad,
    )
    maker = LayerMaker(
        services,
        hashes,
        content.storage,
        swarm.picker,
        inconsistent=swarm.torrent_inconsistent,
    )
    repair = _make_repair(services, swarm, content, seeker, report)
    repair.add(damaged)
    return HashExchange(seeker, server, repair, maker)


def _make_repair(
    services: TorrentServices,
    swarm: Swarm,
    content: Content,
    seeker: HashSeeker,
    report: Callable[[Event], None],
) -> Repair:
    def offered() -> int:
        remotes = [peer.protocol.remote for peer in swarm.peers]
        of_web_seeds = swarm.web_seeds.offered(now=services.loop.time())
        return reduce(or_, [remote.bits for remote in remotes if remote is not None], of_web_seeds)

    return Repair(
        assembly=swarm.assembly,
        picker=swarm.picker,
        hashes=content.hashes,
        storage=content.storage,
        disk=services.disk,
        fetch=seeker.fetch_block_hashes,
        offered=offered,
        report=report,
        go_on=swarm.ask_all,
    )


def _make_borrower(
    owner: SwarmOwner, services: TorrentServices, swarm: Swarm, content: Content, info: Info
) -> Borrower:
    return Borrower(
        assembly=swarm.assembly,
        layout=content.layout,
        info=info,
        picker=swarm.picker,
        hashes=content.hashes,
        storage=content.storage,
        disk=services.disk,
        os_calls=services.os_calls,
        pieces_opened=owner.pieces_opened,
        report=owner.report,
        go_on=swarm.ask_all,
        failed=owner.swarm_failed,
    )


def _make_keeper(
    services: TorrentServices,
    metainfo: Metainfo,
    content: Content,
    config: TorrentConfig,
    volume: Path,
) -> Keeper:
    info, root = metainfo.info, content.storage.root
    return Keeper(
        services,
        services.journal,
        info_hash=info.wire_hash,
        content=content,
        geometry=info.geometry,
        record=make_record(
            info.wire_hash, info.name, root, content.paths, time.time(), config.renames, volume
        ),
        metainfo=format_metainfo(metainfo),
    )


async def _reuse(
    owner: SwarmOwner,
    services: TorrentServices,
    info: Info,
    config: TorrentConfig,
    content: Content,
    found: Found,
    is_stopped: Callable[[], bool],
) -> Found:
    """Take what is missing from where it is already, and tell of it."""
    reuse = Reuse(
        content.storage,
        info.geometry,
        content.hashes,
        how=config.reuse_how,
        calls=services.os_calls,
        num_threads=services.config.hashing_threads,
        is_stopped=is_stopped,
    )
    us: object = owner
    result = await reuse_files(
        found.have,
        content,
        info,
        config,
        reuse,
        disk=services.disk,
        # One by one, should they be asked: each of thousands that start would look at all.
        donors=(each for each in services.torrents() if each is not us),
        locate=lambda metainfo, config: locate(services, metainfo, config),
    )
    for file in result.files:
        entry = info.files[file.index]
        owner.report(
            FileReused(
                file.index, "/".join(entry.path), entry.length, str(file.source), file.how.value
            )
        )
    # What was copied was hashed where it came from: hash it here before the first upload (F5).
    unverified = found.unverified | result.have & ~found.have
    return replace(found, have=result.have, unverified=unverified)
