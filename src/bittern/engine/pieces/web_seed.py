"""
A web seed: a peer that speaks HTTP.

It has every piece, never chokes, and is asked for ranges of files over one connection
that is kept alive, one request after the other, each as long as it sends in a few
seconds (``engine.peers.range_reader``). What it sends becomes blocks while it comes in,
and they take the way of all blocks: hashed, written and judged with their sender known.
A server that knows no ranges is read from the start of each file
(``engine.pieces.whole_files``). Padding is never asked for (Limit: P12).

One task while it is being asked, none while it is not.

Sources: BEP 19; threats.md N8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from bittern.codec.info import Info
from bittern.core.errors import FetchError, WebSeedError, WebSeedLacksFile, WebSeedUseless
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.rate import RateMeter
from bittern.engine.limits import RateGate
from bittern.engine.peers.range_reader import HttpOpener, RangeReader, Receive
from bittern.engine.pieces.assembly import Assembly
from bittern.engine.pieces.whole_files import WholeFiles
from bittern.engine.services import Services
from bittern.policy.open_piece import PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import BLOCK_SHIFT, Run
from bittern.policy.web_seeds import WebSeedRecord
from bittern.proto.block_cutter import BlockCutter
from bittern.proto.peer_events import ReceivedBlock
from bittern.storage.layout import NOT_STORED

_ZEROS = bytes(1 << 16)


class SeededSwarm(Protocol):
    """What a web seed asks of its swarm."""

    picker: Picker
    assembly: Assembly
    download_gate: RateGate
    num_downloaded: int
    num_wasted: int

    def plan(self, share: PeerShare, bits: int, num_blocks: int) -> list[Run]:
        """Choose blocks to ask for, and count them as requested."""

    def receive(self, share: PeerShare, blocks: list[ReceivedBlock], num_bytes: int) -> None:
        """Take blocks whose payloads are valid until this returns."""


class WebSeed:
    """
    The one described in the module's text.

    Args:
        record: what is known of it.
        swarm: whose pieces it has.
        services: of the session.
        info: of the torrent.
        http: makes the requests.
        changed: hears when it begins, sends its first byte, or ends.

    Attributes:
        record: as given.
        share: its part in the pieces in progress.
        down: what it sends.
        is_active: it is being asked.
        is_sending: it is, and has sent something.
    """

    __slots__ = (
        "_all_pieces",
        "_changed",
        "_info",
        "_is_stopped",
        "_last_block_at",
        "_num_outstanding",
        "_rate",
        "_runs",
        "_services",
        "_swarm",
        "_task",
        "_verdict",
        "down",
        "is_active",
        "is_sending",
        "reader",
        "record",
        "share",
    )

    def __init__(
        self,
        record: WebSeedRecord,
        swarm: SeededSwarm,
        services: Services,
        info: Info,
        http: HttpOpener,
        changed: Callable[[WebSeed], None],
    ) -> None:
        now = services.loop.time()
        self.record: WebSeedRecord = record
        self.share: PeerShare = PeerShare(record.url, prefers_rows=True)
        self.down: RateMeter = RateMeter(now=now)
        self.is_active: bool = False
        self.is_sending: bool = False
        self._is_stopped = False
        self._swarm = swarm
        self._services = services
        self._info = info
        self._changed = changed
        num_pieces, top = info.geometry.num_pieces, swarm.picker.top
        self._all_pieces = ((1 << num_pieces) - 1) << (top + 1 - num_pieces)
        self._task: asyncio.Task[None] | None = None
        self._verdict: WebSeedError | None = None
        """Why we ended the task ourselves."""
        self._runs: list[Run] = []
        self._num_outstanding = 0
        self._rate = 0.0
        """Bytes per second of its last request."""
        self._last_block_at = now
        self.reader: RangeReader = RangeReader(
            record,
            info,
            http=http,
            gate=swarm.download_gate,
            loop=services.loop,
            counted=self._count,
        )

    @property
    def bits(self) -> int:
        """The pieces that it may be asked for."""
        return self._all_pieces & ~self.record.refused

    # --- life ----------------------------------------------------------------------------

    def begin(self) -> bool:
        """Ask it for something, in a task of its own; False when there is nothing to ask for."""
        if self.record.takes_ranges:
            self._plan()
            if not self._runs:
                return False
        elif not self._walker().claimable(self.bits):
            return False
        self.is_active = True
        self._verdict = None
        self._last_block_at = self._services.loop.time()
        self._services.spawn(self._run(), f"web seed of {self._info.name}")
        self._changed(self)
        return True

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        error: WebSeedError | None = None
        try:
            if not self._is_stopped:
                await self._work()
        except WebSeedError as failure:
            error = failure
        except FetchError as failure:
            error = WebSeedError(failure.reason)
        except asyncio.CancelledError:
            if self._verdict is None:
                raise
            error = self._verdict
        finally:
            self._task = None
            self._end(error)

    def _end(self, error: WebSeedError | None) -> None:
        self._give_back()
        self.is_active = self.is_sending = False
        if self._is_stopped:
            return
        if error is not None:
            self._failed(error)
        self._changed(self)

    def _failed(self, error: WebSeedError) -> None:
        now, rng = self._services.loop.time(), self._services.rng
        self.record.failed(error, now=now, rng=rng, pieces=self._pieces_of_file())

    def _pieces_of_file(self) -> int:
        """Return the pieces of the file that was asked for last, as bits."""
        span = self._swarm.assembly.layout.pieces_of_file(self.reader.file_index)
        return ((1 << len(span)) - 1) << (self._swarm.picker.top - span[-1]) if span else 0

    def abort(self, error: WebSeedError) -> None:
        """Close the connection, for a reason of ours."""
        if self._task is not None:
            self._verdict = error
            self._task.cancel()

    def stop(self) -> None:
        """End for good; idempotent."""
        self._is_stopped = True
        self.reader.stop()
        if self._task is not None:
            self._task.cancel()
        self._give_back()

    def tick(self, *, now: float) -> None:
        """Bring rate and expected wait up to date; give up a server that sends next to nothing."""
        self.down.update(now=now)
        share = self.share
        share.rate, share.expected_wait = self.down.rate, 0.0
        if not self.is_active:
            return
        if self.reader.is_held_back:
            self._last_block_at = now
        silent_for = now - self._last_block_at
        timeout = self._services.config.snub_timeout
        if silent_for > timeout:
            # Limit: N8. A byte now and then keeps a connection alive, but not a download.
            self.abort(WebSeedError(f"no block in {timeout:g} s"))
            return
        expected = self._num_outstanding / share.rate if share.rate else silent_for
        share.expected_wait = max(expected, silent_for)

    # --- asking --------------------------------------------------------------------------

    def _plan(self) -> None:
        is_endgame = self._swarm.picker.is_endgame
        length = self.record.request_length(self._rate, is_endgame=is_endgame)
        self._ask_for(self._swarm.plan(self.share, self.bits, length >> BLOCK_SHIFT))

    def _ask_for(self, runs: list[Run]) -> None:
        self._runs = runs
        self._num_outstanding = sum(end - begin for _, begin, end in runs)

    def _give_back(self) -> None:
        """Free the blocks that have not come."""
        pieces = self._swarm.assembly.pieces
        pieces.release(self.share, _blocks_of(self._runs))
        pieces.abandon(self.share)
        self._ask_for([])

    async def _work(self) -> None:
        """Fetch for as long as something is wanted that it has."""
        while not self._swarm.picker.is_complete:
            try:
                if not await self._fetch_some():
                    return
            except WebSeedError as error:
                if not isinstance(error, WebSeedLacksFile):
                    raise
                self._failed(error)  # the next file may be there
            else:
                self.record.succeeded(now=self._services.loop.time())
            if self._runs:
                self._give_back()

    async def _fetch_some(self) -> bool:
        """Fetch what it sends in a few seconds; False when there is nothing to fetch."""
        if not self.record.takes_ranges:
            return await self._walk()
        if not self._runs:
            self._plan()
        if not self._runs:
            return False
        began_at, num_bytes = self._services.loop.time(), self.record.num_bytes
        for start, stop in join_runs(self._runs, self._info.geometry.piece_length):
            if not await self._fetch_stretch(start, stop):
                return True
        seconds = max(self._services.loop.time() - began_at, 0.001)
        self._rate = (self.record.num_bytes - num_bytes) / seconds
        self._ask_for([])
        return True

    async def _fetch_stretch(self, start: int, stop: int) -> bool:
        """Fetch a run of the piece space; False when the server knows no ranges."""
        cutter = BlockCutter(self._info.geometry, start)
        is_awaited = True

        def receive(data: bytes) -> bool:
            nonlocal is_awaited
            self._take(cutter.feed(data))
            is_awaited = self._awaits(cutter.position, stop)
            return is_awaited

        for index, begin, length in self._swarm.assembly.layout.spans(start, stop - start):
            if index == NOT_STORED:
                _feed_zeros(receive, length)
            elif not await self.reader.fetch(index, begin, begin + length, receive):
                return False
            if not is_awaited:
                break
        return True

    def _awaits(self, offset: int, stop: int) -> bool:
        """Tell whether others have not sent all that is to come, from ``offset`` to ``stop``."""
        piece_length, is_awaited = (
            self._info.geometry.piece_length,
            self._swarm.assembly.pieces.is_awaited,
        )
        return offset >= stop or any(
            is_awaited(*divmod(at, piece_length)) for at in range(offset, stop, BLOCK_LENGTH)
        )

    def _count(self, num_bytes: int) -> None:
        self.down.add(num_bytes)
        self.record.num_bytes += num_bytes
        if not self.is_sending:
            self.is_sending = True
            self._changed(self)

    def _take(self, blocks: list[ReceivedBlock]) -> None:
        if blocks:
            num_bytes = sum(len(data) for _, _, data in blocks)
            self._last_block_at = self._services.loop.time()
            self._num_outstanding = max(0, self._num_outstanding - num_bytes)
            self._swarm.receive(self.share, blocks, num_bytes)

    # --- whole files ---------------------------------------------------------------------

    def _walker(self) -> WholeFiles:
        assembly = self._swarm.assembly
        return WholeFiles(assembly.layout, self._info.geometry, self._swarm.picker, assembly.pieces)

    async def _walk(self) -> bool:
        """Read a file from its start, and those that its last piece goes on in; False if none."""
        walk = self._walker()
        num_before = walk.begin(self.bits)
        if num_before is None:
            return False
        self._check_waste(num_before)
        layout = self._swarm.assembly.layout

        def receive(data: bytes) -> bool:
            return self._receive_whole(walk, data)

        for index, _, length in layout.spans(walk.position, layout.end - walk.position):
            if index == NOT_STORED:
                _feed_zeros(receive, length)
            else:
                await self.reader.fetch(index, 0, length, receive)
            if walk.piece is None:
                self._ask_for([])
                break
        return True

    def _receive_whole(self, walk: WholeFiles, data: bytes) -> bool:
        """Take bytes of a whole file; False when nothing of its rest is wanted."""
        view = memoryview(data)
        while view:
            index = walk.next_piece()
            if index is not None and self._claim(index):
                walk.claim(index)
            elif index is not None and not walk.claimable(self._rest_of_file(index)):
                return False
            part, view = view[: walk.room()], view[walk.room() :]
            num_skipped = walk.num_skipped
            self._take(walk.feed(part))
            self._waste(walk.num_skipped - num_skipped)
        return True

    def _claim(self, index: int) -> bool:
        mask = 1 << (self._swarm.picker.top - index)
        if not self.bits & mask:
            return False
        self._ask_for(self._swarm.plan(self.share, mask, self._info.geometry.num_blocks(index)))
        return bool(self._runs)

    def _rest_of_file(self, index: int) -> int:
        """Return the pieces from ``index`` on that it may be asked for in the same file."""
        after = (1 << (self._swarm.picker.top - index + 1)) - 1
        return self.bits & after & self._pieces_of_file()

    def _waste(self, num_bytes: int) -> None:
        if num_bytes:
            self._last_block_at = self._services.loop.time()
            self._swarm.num_downloaded += num_bytes
            self._swarm.num_wasted += num_bytes
            self.record.num_skipped += num_bytes
            self._check_waste(0)

    def _check_waste(self, num_to_come: int) -> None:
        """Give up before more than the torrent's own length has come in vain."""
        if self.record.num_skipped + num_to_come > self._info.geometry.total_length:
            raise WebSeedUseless("knows no ranges, and too much of its files would come again")


def join_runs(runs: Iterable[Run], piece_length: int) -> list[tuple[int, int]]:
    """Return runs of blocks as (start, stop) in the piece space, adjacent ones joined."""
    joined: list[tuple[int, int]] = []
    for index, begin, end in runs:
        start, stop = index * piece_length + begin, index * piece_length + end
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        elif joined and stop == joined[-1][0]:  # late blocks are planned from the last one on
            joined[-1] = (start, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def _feed_zeros(receive: Receive, length: int) -> None:
    """Fill in padding (BEP 47), however long it is."""
    while length and receive(_ZEROS[:length]):
        length -= min(length, len(_ZEROS))


def _blocks_of(runs: Iterable[Run]) -> list[tuple[int, int, int]]:
    return [
        (index, at, min(BLOCK_LENGTH, end - at))
        for index, begin, end in runs
        for at in range(begin, end, BLOCK_LENGTH)
    ]
