"""
The DHT as a source of peers for all torrents of a session.

Every torrent that may use it joins with its hashes. ``policy.dht_rounds`` says when which
of them are looked up and announced; one timer serves all, and lookups are callbacks, so a
torrent at rest costs two small objects and no task.

A torrent that is complete asks for peers that are no seeds. Our port is announced as
implied where the nodes see our datagrams come from the same number (BEP 5), which is
right behind a NAT.

The routing table is written to the state folder now and then and at the end.

Sources: BEP 5; BEP 27 (private torrents never join); BEP 33 (seeds); BEP 52 (a hybrid
torrent announces both hashes).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from bittern.core.endpoint import Endpoint, is_dialable
from bittern.core.errors import MetainfoError, StorageError
from bittern.engine.events import SourceChanged
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.engine.store.disk import Disk
from bittern.net.dht import Dht
from bittern.net.dht_requests import PeerSearch, PeersResult, Search
from bittern.policy.dht_rounds import DhtRounds
from bittern.policy.port_limits import PortLimits
from bittern.storage.dht_state import write_dht_state

log: logging.Logger = logging.getLogger(__name__)

SOURCE = "dht"
"""How peers from here are labelled."""
WANTED_CONNECTIONS = 10
"""With fewer connections, a torrent that is not complete is looked up more often."""
SAVE_INTERVAL = 600.0
"""Seconds between two writes of the routing table."""
_NOBODY = "no DHT node is known yet"
_SILENT = "no DHT node answered"


class DhtSource:
    """
    The source described in the module's text; a ``SharedSource``.

    Args:
        dht: joined to its sockets; bootstrapped here, closed here.
        loop: of the session.
        rng: source of chance.
        port: tells where we take connections; while that is 0 nothing is announced.
        spawn: runs a coroutine as a task of the session.
        disk: runs jobs that block.
        folder: where the routing table is kept; None keeps none.
    """

    kind = SourceKind.DHT

    def __init__(
        self,
        dht: Dht,
        *,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        port: Callable[[], int],
        spawn: Callable[[Coroutine[object, object, None], str], None],
        disk: Disk,
        folder: Path | None = None,
    ) -> None:
        self.dht = dht
        self.loop = loop
        self._port = port
        self._spawn = spawn
        self._disk = disk
        self._folder = folder
        self._rounds: DhtRounds[DhtTorrentSource] = DhtRounds(
            rng, lambda source: source.lacks_peers
        )
        self._port_limits = PortLimits()
        self._timer: asyncio.TimerHandle | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def port(self) -> int:
        """The port that our nodes are reached at, for port messages."""
        return self.dht.shells[0].socket.endpoint.port if self.dht.shells else 0

    # --- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Join the network."""
        self._spawn(self._bootstrap(), "bootstrap of the DHT")
        if self._folder is not None:
            self._save_timer = self.loop.call_later(SAVE_INTERVAL, self._save_later)

    async def _bootstrap(self) -> None:
        await self.dht.bootstrap()

    def _save_later(self) -> None:
        self._save_timer = self.loop.call_later(SAVE_INTERVAL, self._save_later)
        self._spawn(self.save(), "save the DHT's routing table")

    async def save(self) -> None:
        """Write the routing table, unless it is empty; a failure is logged."""
        if self._folder is None or not self.dht.num_nodes:
            return
        data = self.dht.save()
        try:
            await self._disk.run(partial(write_dht_state, self._folder, data))
        except StorageError as error:
            log.warning("the DHT's routing table is not kept: %s", error)

    async def close(self) -> None:
        """Stop and save. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in (self._timer, self._save_timer):
            if timer is not None:
                timer.cancel()
        await self.save()
        self.dht.close()

    # --- nodes that others name ----------------------------------------------------------

    def node_seen(self, host: str, port: int) -> None:
        """Take the node that a peer told us of; it enters the table once it answers (BEP 5)."""
        node = Endpoint(host, port)
        if self._port_limits.may_take(node, now=self.loop.time()):
            self.dht.add_nodes([node])

    # --- torrents ------------------------------------------------------------------------

    def join(self, torrent: DiscoveringTorrent) -> DhtTorrentSource:
        """Return the source of one torrent, not yet started."""
        return DhtTorrentSource(self, torrent)

    def add(self, source: DhtTorrentSource) -> None:
        """Take a torrent, and the nodes that its .torrent file names (BEP 5)."""
        shelf = source.torrent.shelf
        try:
            nodes = shelf.metainfo().nodes if shelf.has_metainfo else ()
        except MetainfoError:
            nodes = ()
        if nodes:
            self._spawn(self.dht.add_names(nodes), "nodes of a torrent")
        self._rounds.add(source, now=self.loop.time())
        self._arm()

    def remove(self, source: DhtTorrentSource) -> None:
        """Forget a torrent."""
        self._rounds.remove(source)
        self._arm()

    def hurry(self, source: DhtTorrentSource) -> None:
        """Announce a torrent again as soon as there is room."""
        self._rounds.hurry(source, now=self.loop.time())
        self._arm()

    def missed(self, seconds: float) -> None:  # noqa: ARG002  # as every source
        """Ask our neighbours in the network again, and announce all torrents in their turns."""
        now = self.loop.time()
        for shell in self.dht.shells:
            if shell.is_started:
                shell.node.refresh(now=now)
                shell.flush()
        self._rounds.hurry_all(now=now)
        self._arm()

    def next_at(self, source: DhtTorrentSource) -> float | None:
        """Return when a torrent is looked at next."""
        return self._rounds.next_at(source)

    def _arm(self) -> None:
        due_at = None if self._is_closed else self._rounds.next_timer()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_at is not None:
            self._timer = self.loop.call_at(due_at, self._timer_fired, due_at)

    def _timer_fired(self, due_at: float) -> None:
        self._timer = None
        # The instant that was asked for: timers may fire a rounding error early.
        now = max(self.loop.time(), due_at)
        found = self._rounds.due(now=now)
        if found is not None:
            source, is_announce = found
            source.ask(now=now, port=self._port() if is_announce else 0)
        self._arm()

    def ended(self, source: DhtTorrentSource, *, was_stored: bool, num_queries: int) -> None:
        """Hear that a torrent's lookups are over."""
        self._rounds.ended(
            source, now=self.loop.time(), was_stored=was_stored, num_queries=num_queries
        )
        self._arm()


