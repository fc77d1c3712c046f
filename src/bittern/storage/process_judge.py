"""
Judge pieces with the help of a hashing process, as they lie in storage.

Runs of pieces are read straight into the memory shared with the process, one
slot while the other is being hashed. A piece longer than a slot goes through
in steps. What storage will not give in one read is left to the caller, who
looks at it piece by piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from bittern.core.errors import StorageError
from bittern.core.geometry import Geometry
from bittern.storage.base import Readable
from bittern.storage.hash_process import (
    FIRST,
    LAST,
    NUM_SLOTS,
    ROOT_LEVEL,
    SLOT_LENGTH,
    WITH_V1,
    WITH_V2,
    HashProcess,
    Step,
)
from bittern.storage.hashing import PieceHashes, PiecePlan

_V1_LENGTH = 20
_V2_LENGTH = 32


class ProcessJudge:
    """
    One thread's work with one process.

    Args:
        storage: of the torrent.
        geometry: of the torrent.
        hashes: of the torrent.
        process: used by nobody else.
        judged: takes a piece and whether it is good.
        judge_alone: judges a piece without the process; may raise StorageError.
    """

    def __init__(
        self,
        storage: Readable,
        geometry: Geometry,
        hashes: PieceHashes,
        process: HashProcess,
        *,
        judged: Callable[[int, bool], None],
        judge_alone: Callable[[int], None],
    ) -> None:
        self._storage = storage
        self._geometry = geometry
        self._hashes = hashes
        self._process = process
        self._judged = judged
        self._judge_alone = judge_alone
        self._pending: deque[list[tuple[int, PiecePlan]]] = deque()
        """Per request under way, the pieces that its answer has hashes of."""
        self._num_requests = 0
        self.unjudged: dict[int, None] = {}
        """Pieces that were given and not judged yet, in order; whose they are when we fail."""

    def judge(self, pieces: Sequence[int]) -> None:
        """
        Take pieces; some are judged before this returns, the rest later.

        Raises:
            OSError: the process is gone; see ``unjudged``.
            StorageError: as ``judge_alone``.
            Inconsistent: as ``PieceHashes.is_match``.
        """
        self.unjudged |= dict.fromkeys(pieces)
        for run in self._runs(pieces):
            try:
                if self._geometry.piece_length > SLOT_LENGTH:
                    self._request_long(run[0])
                else:
                    self._request_run(run)
            except StorageError:
                for index in run:
                    self._judge_alone(index)
                    del self.unjudged[index]

    def finish(self) -> None:
        """Wait until all pieces are judged; may raise what ``judge`` does."""
        while self._pending:
            self._collect()

    def _runs(self, pieces: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut ``pieces`` into runs of neighbours that fit into a slot."""
        most = max(1, SLOT_LENGTH // self._geometry.piece_length)
        begin = 0
        for at in range(1, len(pieces) + 1):
            if at == len(pieces) or at - begin == most or pieces[at] != pieces[begin] + at - begin:
                yield pieces[begin:at]
                begin = at

    def _request_run(self, run: Sequence[int]) -> None:
        geometry, start = self._geometry, self._geometry.offset_of(run[0])
        length = geometry.offset_of(run[-1]) + geometry.length_of(run[-1]) - start
        slot = self._read(start, length)
        plans = [(index, self._hashes.plan(index)) for index in run]
        steps = [
            _step(
                FIRST | LAST,
                slot + geometry.offset_of(index) - start,
                geometry.length_of(index),
                plan,
                plan.v2_length,
            )
            for index, plan in plans
        ]
        self._submit(steps, plans)

    def _request_long(self, index: int) -> None:
        start, length = self._geometry.offset_of(index), self._geometry.length_of(index)
        plan = self._hashes.plan(index)
        for at in range(0, length, SLOT_LENGTH):
            part = min(SLOT_LENGTH, length - at)
            slot = self._read(start + at, part)
            flags = (FIRST if not at else 0) | (LAST if at + part == length else 0)
            v2_length = min(part, max(0, plan.v2_length - at))
            self._submit(
                [_step(flags, slot, part, plan, v2_length)],
                [(index, plan)] if flags & LAST else [],
            )

    def _read(self, offset: int, length: int) -> int:
        """Read into a free slot and return where that begins."""
        if len(self._pending) == NUM_SLOTS:
            self._collect()
        slot = self._num_requests % NUM_SLOTS * SLOT_LENGTH
        self._storage.read_into(offset, (self._process.memory[slot : slot + length],))
        return slot

    def _submit(self, steps: list[Step], plans: list[tuple[int, PiecePlan]]) -> None:
        self._process.submit(steps)
        self._pending.append(plans)
        self._num_requests += 1

    def _collect(self) -> None:
        plans = self._pending[0]
        length = sum(
            (_V1_LENGTH if plan.has_v1 else 0) + (_V2_LENGTH if plan.v2_length else 0)
            for _, plan in plans
        )
        answer = self._process.answer(length)
        self._pending.popleft()
        at = 0
        for index, plan in plans:
            v1 = v2 = None
            if plan.has_v1:
                v1 = answer[at : at + _V1_LENGTH]
                at += _V1_LENGTH
            if plan.v2_length:
                v2 = answer[at : at + _V2_LENGTH]
                at += _V2_LENGTH
            self._judged(index, self._hashes.is_match(index, v1, v2))
            del self.unjudged[index]


def _step(flags: int, begin: int, length: int, plan: PiecePlan, v2_length: int) -> Step:
    flags |= (WITH_V1 if plan.has_v1 else 0) | (WITH_V2 if plan.v2_length else 0)
    level = ROOT_LEVEL if plan.v2_level is None else plan.v2_level
    return Step(flags, begin, length, v2_length, level)
