"""
From blocks to verified pieces to files, and back out as runs of blocks.

Owns the pieces in progress, the storage and the hashes of one torrent. A block
that arrives is hashed and written here within the same wake-up; a piece whose
last block is in is judged, and the verdict goes to the owner, the swarm.

Verified means: the hash matched the bytes that were handed to the operating
system. A piece that was on disk before this session is hashed once more before
its first upload (Limit: F5).

Sources: BEP 3 (piece hashes); threats.md H4, F2, F5. docs/design/README.md has the whole way of
a block.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from bittern.core.errors import Inconsistent, StorageError, VolumeMissing
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.engine.pieces.block_judge import BlockJudge, FetchBlockHashes
from bittern.engine.pieces.hash_queue import HashQueue, feed_parts, make_buffer
from bittern.engine.pieces.upload import SendBuffer, read_requests
from bittern.engine.store.disk import Disk, failure_of
from bittern.policy.open_piece import OpenPiece, PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import Pieces, Received
from bittern.policy.suspects import Suspects
from bittern.proto.peer_events import ReceivedBlock, Request
from bittern.storage.base import Storage
from bittern.storage.hashing import PieceHashes, is_good_row
from bittern.storage.layout import Layout

HAND_OFF_BLOCKS = 8
"""
Blocks of one wake-up from which on their hashes are left to the worker. So many arrive only when
the loop falls behind; then a second core hashes while the first one receives.
"""


class AssemblyOwner(Protocol):
    """Who hears what became of the pieces."""

    def pieces_verified(self, pieces: Sequence[int]) -> None:
        """Hear of new pieces."""

    def piece_failed(self, index: int, guilty: set[Hashable]) -> None:
        """Hear of a piece that did not match, and who is certainly to blame."""

    def peers_guilty(self, guilty: set[Hashable], *, is_proven: bool = False) -> None:
        """Hear who sent bad blocks; ``is_proven``: by the very hash of a block (BEP 52)."""

    def piece_lost(self, index: int) -> None:
        """Hear that a piece we had is not there (any more)."""

    def not_sent(self, num_bytes: int) -> None:
        """Hear of bytes taken out of a peer's queue that cannot be had after all."""

    def file_completed(self, index: int) -> None:
        """Hear that every piece of a file is there."""

    def storage_failed(self, error: StorageError) -> None:
        """Hear that our disk failed; nothing more will work until it is mended."""

    def torrent_inconsistent(self, error: Inconsistent) -> None:
        """Hear that the two halves of a hybrid want different bytes (P13)."""


class LoadedRun(Protocol):
    """Who waits for a run of blocks: a peer connection."""

    def run_loaded(self, requests: list[Request], data: memoryview) -> None:
        """Take the run, or what can be had of it, as messages."""

    def run_refused(self, requests: list[Request]) -> None:
        """Hear of requests that cannot be served; ``run_loaded`` follows all the same."""