class DhtTorrentSource:
    """
    The DHT as a source of peers of one torrent; made by ``DhtSource.join``.

    Attributes:
        torrent: takes the peers.
    """

    __slots__ = (
        "_last_answer_at",
        "_last_asked_at",
        "_message",
        "_num_found",
        "_num_peers",
        "_owner",
        "_port",
        "_searches",
        "torrent",
    )

    def __init__(self, owner: DhtSource, torrent: DiscoveringTorrent) -> None:
        self.torrent: DiscoveringTorrent = torrent
        self._owner = owner
        self._searches: tuple[PeerSearch, ...] = ()
        self._port = 0
        self._last_asked_at: float | None = None
        self._last_answer_at: float | None = None
        self._num_peers: int | None = None
        self._num_found = 0
        self._message: str | None = None

    # --- PeerSource ----------------------------------------------------------------------

    def start(self, name: str) -> None:  # noqa: ARG002  # there is no task to name
        """Begin to ask."""
        self._owner.add(self)

    def completed(self) -> None:
        """Announce ourselves as a seed."""
        self._owner.hurry(self)

    def ask_now(self) -> None:
        """Look for peers as soon as it is this torrent's turn."""
        self._owner.hurry(self)

    def statuses(self) -> list[SourceStatus]:
        """Return how it stands."""
        if self._searches:
            state = SourceState.ASKING
        elif self._message is not None:
            state = SourceState.FAILING
        else:
            state = SourceState.WAITING if self._last_answer_at is None else SourceState.WORKING
        return [
            SourceStatus(
                kind=SourceKind.DHT,
                state=state,
                last_asked_at=self._last_asked_at,
                last_answer_at=self._last_answer_at,
                num_peers=self._num_peers,
                num_found=self._num_found,
                message=self._message,
                next_at=self._owner.next_at(self),
            )
        ]

    async def stop(self) -> None:
        """End; the DHT has no goodbye, nodes forget us by themselves."""
        self._owner.remove(self)
        searches, self._searches = self._searches, ()
        for search in searches:
            search.cancel()

    # --- lookups -------------------------------------------------------------------------

    @property
    def lacks_peers(self) -> bool:
        """Tell whether more peers would help."""
        torrent = self.torrent
        roster = torrent.roster
        return (
            not torrent.is_complete
            and roster is not None
            and len(roster.peers) < WANTED_CONNECTIONS
        )

    def ask(self, *, now: float, port: int) -> None:
        """Look up every hash of the torrent; with a port, announce it."""
        torrent, dht = self.torrent, self._owner.dht
        self._last_asked_at = now
        self._num_peers = 0
        self._port = port
        is_seed = torrent.is_complete and not torrent.ledger.missing
        find = partial(dht.announce, port=port, implied=True, is_seed=is_seed)
        if not port:
            find = partial(dht.get_peers, noseed=torrent.is_complete)
        self._searches = tuple(
            find(info_hash, named=self._take, ended=self._search_ended)
            for info_hash in torrent.all_hashes
        )
        torrent.report(SourceChanged(self.statuses()[0]))

    def _take(self, peers: tuple[Endpoint, ...], node: Endpoint) -> None:
        found = [peer for peer in peers if is_dialable(peer)]
        if found:
            self._num_peers = (self._num_peers or 0) + len(found)
            self._num_found += len(found)
            self.torrent.add_peers(found, SOURCE, node.host)

    def _search_ended(self, _search: Search[PeersResult]) -> None:
        # Later: one that ends at once, for want of nodes, does so before ``ask`` has kept it.
        self._owner.loop.call_soon(self._consider_end)

    def _consider_end(self) -> None:
        searches = self._searches
        if not searches or not all(search.is_over for search in searches):
            return
        self._searches = ()
        results = [search.result for search in searches]
        num_queries = sum(result.num_queries for result in results)
        is_answered = any(result.nodes for result in results)
        self._message = None if is_answered else (_SILENT if num_queries else _NOBODY)
        self._last_answer_at = self._owner.loop.time()
        was_stored = not self._port or any(result.num_stored for result in results)
        self._owner.ended(self, was_stored=was_stored, num_queries=num_queries)
        self.torrent.report(SourceChanged(self.statuses()[0]))
