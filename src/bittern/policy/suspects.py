"""
Who sent bad blocks.

When a piece with several senders fails, nobody is accused yet: a digest of
each of its blocks is kept with its sender, the piece is fetched again from one
peer, and once it passes, those whose blocks were different are the liars and
nobody else is. A piece that one peer sent alone needs no such comparison.

Sources: threats.md H4; libtorrent's "smart ban" has the same idea.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

MAX_SUSPECT_PIECES = 64
"""Limit: H4. Failed pieces whose block digests are kept."""
MAX_ADDRESSES = 10_000
"""Addresses whose record is kept; the oldest go first."""

Attempt = tuple[Sequence[bytes], Sequence[Hashable | None]]


class Suspects:
    """Failed pieces of one torrent and the record of its peers' addresses."""

    def __init__(self) -> None:
        self._attempts: dict[int, list[Attempt]] = {}
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
        known = {sender for sender in senders if sender is not None}
        if known:
            if len(self._attempts) >= MAX_SUSPECT_PIECES and index not in self._attempts:
                del self._attempts[next(iter(self._attempts))]
            self._attempts.setdefault(index, []).append((digests(), tuple(senders)))
        return set()

    def piece_passed(
        self,
        index: int,
        senders: Sequence[Hashable | None],
        digests: Callable[[], Sequence[bytes]],
    ) -> set[Hashable]:
        """
        Note a good piece; return those whose earlier blocks of it were different.

        Args: as ``piece_failed``; ``digests`` is called only after a failure.
        """
        for sender in set(senders):
            if sender is not None:
                self._count(self._good, sender)
        attempts = self._attempts.pop(index, None)
        if not attempts:
            return set()
        right = digests()
        return {
            sender
            for wrong, earlier in attempts
            for number, sender in enumerate(earlier)
            if sender is not None and wrong[number] != right[number]
        }

    def num_good(self, sender: Hashable) -> int:
        """Return how many good pieces an address has had a part in."""
        return self._good.get(sender, 0)

    @staticmethod
    def _count(table: dict[Hashable, int], key: Hashable) -> int:
        count = table.pop(key, 0) + 1
        table[key] = count
        if len(table) > MAX_ADDRESSES:
            del table[next(iter(table))]
        return count
