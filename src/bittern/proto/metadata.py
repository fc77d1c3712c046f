"""
The info dictionary from peers, and to them, as bookkeeping without I/O.

Fetching trusts nobody. The announced size is one peer's word, so each claimed
size is an *attempt* of its own, which grows only with pieces that arrive. When
an attempt does not match the info hash and several peers had a part in it,
nobody is blamed yet: from then on that size is fetched from one peer at a time,
and a peer that fails alone is guilty.

Attempts take turns. Two go on at a time, the others wait in a queue, first come
first served. While others wait, an attempt that brings nothing for a while, or
that is not done within its turn, goes to the end of the queue and gets twice
the time next. So liars who send garbage, who fall silent, who send slowly or
who come back again and again cost a turn each, and an honest peer gets its turn
after those who came before it.

Sources: BEP 9; threats.md H7.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import islice

from bittern.codec.extension import MAX_METADATA_LENGTH, METADATA_PIECE_LENGTH

MAX_ATTEMPTS = 2
"""Limit: H7. Attempts, and so claimed sizes, that go on at the same time."""
MAX_OUTSTANDING = 2
"""Limit: H7. Requests under way to one peer."""
REQUEST_TIMEOUT = 8.0
"""Seconds until a request counts as refused."""
REFUSAL_PAUSE = 10.0
"""Seconds for which a peer is not asked after a refusal; twice as many after the next."""
MAX_REFUSAL_PAUSE = 160.0
TURN = 3.0
"""Seconds of an attempt's first turn while others wait; every later one is twice as long."""
STALL = 2.0
"""Seconds without a piece that end the first turn; every later one is twice as patient."""
MAX_PATIENCE = 32
"""Times that turn and stall are lengthened at the most."""
DUPLICATE_AFTER = 1.0
"""Seconds after which everybody is asked for a piece that is all that is missing."""
MAX_SERVED_QUEUE = 64
"""Limit: H7. Requests of one peer that are answered within a window."""
SERVED_WINDOW = 10.0
"""Seconds of that window."""

_Key = tuple[int, Hashable | None]
"""A claimed size, and the only peer that is asked; None for all who claim it."""


