"""
Hashes of v2 files from peers, as bookkeeping without I/O.

What is wanted is a *span*: a run of hashes of one level of a file's tree below a
node that is known, the file's root or the hash of one of its pieces. So it may
be a file's piece layer, or the hashes of the blocks of one piece. A span is
asked for in parts of up to 512 hashes, each with the uncles that lead to the
known node, so every answer is judged by itself: a peer that sends hashes which
lead elsewhere has lied, and nobody else has. No answer is kept before it is
proven, so no claim of a peer is ever believed.

A part is asked of one peer at a time. One that refuses or stays silent is not
asked for that part again for a while, each time for longer, and others are.

Sources: BEP 52 (hash request, hashes, hash reject); threats.md H10, P13.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

from bittern.codec.merkle import (
    HASH_LENGTH,
    MAX_REQUEST_HASHES,
    MIN_REQUEST_HASHES,
    height_of,
    is_proof,
)
from bittern.codec.wire import HashRange

MAX_OUTSTANDING = 32
"""Requests under way to one peer; a server has to stand 50 (Limit: H10)."""
REQUEST_TIMEOUT = 8.0
"""Seconds without any hashes from a peer until its requests count as refused."""
READ_RATE = 16 << 20
"""Bytes a second: what a peer must read to answer gives it so much more time."""
REFUSAL_PAUSE = 3.0
"""Seconds for which a peer is not asked for what it refused; twice as long after the next."""
MAX_REFUSAL_PAUSE = 60.0
MAX_LOOKED_AT = 512
"""
Limit: H10. Parts that are looked at to find what a peer may be asked for. Where there are more,
the next search goes on behind the last: who refuses all of them must not cost their square.
"""
RESERVE_AFTER = 0.5
"""Seconds for which a part waits for a peer that surely has it before any other is asked."""

Key = Hashable
"""Names what was wanted; chosen by the owner."""


@dataclass(frozen=True, slots=True)
class Span:
    """
    A run of hashes to be fetched.

    Args:
        pieces_root: of the file.
        num_leaves: blocks of the file.
        level: of the hashes, 0 being blocks.
        index: of the first hash in its level; a multiple of the width of the known node.
        count: hashes, those that cover data only.
        top_level: of the known node, above ``level``.
        top_hash: the known node.
        read_length: bytes that a peer has to read, and hash, before it can answer.
    """

    pieces_root: bytes
    num_leaves: int
    level: int
    index: int
    count: int
    top_level: int
    top_hash: bytes
    read_length: int = 0

    @property
    def reading_time(self) -> float:
        """Seconds that a peer may take to read what it has to."""
        return self.read_length / READ_RATE

    def parts(self) -> list[HashRange]:
        """
        Return the requests that cover it, in order.

        Interop: the last one asks for as few as it can, because libtorrent's do.
        """
        found = []
        for at in range(0, self.count, MAX_REQUEST_HASHES):
            fitting = 1 << height_of(min(MAX_REQUEST_HASHES, self.count - at))
            found.append(
                HashRange(
                    self.pieces_root,
                    self.level,
                    self.index + at,
                    max(MIN_REQUEST_HASHES, fitting),
                    self.top_level - self.level - 1,
                )
            )
        return found

    def is_proven_by(self, part: HashRange, hashes: bytes) -> bool:
        """Tell whether the hashes of a message lead to the known node."""
        end = part.length * HASH_LENGTH
        return len(hashes) >= end and is_proof(
            hashes[:end],
            hashes[end:],
            level=part.base_layer,
            index=part.index,
            num_leaves=self.num_leaves,
            root=self.top_hash,
            top_level=self.top_level,
        )


@dataclass(slots=True)
class _Part:
    """One request of a span and what became of it."""

    wanted: HashRange
    waiting_since: float
    peer: Hashable | None = None
    """Who is asked now."""
    asked_at: float = 0.0
    refusals: dict[Hashable, tuple[float, float]] = field(default_factory=dict)
    """Until when a peer is not asked, and for how long next time."""


@dataclass(slots=True)
class _Job:
    """A span on its way."""

    span: Span
    missing: dict[HashRange, _Part]
    found: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HashAnswer:
    """
    What became of a message of a peer.

    Args:
        is_lie: its hashes do not lead to the known node.
        key: of the span that it completes; None when none.
        hashes: of that span, end to end.
    """

    is_lie: bool = False
    key: Key | None = None
    hashes: bytes = b""


class HashFetch:
    """Fetches the spans described in the module's text from many peers."""

    def __init__(self) -> None:
        self._jobs: dict[Key, _Job] = {}
        self._parts: dict[HashRange, Key] = {}
        """Every part not yet there, oldest first."""
        self._order: list[HashRange] = []
        """The same, with some that are there or wanted no more."""
        self._places: dict[Hashable, int] = {}
        """Where in that order to go on for a peer."""
        self._place = 0
        """Where to begin for a new one: behind what was asked of anybody last."""
        self._num_asked: dict[Hashable, int] = {}
        self._heard_at: dict[Hashable, float] = {}
        """When a peer has sent something that it was asked for."""

    def __bool__(self) -> bool:
        """True while something is wanted."""
        return bool(self._jobs)

    def want(self, key: Key, span: Span, *, now: float) -> None:
        """
        Fetch a span; does nothing when one of that name is on its way.

        Two keys must not stand for hashes of the same place of one tree.
        """
        if key in self._jobs:
            return
        parts = span.parts()
        self._jobs[key] = _Job(span, {part: _Part(part, now) for part in parts})
        self._parts.update(dict.fromkeys(parts, key))
        self._order += parts

    def drop(self, key: Key) -> None:
        """Want a span no longer; answers that still come are ignored."""
        job = self._jobs.pop(key, None)
        for part in () if job is None else job.missing.values():
            self._unask(part)
            del self._parts[part.wanted]

    def _unask(self, part: _Part) -> None:
        if part.peer is not None:
            self._num_asked[part.peer] -= 1
            if not self._num_asked[part.peer]:
                del self._num_asked[part.peer]
            part.peer = None

    # --- asking --------------------------------------------------------------------------

    def next_requests(
        self,
        peer: Hashable,
        *,
        now: float,
        is_preferred: Callable[[Key], bool] = lambda _: True,
    ) -> list[HashRange]:
        """
        Return what to ask a peer for now, counted as asked.

        Args:
            peer: it speaks v2.
            now: monotonic seconds.
            is_preferred: tells of a span whether this peer should be asked for it at once: it
                surely has what is needed (BEP 52) and nobody suspects it. Others are a reserve.
        """
        space = MAX_OUTSTANDING - self._num_asked.get(peer, 0)
        found: list[HashRange] = []
        if space <= 0:
            return found
        if len(self._order) > 2 * len(self._parts) + MAX_LOOKED_AT:
            self._order, self._place = list(self._parts), 0
            self._places.clear()
        order, is_long = self._order, len(self._order) > MAX_LOOKED_AT
        at = self._places.get(peer, self._place) if is_long else 0
        num_looked_at = 0
        for _ in range(len(order)):
            if space <= len(found) or num_looked_at >= MAX_LOOKED_AT:
                break
            wanted, at = order[at], (at + 1) % len(order)
            key = self._parts.get(wanted)
            if key is None:
                continue
            num_looked_at += 1
            part = self._jobs[key].missing[wanted]
            if part.peer is not None or now < part.refusals.get(peer, (0.0, 0.0))[0]:
                continue
            if now - part.waiting_since < RESERVE_AFTER and not is_preferred(key):
                continue
            part.peer, part.asked_at = peer, now
            found.append(wanted)
            self._place = at
        if is_long:
            self._places[peer] = at
        if found:
            self._num_asked[peer] = self._num_asked.get(peer, 0) + len(found)
        return found

    # --- answers -------------------------------------------------------------------------

    def hashes_received(
        self, peer: Hashable, what: HashRange, hashes: bytes, *, now: float
    ) -> HashAnswer:
        """
        Take a message.

        Returns:
            Its outcome. A lie has been forgotten with all else that its peer was asked for.
            Hashes that nobody asked this peer for are ignored, also those that come too late.
        """
        key = self._parts.get(what)
        job = None if key is None else self._jobs[key]
        part = None if job is None else job.missing[what]
        if job is None or part is None or part.peer != peer:
            return HashAnswer()
        if not job.span.is_proven_by(what, hashes):
            self.forget(peer)
            return HashAnswer(is_lie=True)
        self._heard_at[peer] = now
        self._unask(part)
        del job.missing[what], self._parts[what]
        job.found[what.index] = hashes[: what.length * HASH_LENGTH]
        if job.missing:
            return HashAnswer()
        assert key is not None
        del self._jobs[key]
        whole = b"".join(job.found[index] for index in sorted(job.found))
        return HashAnswer(key=key, hashes=whole[: job.span.count * HASH_LENGTH])

    def rejected(self, peer: Hashable, what: HashRange, *, now: float) -> bool:
        """Note that a peer will not send hashes; False when it was not asked for them."""
        key = self._parts.get(what)
        part = None if key is None else self._jobs[key].missing[what]
        if part is None or part.peer != peer:
            return False
        self._refuse(part, now)
        return True

    def _refuse(self, part: _Part, now: float) -> None:
        pause = part.refusals.get(part.peer, (0.0, REFUSAL_PAUSE))[1]
        part.refusals[part.peer] = (now + pause, min(2 * pause, MAX_REFUSAL_PAUSE))
        self._unask(part)

    def is_hopeless(self, key: Key, peers: Collection[Hashable]) -> bool:
        """Tell whether each of these peers has refused some part of a span that nobody sends."""
        job = self._jobs[key]
        return any(
            part.peer is None and all(peer in part.refusals for peer in peers)
            for part in job.missing.values()
        )

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left or lied; others are asked for what it was asked for."""
        self._heard_at.pop(peer, None)
        self._places.pop(peer, None)
        for wanted, key in self._parts.items():
            part = self._jobs[key].missing[wanted]
            part.refusals.pop(peer, None)
            if part.peer == peer:
                self._unask(part)

    def handle_timer(self, *, now: float) -> None:
        """Give up requests that are overdue; to be called about once a second."""
        for wanted, key in self._parts.items():
            job = self._jobs[key]
            part = job.missing[wanted]
            if part.peer is None:
                continue
            heard_at = max(part.asked_at, self._heard_at.get(part.peer, part.asked_at))
            if now - heard_at > REQUEST_TIMEOUT + job.span.reading_time:
                self._refuse(part, now)
