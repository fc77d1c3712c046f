"""
Who sent bad blocks.

When a piece with several senders fails, nobody is accused yet: a digest of
each of its blocks is kept with its sender, the piece is fetched again from one
peer, and once it passes, those whose blocks were different are the liars and
nobody else is. A piece that one peer sent alone needs no such comparison.

Sources: threats.md H4; libtorrent's "smart ban" has the same idea.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain

MAX_SUSPECT_PIECES = 64
"""Limit: H4. Failed pieces whose block digests are kept; the oldest go first."""
MAX_DIGESTS = 131_072
"""Limit: H4. Block digests kept in all, about 10 MiB; the oldest attempts go first."""
MAX_ADDRESSES = 10_000
"""Addresses whose record is kept; the oldest go first."""

Attempt = tuple[Sequence[bytes], Sequence[Hashable | None]]
"""Digest and sender of each block of a piece that failed."""


class Suspects:
    """Failed pieces of one torrent and the record of its peers' addresses."""

    def __init__(self) -> None:
        self._attempts: dict[int, list[Attempt]] = {}
        self._num_digests = 0
        self._good: dict[Hashable, int] = {}

    def piece_failed(
        self,
        index: int,
        senders: Sequence[Hashable | None],
        digests: Callable[[], Sequence[bytes]],
    ) -> set[Hashable]:
        """
        Note a piece that did not match.

        Args:
            index: of the piece.
            senders: who sent each block; None for padding or an earlier run.
            digests: computes one digest per block; called only when it is needed.

        Returns:
            Those who are certainly guilty: the sender, if there was only one.
        """
        if None not in senders and len(set(senders)) == 1:
            return {sender for sender in senders if sender is not None}
        if any(sender is not None for sender in senders):
            self._remember(index, (digests(), tuple(senders)))
        return set()

    def _remember(self, index: int, attempt: Attempt) -> None:
        self._attempts.setdefault(index, []).append(attempt)
        self._num_digests += len(attempt[0])
        while self._num_digests > MAX_DIGESTS or len(self._attempts) > MAX_SUSPECT_PIECES:
            oldest = next(iter(self._attempts))
            self._num_digests -= len(self._attempts[oldest].pop(0)[0])
            if not self._attempts[oldest]:
                del self._attempts[oldest]

    def pieces_passed(
        self,
        pieces: Iterable[tuple[int, Sequence[Hashable | None]]],
        digests: Callable[[int], Sequence[bytes]],
    ) -> set[Hashable]:
        """
        Note good pieces; return those whose earlier blocks of them were different.

        Args:
            pieces: index and senders of each, as in ``piece_failed``.
            digests: computes those of a piece; called only for one that has failed before.
        """
        pieces = list(pieces)
        guilty: set[Hashable] = set()
        if self._attempts:
            for index, _ in pieces:
                if index in self._attempts:
                    guilty |= self._find_liars(self._attempts.pop(index), digests(index))
        good = Counter(chain.from_iterable([set(senders) for _, senders in pieces]))
        good.pop(None, None)
        for sender, count in good.items():
            self._good[sender] = self._good.pop(sender, 0) + count
            if len(self._good) > MAX_ADDRESSES:
                del self._good[next(iter(self._good))]
        return guilty

    def _find_liars(self, attempts: list[Attempt], right: Sequence[bytes]) -> set[Hashable]:
        self._num_digests -= sum(len(wrong) for wrong, _ in attempts)
        return {
            sender
            for wrong, earlier in attempts
            for number, sender in enumerate(earlier)
            if sender is not None and wrong[number] != right[number]
        }

    def num_good(self, sender: Hashable) -> int:
        """Return how many good pieces an address has had a part in."""
        return self._good.get(sender, 0)
