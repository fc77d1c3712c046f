"""
Taking a file, while it is being downloaded, from another torrent that has just completed it.

Two torrents of a session that both lack a file fetch it each for itself; whoever is
first tells the others (``engine.store.reuse``). Of pieces that nobody was asked for
yet the bytes are hashed as the other torrent has them and copied, a few MiB at a
time, while the rest goes on. They are hashed once more before their first upload,
since between hashing and copying somebody may have changed the file (Limit: F5).

Pieces in progress are left alone: their blocks are on the way, and their file is
written to, so it cannot be replaced by a clone or a link as before the download. So are
those that v1 files share: one file does not tell whether such a piece is right.

Source: BEP 52 (a root names a file, whatever torrent it is in); ``codec.fingerprints``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from pathlib import Path

from bittern.codec.fingerprints import fingerprints
from bittern.codec.info import Info
from bittern.core.errors import Inconsistent, StorageError
from bittern.engine.events import Event, FileReused
from bittern.engine.pieces.assembly import Assembly
from bittern.engine.store.disk import Disk
from bittern.policy.picker import Picker
from bittern.storage.adopt import ReuseHow
from bittern.storage.base import Storage
from bittern.storage.donors import DonorStorage
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.system import OsCalls

BATCH_LENGTH = 16 << 20
"""Bytes that one job of the worker hashes and copies; one piece if that is longer."""
READ_LENGTH = 1 << 20
"""Bytes that are read at a time."""


class Borrower:
    """
    The one described in the module's text, for a torrent that is awake.

    Args:
        assembly: of the torrent.
        layout: of the torrent.
        info: of the torrent.
        picker: of the torrent.
        hashes: of the torrent.
        storage: of the torrent.
        disk: of the session.
        os_calls: the operating system.
        pieces_opened: hears of pieces before they are written to (F7).
        report: tells the outside.
        go_on: called when pieces can be asked of peers again.
        failed: hears that we cannot write, or that the torrent contradicts itself (P13).
    """

    def __init__(
        self,
        *,
        assembly: Assembly,
        layout: Layout,
        info: Info,
        picker: Picker,
        hashes: PieceHashes,
        storage: Storage,
        disk: Disk,
        os_calls: OsCalls,
        pieces_opened: Callable[[list[int]], None],
        report: Callable[[Event], None],
        go_on: Callable[[], None],
        failed: Callable[[StorageError | Inconsistent], None],
    ) -> None:
        self._assembly = assembly
        self._layout = layout
        self._info = info
        self._picker = picker
        self._hashes = hashes
        self._storage = storage
        self._disk = disk
        self._os_calls = os_calls
        self._pieces_opened = pieces_opened
        self._report = report
        self._go_on = go_on
        self._failed = failed
        self._by_name: dict[bytes, list[int]] | None = None
        """The files by their fingerprints; made for the first file that is offered."""
        self._waiting: deque[tuple[int, Path]] = deque()
        """Files to be taken, and from where."""
        self._is_busy = False
        self._is_stopped = False

    def take(self, names: Set[bytes], path: Path) -> None:
        """Take what is missing of the files with one of some fingerprints from a complete one."""
        if self._by_name is None:
            self._by_name = {}
            for index in range(len(self._info.files)):
                for name in fingerprints(self._info, index):
                    self._by_name.setdefault(name, []).append(index)
        indices = {index for name in names for index in self._by_name.get(name, ())}
        self._waiting.extend((index, path) for index in sorted(indices))
        if not self._is_busy:
            self._next()

    def stop(self) -> None:
        """Take nothing more."""
        self._is_stopped = True
        self._waiting.clear()

    def _next(self) -> None:
        while self._waiting and not self._is_busy and not self._is_stopped:
            self._take_rest(*self._waiting.popleft(), 0)

    def _take_rest(self, index: int, path: Path, num_taken: int) -> None:
        """Take the next few pieces of a file, and so on until none is left; then ``_next``."""
        pieces = self._free_pieces(index)
        if not pieces:
            self._tell(index, path, num_taken)
            return
        self._is_busy = True
        for piece in pieces:
            self._picker.mark_open(piece)
        self._pieces_opened(pieces)
        donor = DonorStorage(self._layout, {index: path}, self._os_calls)

        good: list[int] = []

        def copy() -> None:
            try:
                good.extend(piece for piece in pieces if self._copy(donor, piece))
            finally:
                donor.close()

        def done(_: None, error: BaseException | None) -> None:
            self._is_busy = False
            if self._is_stopped:
                return
            for piece in pieces:
                self._picker.mark_closed(piece)
            total = num_taken + sum(self._length_in(index, piece) for piece in good)
            self._assembly.take(good)
            if isinstance(error, StorageError | Inconsistent):
                self.stop()
                self._failed(error)
                return
            if error is not None:
                raise error
            if len(good) == len(pieces):
                self._take_rest(index, path, total)
            else:
                # It is not what it was said to be, or has gone: no more of it.
                self._tell(index, path, total)
            self._next()
            self._go_on()

        self._disk.submit(copy, done, lane=self._storage)

    def _free_pieces(self, index: int) -> list[int]:
        """Return pieces of a file that are wanted, missing, and not in progress; not too many."""
        picker, found = self._picker, []
        free = picker.missing & ~picker.open
        length = 0
        for piece in self._layout.pieces_of_file(index):
            if not free >> (picker.top - piece) & 1 or not self._hashes.can_judge(piece):
                continue
            if self._layout.files_of_piece(piece) == [index]:
                found.append(piece)
                length += self._hashes.piece_length
                if length >= BATCH_LENGTH:
                    break
        return found

    def _length_in(self, index: int, piece: int) -> int:
        """Return how many bytes of a file lie in a piece."""
        entry, geometry = self._info.files[index], self._assembly.geometry
        start = geometry.offset_of(piece)
        end = min(start + geometry.piece_length, entry.offset + entry.length)
        return end - max(start, entry.offset)

    def _copy(self, donor: DonorStorage, piece: int) -> bool:
        """
        Hash a piece where it is, and if it is right write it here; for the worker.

        Raises:
            StorageError: it cannot be written.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        hasher = self._hashes.start(piece)
        return (
            self._read(donor, piece, lambda _, part: hasher.update(part))
            and self._hashes.is_good(piece, hasher)
            and self._read(donor, piece, lambda at, part: self._storage.write(at, [part]))
        )

    def _read(
        self, donor: DonorStorage, piece: int, use: Callable[[int, memoryview], None]
    ) -> bool:
        """Give a piece to ``use``, in parts and where they begin; False if it cannot be read."""
        geometry = self._assembly.geometry
        start = geometry.offset_of(piece)
        end = start + geometry.length_of(piece)
        buffer = memoryview(bytearray(min(end - start, READ_LENGTH)))
        for offset in range(start, end, len(buffer)):
            part = buffer[: end - offset]
            try:
                donor.read_into(offset, [part])
            except StorageError:
                return False
            use(offset, part)
        return True

    def _tell(self, index: int, path: Path, num_taken: int) -> None:
        if num_taken:
            name = "/".join(self._info.files[index].path)
            self._report(FileReused(index, name, num_taken, str(path), ReuseHow.COPY.value))