@dataclass(slots=True)
class _Attempt:
    """An info dictionary of one claimed size in the making."""

    length: int
    patience: int
    missing: dict[int, None]
    """Pieces that nobody is asked for."""
    asked: dict[int, dict[Hashable, float]] = field(default_factory=dict)
    """Pieces under way: who was asked, and when."""
    pieces: dict[int, bytes] = field(default_factory=dict)
    senders: dict[Hashable, None] = field(default_factory=dict)
    started_at: float | None = None
    """When somebody was first asked."""
    progress_at: float = 0.0

    @property
    def num_pieces(self) -> int:
        return -(-self.length // METADATA_PIECE_LENGTH)

    def length_of(self, piece: int) -> int:
        return min(METADATA_PIECE_LENGTH, self.length - piece * METADATA_PIECE_LENGTH)

    def unask(self, piece: int, peer: Hashable) -> bool:
        """Forget that ``peer`` was asked for a piece; False if it was not."""
        askers = self.asked.get(piece, {})
        if peer not in askers:
            return False
        del askers[peer]
        if not askers:
            del self.asked[piece]
            self.missing[piece] = None
        return True

    def is_over(self, now: float) -> bool:
        """Tell whether its turn, which has begun, has ended, if others wait."""
        assert self.started_at is not None
        return (
            now - self.started_at >= TURN * self.patience
            or now - self.progress_at >= STALL * self.patience
        )


class MetadataFetch:
    """
    Fetches one info dictionary from many peers.

    Args:
        matches: tells whether bytes have the info hash that is looked for.
    """

    def __init__(self, matches: Callable[[bytes], bool]) -> None:
        self._matches = matches
        self._claims: dict[Hashable, int] = {}
        self._attempts: dict[_Key, _Attempt] = {}
        self._waiting: dict[_Key, int] = {}
        """The queue, with the patience that each attempt will have."""
        self._is_mixed: set[int] = set()
        """Sizes of which an attempt with several senders has failed."""
        self._refusals: dict[Hashable, tuple[float, float]] = {}
        """Until when a peer is not asked, and for how long next time."""
        self._now = 0.0
        self.metadata: bytes | None = None
        """The info dictionary once it is complete and matches."""

    @property
    def num_claims(self) -> int:
        """Peers that say they have it."""
        return len(self._claims)

    # --- who claims what -----------------------------------------------------------------

    def claim(self, peer: Hashable, length: int) -> None:
        """Note the size that a peer announced; out of range is ignored."""
        if self._claims.get(peer) == length or not 0 < length <= MAX_METADATA_LENGTH:
            return
        self._unclaim(peer)
        self._claims[peer] = length
        key = (length, peer if length in self._is_mixed else None)
        if key not in self._attempts:
            self._waiting.setdefault(key, 1)

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left or was banned."""
        self._unclaim(peer)
        self._refusals.pop(peer, None)

    def _unclaim(self, peer: Hashable) -> None:
        length = self._claims.pop(peer, None)
        if length is None:
            return
        for attempt in self._attempts.values():
            for piece in list(attempt.asked):
                attempt.unask(piece, peer)
        self._drop((length, peer))
        if length not in self._claims.values():
            self._drop((length, None))
            self._is_mixed.discard(length)

    def _drop(self, key: _Key) -> None:
        self._attempts.pop(key, None)
        self._waiting.pop(key, None)

    # --- asking --------------------------------------------------------------------------

    def next_requests(self, peer: Hashable, *, now: float) -> list[int]:
        """Return the pieces to ask a peer for now, counted as asked."""
        self._now = now
        length = self._claims.get(peer)
        if self.metadata is not None or length is None or self._is_resting(peer):
            return []
        self._fill_slots()
        attempt = self._attempt_of(peer)
        if attempt is None:
            return []
        space = MAX_OUTSTANDING - sum(peer in askers for askers in attempt.asked.values())
        wanted = list(islice(attempt.missing, max(0, space)))
        if not attempt.missing and space > 0:
            late = (
                piece
                for piece, askers in attempt.asked.items()
                if peer not in askers and now - min(askers.values()) > DUPLICATE_AFTER
            )
            wanted = list(islice(late, space))
        for piece in wanted:
            attempt.missing.pop(piece, None)
            attempt.asked.setdefault(piece, {})[peer] = now
        if wanted and attempt.started_at is None:
            attempt.started_at = attempt.progress_at = now
        return wanted

    def _attempt_of(self, peer: Hashable) -> _Attempt | None:
        length = self._claims.get(peer)
        if length is None:
            return None
        return self._attempts.get((length, None)) or self._attempts.get((length, peer))

    def _is_resting(self, peer: Hashable) -> bool:
        return self._now < self._refusals.get(peer, (0.0, 0.0))[0]

    def _fill_slots(self) -> None:
        while len(self._attempts) < MAX_ATTEMPTS:
            ready = (key for key in self._waiting if key[1] is None or not self._is_resting(key[1]))
            key = next(ready, None)
            if key is None:
                return
            patience = self._waiting.pop(key)
            num_pieces = -(-key[0] // METADATA_PIECE_LENGTH)
            self._attempts[key] = _Attempt(key[0], patience, dict.fromkeys(range(num_pieces)))

    # --- answers -------------------------------------------------------------------------

    def data_received(
        self, peer: Hashable, piece: int, data: bytes, *, now: float
    ) -> set[Hashable]:
        """
        Take a piece.

        Returns:
            Peers that are now known to have lied: those that sent a whole wrong
            dictionary alone, or a piece of a wrong length. They are forgotten.
        """
        self._now = now
        attempt = self._attempt_of(peer)
        if attempt is None or not attempt.unask(piece, peer):
            return set()
        if len(data) != attempt.length_of(piece):
            self.forget(peer)
            return {peer}
        attempt.missing.pop(piece, None)
        attempt.asked.pop(piece, None)
        attempt.pieces[piece] = data
        attempt.senders[peer] = None
        attempt.progress_at = now
        self._refusals.pop(peer, None)
        if len(attempt.pieces) < attempt.num_pieces:
            return set()
        whole = b"".join(attempt.pieces[number] for number in range(attempt.num_pieces))
        if self._matches(whole):
            self.metadata = whole
            self._attempts.clear()
            self._waiting.clear()
            return set()
        return self._mismatched(attempt, peer)

    def _mismatched(self, attempt: _Attempt, peer: Hashable) -> set[Hashable]:
        """Blame the only sender, or begin to find out which of several it was."""
        length = attempt.length
        self._drop((length, None))
        if len(attempt.senders) == 1:
            self.forget(peer)
            if length in self._claims.values() and length not in self._is_mixed:
                self._waiting.setdefault((length, None), 1)
            return {peer}
        self._is_mixed.add(length)
        for other, claimed in self._claims.items():
            if claimed == length:
                self._waiting.setdefault((length, other), 1)
        return set()

    def rejected(self, peer: Hashable, piece: int) -> None:
        """Note that a peer will not send a piece; it may not have the metadata itself yet."""
        attempt = self._attempt_of(peer)
        if attempt is not None and attempt.unask(piece, peer):
            self._refuse(peer)

    def _refuse(self, peer: Hashable) -> None:
        if not self._is_resting(peer):
            pause = self._refusals.get(peer, (0.0, REFUSAL_PAUSE))[1]
            self._refusals[peer] = (self._now + pause, min(2 * pause, MAX_REFUSAL_PAUSE))

    # --- time ----------------------------------------------------------------------------

    def handle_timer(self, *, now: float) -> None:
        """Give up requests that are overdue and turns that have ended; about once a second."""
        self._now = now
        for key, attempt in list(self._attempts.items()):
            for piece, askers in list(attempt.asked.items()):
                for peer, asked_at in list(askers.items()):
                    if now - asked_at > REQUEST_TIMEOUT:
                        attempt.unask(piece, peer)
                        self._refuse(peer)
            if attempt.started_at is None:
                attempt.started_at = attempt.progress_at = now
            elif self._waiting and attempt.is_over(now):
                del self._attempts[key]
                self._waiting[key] = min(2 * attempt.patience, MAX_PATIENCE)
        self._fill_slots()

    @property
    def progress(self) -> tuple[int, int]:
        """Pieces there and pieces in all, of the attempt that is furthest; (0, 0) without one."""
        best = max(
            self._attempts.values(), key=lambda a: len(a.pieces) / a.num_pieces, default=None
        )
        return (0, 0) if best is None else (len(best.pieces), best.num_pieces)


class MetadataServer:
    """
    Serves the info dictionary of one torrent to its peers.

    Args:
        metadata: the raw info dictionary.
    """

    def __init__(self, metadata: bytes) -> None:
        self._metadata = metadata
        self._served: dict[Hashable, tuple[float, int]] = {}

    @property
    def length(self) -> int:
        """Bytes of the info dictionary."""
        return len(self._metadata)

    def admits(self, peer: Hashable, number: int, *, now: float) -> bool:
        """Count a request; False when there is no such piece or the peer asks too often (H7)."""
        started_at, count = self._served.get(peer, (now, 0))
        if now - started_at > SERVED_WINDOW:
            started_at, count = now, 0
        # Whoever fetches a large dictionary at an honest pace must never be refused.
        allowed = max(MAX_SERVED_QUEUE, 2 * -(-self.length // METADATA_PIECE_LENGTH))
        self._served[peer] = (started_at, count + 1)
        return count < allowed and number * METADATA_PIECE_LENGTH < self.length

    def piece(self, number: int) -> bytes:
        """Return a piece, of a request that was admitted."""
        start = number * METADATA_PIECE_LENGTH
        return self._metadata[start : start + METADATA_PIECE_LENGTH]

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left."""
        self._served.pop(peer, None)