class Assembly:
    """
    The one described in the module's text.

    Args:
        owner: hears of verdicts and failures.
        geometry: of the torrent, as layout, storage and hashes are.
        layout: where the piece space lies in files.
        storage: where the bytes go.
        hashes: what each piece must hash to.
        picker: knows what we have; told of every change.
        disk: of the session.
        send_buffer: of the session.
        unverified: pieces we have but have not hashed in this session, as bits.
    """

    def __init__(
        self,
        owner: AssemblyOwner,
        *,
        geometry: Geometry,
        layout: Layout,
        storage: Storage,
        hashes: PieceHashes,
        picker: Picker,
        disk: Disk,
        send_buffer: SendBuffer,
        unverified: int,
    ) -> None:
        self._owner = owner
        self.geometry = geometry
        self.layout = layout
        self._storage = storage
        self._hashes = hashes
        self._picker = picker
        self._disk = disk
        self._send_buffer = send_buffer
        self._is_stopped = False
        self.unverified: int = unverified
        padding = find_pad_blocks(layout, geometry)
        self.pieces: Pieces = Pieces(geometry, picker, hashes.start, padding)
        self.suspects: Suspects = Suspects()
        self._num_finishing = 0
        """Complete files that are still being given their names."""
        self.make_links: Callable[[], object] | None = None
        """Makes the torrent's symbolic links once all data is there, where a person asked (P11)."""
        self._when_finished: Callable[[], None] | None = None
        self._hash_queue = HashQueue(storage, geometry, disk, hashed=self._judge, failed=self._fail)
        self.judge: BlockJudge | None = None
        """Names bad blocks; only of torrents with a v2 half."""
        self._waiting: dict[int, list[tuple[LoadedRun, list[Request]]]] = {}
        """Runs that wait for a piece to be verified before its first upload."""

    @property
    def send_length(self) -> int:
        """Bytes of blocks that one run may have."""
        return self._send_buffer.length

    @property
    def is_slow(self) -> bool:
        """True while writing takes long."""
        return self._disk.is_slow(self._storage)

    def partial_blocks(self) -> dict[int, list[int]]:
        """Return, for the pieces in progress, the blocks that are with the operating system."""
        return {
            index: piece.received_blocks()
            for index, piece in self.pieces.open.items()
            if piece.num_received and not piece.num_unwritten and not self._is_in_court(index)
        }

    def _is_in_court(self, index: int) -> bool:
        """Tell whether a piece has bad blocks, and it is not known yet which."""
        return self.judge is not None and index in self.judge.waiting

    def judge_blocks(self, fetch: FetchBlockHashes) -> None:
        """From now on find out which blocks of a bad piece are bad (BEP 52)."""
        owner = self._owner
        self.judge = BlockJudge(
            self._hashes,
            self.pieces,
            fetch,
            piece_failed=lambda index: owner.piece_failed(index, set()),
            guilty=lambda guilty: owner.peers_guilty(guilty, is_proven=True),
            undecided=self._suspect,
        )

    def restore(self, partial: Mapping[int, Iterable[int]]) -> None:
        """Go on with pieces of which an earlier run has left some blocks."""
        for index, blocks in partial.items():
            if not self._picker.have >> (self._picker.top - index) & 1:
                self.pieces.restore(index, blocks)

    def stop(self) -> None:
        """Take no further part: later callbacks of the worker only tell of files with a name."""
        self._is_stopped = True
        self._when_finished = None
        self._waiting.clear()
        self._hash_queue.stop()
        self._disk.forget(self._storage)

    # --- in ------------------------------------------------------------------------------

    def receive(self, share: PeerShare, blocks: Sequence[ReceivedBlock]) -> Received:
        """Hash, write and count a batch of blocks; judge the pieces that it completes."""
        num_bad = 0
        if self.judge is not None and self.judge.known:
            blocks, num_bad = self.judge.sift(share, blocks)
        queue = self._hash_queue
        # What follows pieces that wait there waits behind them, so that order is kept.
        hands_off = queue.has_room and (len(blocks) >= HAND_OFF_BLOCKS or queue.is_busy)
        result = self.pieces.receive(share, blocks, hashes=not hands_off)
        result.num_wasted += num_bad
        storage, write = self._storage, self._disk.write
        num_tried = 0
        try:
            for offset, buffers, pieces in result.writes:
                num_tried += 1
                if not write(storage, offset, buffers, _WriteDone(self, pieces)):
                    for piece in pieces:
                        piece.num_unwritten += 1
        except StorageError as error:
            # For ever: what is not there must not be left to the next run as if it were (F1).
            for _, _, pieces in result.writes[num_tried - 1 :]:
                for piece in pieces:
                    piece.num_unwritten += 1
            self._fail(error)
            return result
        if result.finished:
            self._finish([piece for piece in result.finished if not piece.num_unwritten])
        return result

    def write_done(self, pieces: Sequence[OpenPiece], error: BaseException | None) -> None:
        """Hear that the worker has carried out a write into some pieces."""
        if self._is_stopped:
            return
        if error is not None:
            self._fail(error)
            return
        for piece in pieces:
            piece.num_unwritten -= 1
        self._finish([piece for piece in pieces if piece.is_complete])

    def _fail(self, error: BaseException) -> None:
        if not self._is_stopped:
            self.stop()
            self._owner.storage_failed(failure_of(error))

    def _finish(self, pieces: Sequence[OpenPiece]) -> None:
        """Judge whole pieces, once their hashes have seen what did not pass them in order."""
        unhashed = [piece for piece in pieces if piece.num_hashed < piece.num_blocks]
        if unhashed:
            self._hash_queue.add(unhashed)
        if len(unhashed) < len(pieces):
            self._judge([piece for piece in pieces if piece.num_hashed == piece.num_blocks])

    def _judge(self, pieces: Sequence[OpenPiece]) -> None:
        """Compare hashes. A fast peer brings many small pieces at once; they go on together."""
        if self._is_stopped:
            return
        good, contradiction = self._good_of(pieces)
        if good:
            self._take_good(good)
        if contradiction is not None:
            # No peer is to blame: the torrent contradicts itself (P13).
            self.stop()
            self._owner.torrent_inconsistent(contradiction)

    def _take_good(self, good: Sequence[OpenPiece]) -> None:
        indices = [piece.index for piece in good]
        if self.judge is not None:
            for index in indices:
                self.judge.piece_passed(index)
        self.pieces.close_good(good)
        self._owner.pieces_verified(indices)
        self._check_files(indices)
        try:
            guilty = self.suspects.pieces_passed(
                ((piece.index, piece.senders) for piece in good), self._digests
            )
        except StorageError as error:
            self._fail(error)
        else:
            if guilty:
                self._owner.peers_guilty(guilty)

    def _good_of(
        self, pieces: Sequence[OpenPiece]
    ) -> tuple[Sequence[OpenPiece], Inconsistent | None]:
        """Return the good ones, and what speaks against the torrent itself."""
        first = pieces[0].index if pieces else 0
        is_row = [piece.index for piece in pieces] == list(range(first, first + len(pieces)))
        if is_row and is_good_row(self._hashes, first, [piece.hasher for piece in pieces]):
            return pieces, None
        good, contradiction = [], None
        for piece in pieces:
            try:
                is_good = self._hashes.is_good(piece.index, piece.hasher)
            except Inconsistent as error:
                contradiction = contradiction or error
                continue
            if is_good:
                good.append(piece)
            elif self.judge is None or not self.judge.take(piece):
                self._suspect(piece)
        return good, contradiction

    def take(self, pieces: Sequence[int]) -> None:
        """Have pieces that were found elsewhere, hashed there, and written here (F5)."""
        if self._is_stopped:
            return
        for index in pieces:
            self.unverified |= 1 << (self._picker.top - index)
            self._picker.mark_have(index)
        self._owner.pieces_verified(pieces)
        self._check_files(pieces)

    def _suspect(self, piece: OpenPiece) -> None:
        """Give up a bad piece; who is to blame may show when it has been fetched again."""
        index = piece.index
        try:
            guilty = self.suspects.piece_failed(index, piece.senders, lambda: self._digests(index))
        except StorageError as error:
            self._fail(error)
            return
        self.pieces.close_bad(piece, exclusive=not guilty)
        self._owner.piece_failed(index, guilty)

    def distrust(self, sender: Hashable) -> None:
        """Give up what a banned peer has sent of pieces in progress, good or bad (H4)."""
        if self.judge is None:  # With a v2 half the good can be told from the bad.
            self.pieces.distrust(sender)

    def _digests(self, index: int) -> list[bytes]:
        """Return a digest of each block of a piece as it stands in storage."""
        length = self.geometry.length_of(index)
        data = memoryview(bytearray(length))
        self._storage.read_into(self.geometry.offset_of(index), [data])
        return [
            blake2b(data[at : at + BLOCK_LENGTH], digest_size=16).digest()
            for at in range(0, length, BLOCK_LENGTH)
        ]

    def _check_files(self, pieces: Iterable[int]) -> None:
        picker, layout = self._picker, self.layout
        spans: dict[int, range] = {}
        inside = range(0)
        for index in pieces:
            if index not in inside:  # Strictly inside a file there is no other.
                for number in layout.files_of_piece(index):
                    spans[number] = span = layout.pieces_of_file(number)
                    inside = span[1:-1]
        for number, span in sorted(spans.items()):
            if len(span) > picker.num_have:
                continue  # A mask as long as the torrent is not cheap.
            mask = ((1 << len(span)) - 1) << (picker.top - span[-1])
            if picker.have & mask == mask:
                self.finish_file(number)

    def finish_file(self, number: int) -> None:
        """Give a complete file its final name and mode, in the worker."""
        self._run_finishing(
            lambda: self._storage.finish_file(number), lambda: self._owner.file_completed(number)
        )

    def _run_finishing(self, job: Callable[[], object], report: Callable[[], None]) -> None:
        def done(_: object, error: BaseException | None) -> None:
            self._num_finishing -= 1
            if error is not None:
                self._fail(error)
                return
            report()  # Stopped or not: it is so, and nobody would say it later.
            if not self._num_finishing and self._when_finished is not None:
                self._when_finished()

        self._num_finishing += 1
        self._disk.submit(job, done, lane=self._storage)

    def is_finished(self, *, then: Callable[[], None]) -> bool:
        """
        Tell whether every complete file has its name and was reported.

        If not, ``then`` is called once that is so: who waits for a torrent wants its files.
        """
        make_links = self.make_links
        if make_links is not None and self._picker.is_seed and not self._num_finishing:
            self.make_links = None
            self._run_finishing(make_links, lambda: None)
        self._when_finished = then if self._num_finishing else None
        return not self._num_finishing

    def prepare(self, files: frozenset[int] | None) -> None:
        """Make what wanted files need before their first write, as empty files, in the worker."""

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                self._fail(error)

        self._disk.submit(lambda: self._storage.prepare(files), done, lane=self._storage)

    # --- out -----------------------------------------------------------------------------

    def load_run(self, waiter: LoadedRun, requests: list[Request]) -> memoryview | None:
        """
        Read requested blocks as piece messages.

        Returns:
            The messages, valid until the next call; None when ``waiter.run_loaded``
            will be called, because a piece must be verified or read in the worker.
        """
        if self.unverified:
            for number in {index for index, _, _ in requests}:
                if self.unverified >> (self._picker.top - number) & 1:
                    self._verify(number, waiter, requests)
                    return None
        piece_length = self.geometry.piece_length
        try:
            data = self._send_buffer.fill(self._storage, piece_length, requests, nowait=True)
        except StorageError:
            self._refuse(waiter, requests)
            return None
        if data is None:
            self._load_in_worker(waiter, requests)
        return data

    def _load_in_worker(self, waiter: LoadedRun, requests: list[Request]) -> None:
        piece_length = self.geometry.piece_length

        def done(data: memoryview | None, error: BaseException | None) -> None:
            if self._is_stopped:
                return
            if isinstance(error, StorageError):
                self._refuse(waiter, requests)
            elif error is not None:
                self._fail(error)
            elif self._lost_of(requests):
                self._go_on(waiter, requests)
            else:
                assert data is not None
                waiter.run_loaded(requests, data)

        self._disk.submit(lambda: read_requests(self._storage, piece_length, requests), done)

    def _refuse(self, waiter: LoadedRun, requests: list[Request]) -> None:
        """Find out which pieces of a run that cannot be read are gone, and serve the others."""
        for index in sorted({request[0] for request in requests}):
            self.unverified |= 1 << (self._picker.top - index)
        self._verify(requests[0][0], waiter, requests)

    def _verify(self, index: int, waiter: LoadedRun, requests: list[Request]) -> None:
        """Hash a piece that has not been hashed in this session, then go on with the run."""
        waiting = self._waiting.get(index)
        is_first = waiting is None
        if waiting is None:
            waiting = self._waiting[index] = []
        waiting.append((waiter, requests))
        if not is_first:
            return
        offset, length = self.geometry.offset_of(index), self.geometry.length_of(index)
        hasher = self._hashes.start(index)

        def done(_: None, error: BaseException | None) -> None:
            if self._is_stopped:
                return
            if error is not None and not isinstance(error, StorageError):
                self._fail(error)
                return
            if isinstance(error, VolumeMissing):
                self._fail(error)  # Limit: F6. Of the volume nothing is lost yet.
                return
            try:
                is_good = error is None and self._hashes.is_good(index, hasher)
            except Inconsistent as contradiction:
                self.stop()
                self._owner.torrent_inconsistent(contradiction)
                return
            self._verified(index, is_good)

        parts = [(hasher, offset, length)]
        self._disk.submit(lambda: feed_parts(self._storage, parts, make_buffer()), done)

    def piece_is_bad(self, index: int) -> None:
        """Hear that a piece which we have is not as it should be on disk."""
        self._verified(index, is_good=False)

    def _verified(self, index: int, is_good: bool) -> None:
        waiting = self._waiting.pop(index, [])
        self.unverified &= ~(1 << (self._picker.top - index))
        if not is_good and self._picker.have >> (self._picker.top - index) & 1:
            self._picker.lose(index)
            self._owner.piece_lost(index)
        for waiter, requests in waiting:
            self._go_on(waiter, requests)

    def _go_on(self, waiter: LoadedRun, requests: list[Request]) -> None:
        """Go on with a run that had to wait; which of its pieces are lost may show meanwhile."""
        if lost := self._lost_of(requests):
            refused = [request for request in requests if request[0] in lost]
            waiter.run_refused(refused)
            self._owner.not_sent(sum(length for _, _, length in refused))
            requests = [request for request in requests if request[0] not in lost]
        data = self.load_run(waiter, requests) if requests else memoryview(b"")
        if data is not None:
            waiter.run_loaded(requests, memoryview(bytes(data)))

    def _lost_of(self, requests: list[Request]) -> set[int]:
        """Return those pieces of a run that we do not have any more."""
        top, have = self._picker.top, self._picker.have
        return {index for index, _, _ in requests if not have >> (top - index) & 1}


