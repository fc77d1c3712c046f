"""
Mending v2 pieces that are damaged on disk: only their bad blocks are fetched.

A recheck finds that a piece is bad, not where. In v2 peers can tell: they send the
hashes of its blocks, which are proven by the hash of the piece, and what is on
disk is compared with them. The good blocks are kept, as if they had just come.
The same is done for a piece that is found damaged before its first upload, and
for pieces that were being written when a session was killed.

While that may still happen the piece is *held*: nobody is asked for its blocks.
Where nobody gives the hashes it is let go and fetched whole, as v1 pieces are.

Sources: BEP 52 (hash request); threats.md F5, F8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from bittern.core.errors import StorageError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import events
from bittern.engine.pieces.assembly import Assembly
from bittern.engine.pieces.block_judge import FetchBlockHashes
from bittern.engine.store.disk import Disk
from bittern.policy.picker import Picker
from bittern.storage.base import Readable
from bittern.storage.checker import check_blocks
from bittern.storage.hashing import PieceHashes

MAX_HELD = 1024
"""Damaged pieces that are mended; of more, the rest is fetched whole."""
MAX_ASKED = 8
"""Pieces whose block hashes are being fetched at once."""
PATIENCE = 3.0
"""Seconds for which pieces are held while peers have some and none of them knows v2."""
MAX_FAILURES = 3
"""Pieces in a row whose hashes nobody gave; then the others are not waited for."""


class Repair:
    """
    The one described in the module's text.

    Args:
        assembly: of the torrent.
        picker: of the torrent.
        hashes: of the torrent.
        storage: of the torrent.
        disk: of the session.
        fetch: asks peers for the hashes of a piece's blocks.
        offered: returns the pieces that peers and web seeds have, as bits.
        report: tells the outside.
        go_on: called when there are blocks to ask peers for.
    """

    def __init__(
        self,
        *,
        assembly: Assembly,
        picker: Picker,
        hashes: PieceHashes,
        storage: Readable,
        disk: Disk,
        fetch: FetchBlockHashes,
        offered: Callable[[], int],
        report: Callable[[events.Event], None],
        go_on: Callable[[], None],
    ) -> None:
        self._assembly = assembly
        self._picker = picker
        self._hashes = hashes
        self._storage = storage
        self._disk = disk
        self._fetch = fetch
        self._offered = offered
        self._report = report
        self._go_on = go_on
        self._held: dict[int, None] = {}
        """Damaged pieces that nobody has been asked about yet, in order."""
        self._asked: set[int] = set()
        """Those whose hashes are being fetched, or compared."""
        self._alone_since: float | None = None
        self._num_failures = 0
        self._is_stopped = False

    def add(self, pieces: Iterable[int]) -> None:
        """Hold damaged pieces, those that are wanted and can be mended block by block."""
        picker = self._picker
        for index in pieces:
            mask = 1 << (picker.top - index)
            if len(self._held) >= MAX_HELD or not picker.missing & ~picker.open & mask:
                continue
            is_long = self._hashes.plan_run(index, 1).v2_length > BLOCK_LENGTH
            if is_long and self._hashes.is_known(index):
                picker.mark_open(index)
                self._held[index] = None

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""
        self._ask()
        if self._asked or self._next() is None:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since >= PATIENCE:
            self._let_all_go()

    def _ask(self) -> None:
        while len(self._asked) < MAX_ASKED and (index := self._next()) is not None:
            if not self._fetch(index, partial(self._told, index)):
                return
            del self._held[index]
            self._asked.add(index)

    def _next(self) -> int | None:
        """Return the first held piece that a peer has: its blocks are to be had as well."""
        offered = self._offered() if self._held else 0
        top = self._picker.top
        return next((index for index in self._held if offered >> (top - index) & 1), None)

    def _told(self, index: int, expected: bytes | None) -> None:
        """Take the hashes of a piece's blocks; None when nobody gave them."""
        if self._is_stopped:
            return
        if expected is None:
            self._let_go(index)
            self._num_failures += 1
            if self._num_failures >= MAX_FAILURES:
                self._let_all_go()
            self._ask()
            return
        self._num_failures = 0
        geometry = self._assembly.geometry

        def compare() -> list[int]:
            return check_blocks(self._storage, geometry, self._hashes, index, expected)

        def done(bad: list[int] | None, error: BaseException | None) -> None:
            if self._is_stopped:
                return
            self._compared(index, expected, bad)
            if error is not None and not isinstance(error, StorageError):
                raise error

        self._disk.submit(compare, done)

    def _compared(self, index: int, expected: bytes, bad: list[int] | None) -> None:
        """Keep the good blocks of a piece; ``bad`` is None where it could not be read."""
        self._let_go(index)
        picker, assembly = self._picker, self._assembly
        if bad is not None and picker.missing & 1 << (picker.top - index):
            num_blocks = -(-self._hashes.plan_run(index, 1).v2_length // BLOCK_LENGTH)
            assembly.restore({index: set(range(num_blocks)) - set(bad)})
            if assembly.judge is not None:
                assembly.judge.known[index] = expected
            self._report(events.PieceDamaged(index, len(bad), num_blocks))
        self._ask()
        self._go_on()

    def _let_go(self, index: int) -> None:
        self._asked.discard(index)
        self._picker.mark_closed(index)

    def _let_all_go(self) -> None:
        held, self._held = self._held, {}
        for index in held:
            self._picker.mark_closed(index)
        self._go_on()

    def stop(self) -> None:
        """Take no further part."""
        self._is_stopped = True