class _WriteDone:
    """The callback of a write in the worker; made per run, so it is kept small."""

    __slots__ = ("_assembly", "_pieces")

    def __init__(self, assembly: Assembly, pieces: Sequence[OpenPiece]) -> None:
        self._assembly = assembly
        self._pieces = pieces

    def __call__(self, _: None, error: BaseException | None) -> None:
        self._assembly.write_done(self._pieces, error)


def find_pad_blocks(layout: Layout, geometry: Geometry) -> dict[int, tuple[int, ...]]:
    """Return, by piece, the numbers of the blocks that lie wholly in pad files (BEP 47)."""
    table: dict[int, list[int]] = {}
    piece_length = geometry.piece_length
    for entry in layout.files:
        if not entry.is_pad or entry.length < 1:
            continue
        at, end = entry.offset, entry.offset + entry.length
        while at < end:
            index, begin = divmod(at, piece_length)
            stop = min(end - index * piece_length, geometry.length_of(index))
            first = -(-begin // BLOCK_LENGTH)
            last = (
                geometry.num_blocks(index)
                if stop == geometry.length_of(index)
                else (stop // BLOCK_LENGTH)
            )
            table.setdefault(index, []).extend(range(first, last))
            at = (index + 1) * piece_length
    return {index: tuple(blocks) for index, blocks in table.items() if blocks}
