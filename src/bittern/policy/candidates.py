"""
Known endpoints of one torrent: whom to dial next.

An endpoint is idle or *active*, that is being dialled or connected. Idle ones
wait in a queue for their instant. One that may not be dialled then, because its
address is busy or banned or was tried too often, is put aside until that is
over, so nothing is ever searched for.

Peer lists come from strangers, so they are not believed: an endpoint in private
space is taken only from somebody who is there himself, one exchange partner
fills a tenth of the list at most, and no address or network is dialled often
enough to harm it. An endpoint that keeps failing is forgotten.

The order is: fewest failures first; then those that were useful before or that
the user or the local network named; then the priority of BEP 40.

Invariants: at most ``capacity`` endpoints are known; the idle ones and only they
are in the queue; an address (IPv6: /64) is dialled only while no other endpoint
of it is active, unless it is loopback or several are allowed.

Sources: BEP 11 (peer exchange), BEP 40 (priority); threats.md H4, H8, H15, F12.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bittern.core.endpoint import Endpoint, is_dialable, is_local, network_of
from bittern.policy.bans import Bans
from bittern.policy.dial_limits import DialLimits
from bittern.policy.dial_queue import DialQueue
from bittern.policy.peer_book import Candidate, PeerBook, Source
from bittern.policy.peer_priority import canonical_priority

__all__ = ["CAPACITY", "Candidates", "Heard", "Source"]

CAPACITY = 3_000
"""Limit: H8. Endpoints known of one torrent; libtorrent's ``max_peerlist_size``."""

PAUSED_CAPACITY = 1_000
"""Limit: H8. The same while the torrent is paused."""

FIRST_BACKOFF = 30.0
FIRST_BACKOFF_OF_USER = 1.0
"""The same for an endpoint that the user named: it may be there in a moment."""
LONGEST_BACKOFF = 3_600.0

MAX_FAILURES = 6
"""Failures in a row after which an endpoint is forgotten, unless the user named it."""

RECONNECT_DELAY = 20.0
"""Limit: F12. Seconds, before jitter, after which a peer that we lost is dialled again."""

SHORT_CONNECTION = 10.0
"""A connection that lasted fewer seconds counts as a failure."""

JITTER = 0.25
"""Every delay varies by this part of it, so that a swarm does not act in step."""

_SEEDS = "seeds"
"""Where seeds are parked while we need nothing."""

_PUBLIC, _PRIVATE, _LOOPBACK = range(3)
"""How near an address is; who is at one may name others that are no nearer."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one source has named: at what instant last, how many then, how many in all."""

    at: float
    num_last: int = 0
    num_named: int = 0


class Candidates:
    """
    The list described in the module's text.

    Args:
        rng: source of chance for jitter.
        now: instant of creation.
        bans: shared with other torrents; None for its own.
        allow_multiple_per_address: several connections to one address (H15).
        capacity: endpoints kept.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        now: float,
        bans: Bans | None = None,
        allow_multiple_per_address: bool = False,
        capacity: int = CAPACITY,
    ) -> None:
        self.allow_multiple_per_address = allow_multiple_per_address
        self.bans: Bans = Bans() if bans is None else bans
        self._capacity = capacity
        self._rng = rng
        self._now = now
        self._dials = DialLimits()
        self._queue: DialQueue[Candidate] = DialQueue()
        self._book = PeerBook(capacity, self._queue.withdraw)
        self._active: dict[Endpoint, str] = {}
        """Endpoints dialled or connected, listed or not, with their address."""
        self._busy: Counter[str] = Counter()
        self._self: set[Endpoint] = set()
        self._external: dict[bool, Endpoint] = {}
        """Our own endpoint as others see it, by whether it is IPv6."""
        self._heard: dict[Source, Heard] = {}
        self._is_paused = False
        self.num_forgotten: int = 0
        """Endpoints given up after ``MAX_FAILURES``."""

    # --- who is there --------------------------------------------------------------------

    def add(
        self,
        endpoints: Iterable[Endpoint],
        source: Source,
        *,
        now: float,
        from_host: str | None = None,
        is_seed: bool = False,
    ) -> int:
        """
        Take note of endpoints that somebody has named.

        Args:
            endpoints: in canonical form, as ``Endpoint.make`` returns them.
            source: where they come from.
            now: monotonic seconds.
            from_host: address of the tracker, peer or node that named them. Only
                one that is local may name local endpoints, and only by it a peer
                is held to its tenth of the list.
            is_seed: they are said to need nothing (BEP 11, BEP 21).

        Returns:
            How many were new and are kept.
        """
        self._now = now
        reach = _LOOPBACK
        if source in (Source.TRACKER, Source.DHT, Source.PEX):
            reach = _PUBLIC if from_host is None else _nearness(from_host)
        is_exchange = source is Source.PEX and from_host is not None
        named_by = network_of(from_host) if is_exchange and from_host is not None else None
        num_named = num_new = 0
        for endpoint in endpoints:
            num_named += 1
            entry = self._book.entries.get(endpoint)
            if entry is None:
                if not (
                    self._book.has_share(named_by)
                    and self._is_credible(endpoint, reach)
                    and self._book.has_room(source)
                ):
                    continue
                entry = self._insert(endpoint, source, named_by)
                if endpoint in self._active:
                    # It connected while the list was full: known from now on, not to be dialled.
                    entry.is_active = True
                    entry.connected_at = now
                else:
                    self._put(entry, now)
                num_new += 1
            elif source is Source.USER and entry.source is not source:
                entry.source = source
                entry.failures = 0
                if not entry.is_active:
                    self._put(entry, now)
            if is_seed and not entry.is_seed:
                self._mark_seed(entry)
        self._note(source, num_named)
        return num_new

    def _note(self, source: Source, num_named: int) -> None:
        now, last = self._now, self._heard.get(source, Heard(self._now))
        self._heard[source] = Heard(
            now,
            num_named + (last.num_last if last.at == now else 0),
            last.num_named + num_named,
        )

    def heard(self, source: Source) -> Heard | None:
        """Return what a source has named; None while it has named nothing."""
        return self._heard.get(source)

    def set_external(self, endpoint: Endpoint) -> None:
        """
        Note our own endpoint as others see it; one for each family.

        It is never dialled, and the priority of BEP 40 counts from it.
        """
        if self._external.get(endpoint.is_ipv6) == endpoint:
            return
        self._external[endpoint.is_ipv6] = endpoint
        self.mark_self(endpoint)
        for entry in self._book.entries.values():
            entry.priority = self._priority(entry.endpoint)
        self._queue.rerank()

    def mark_self(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that turned out to be ourselves, and do not take it again."""
        if len(self._self) < PAUSED_CAPACITY:
            self._self.add(endpoint)
        self._release(endpoint)
        if endpoint in self._book.entries:
            self._book.remove(self._book.entries[endpoint])

    def forget_from(self, sources: Collection[Source]) -> list[Endpoint]:
        """Forget what certain sources have named first, and return it; connections stay."""
        found = [entry for entry in self._book.entries.values() if entry.source in sources]
        for entry in found:
            self._book.remove(entry)
        return [entry.endpoint for entry in found]

    def mark_seed(self, endpoint: Endpoint) -> None:
        """Note that a peer needs nothing; it is not dialled while we need nothing either."""
        if endpoint in self._book.entries:
            self._mark_seed(self._book.entries[endpoint])

    def _mark_seed(self, entry: Candidate) -> None:
        entry.is_seed = True
        self._book.changed()

    def entries(self) -> Iterable[Candidate]:
        """Return the book's entries, for reading."""
        return self._book.entries.values()

    def __len__(self) -> int:
        return len(self._book.entries)

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._book.entries

    # --- whom to dial --------------------------------------------------------------------

    def next_to_dial(self, count: int, *, now: float) -> list[Endpoint]:
        """
        Choose endpoints to connect to now.

        Each is active from here on: the caller reports every one with
        ``connected``, ``failed`` or ``disconnected``.

        Returns:
            At most ``count`` endpoints, the best first.

        Source: BEP 40. O(log endpoints) each, also for each one put aside.
        """
        self._now = now
        chosen: list[Endpoint] = []
        while len(chosen) < count and (entry := self._queue.pop(now)) is not None:
            if not self._put_aside(entry, now):
                self._activate(entry.endpoint)
                self._dials.note(entry.address, entry.endpoint.host, now=now)
                chosen.append(entry.endpoint)
        return chosen

    def next_timer(self) -> float | None:
        """Return the instant from which ``next_to_dial`` may find somebody, or None."""
        return self._queue.next_instant(self._now)

    def connected(self, endpoint: Endpoint, *, now: float) -> None:
        """
        Note a connection, also one that the peer made; then with the port it listens on.

        Its end must be reported with ``disconnected`` or ``failed``. Whether it needs nothing it
        now says itself, and what others said of that counts no longer: see ``mark_seed``.
        """
        self._now = now
        entry = self._book.entries.get(endpoint)
        if (
            entry is None
            and self._is_credible(endpoint, _LOOPBACK)
            and self._book.has_room(Source.INCOMING)
        ):
            entry = self._insert(endpoint, Source.INCOMING, None)
            self._note(Source.INCOMING, 1)
        if entry is not None:
            entry.connected_at = now
            entry.is_seed = False
        self._activate(endpoint)

    def failed(self, endpoint: Endpoint, *, now: float, reason: str = "") -> float | None:
        """
        Note that an attempt failed or that the peer broke the rules.

        Args:
            endpoint: whom it concerns.
            now: monotonic seconds.
            reason: for people.

        Returns:
            When it may be tried again; None when it is not known any more.
        """
        self._now = now
        self._release(endpoint)
        entry = self._book.entries.get(endpoint)
        if entry is None:
            return None
        entry.connected_at = None
        entry.failures += 1
        entry.reason = reason
        self._book.changed()
        if entry.failures >= MAX_FAILURES and entry.source is not Source.USER:
            self.num_forgotten += 1
            self._book.remove(entry)
            return None
        first = FIRST_BACKOFF_OF_USER if entry.source is Source.USER else FIRST_BACKOFF
        backoff = min(first * 2.0 ** min(entry.failures - 1, 30), LONGEST_BACKOFF)
        self._put(entry, now + self._vary(backoff))
        return entry.next_at

    def disconnected(self, endpoint: Endpoint, *, now: float, reason: str = "") -> None:
        """Note the ordinary end of a connection, or that one was not wanted after all."""
        entry = self._book.entries.get(endpoint)
        lasted = SHORT_CONNECTION
        if entry is not None and entry.connected_at is not None:
            lasted = now - entry.connected_at
        if lasted < SHORT_CONNECTION:
            self.failed(endpoint, now=now, reason=reason)
            return
        self._now = now
        self._release(endpoint)
        if entry is None:
            return
        if entry.connected_at is not None:
            entry.connected_at = None
            entry.was_useful, entry.failures = True, 0
        self._book.changed()
        self._put(entry, now + self._vary(RECONNECT_DELAY))

    def let_go(self, endpoint: Endpoint, *, now: float) -> None:
        """Note that we ended a connection for a reason of our own; it may be dialled at once."""
        self._now = now
        self._release(endpoint)
        entry = self._book.entries.get(endpoint)
        if entry is not None:
            entry.connected_at = None
            self._book.changed()
            self._dials.forgive(entry.address)
            self._put(entry, now)

    # --- circumstances -------------------------------------------------------------------

    @property
    def is_seeding(self) -> bool:
        """Whether we need nothing, so that seeds are not dialled."""
        return self._book.is_seeding

    @is_seeding.setter
    def is_seeding(self, value: bool) -> None:
        self._book.is_seeding = value
        if not value:
            self._queue.call(_SEEDS, self._now)

    @property
    def is_paused(self) -> bool:
        """Whether the torrent rests, so that fewer endpoints are kept."""
        return self._is_paused

    @is_paused.setter
    def is_paused(self, value: bool) -> None:
        self._is_paused = value
        self._book.limit = min(self._capacity, PAUSED_CAPACITY) if value else self._capacity

    def ban(self, address: str, *, now: float, num_good_pieces: int = 0, reason: str = "") -> None:
        """Keep away from an address, a host or what ``network_of`` makes of it; see ``Bans``."""
        self.bans.ban(address, now=now, num_good_pieces=num_good_pieces, reason=reason)

    def is_banned(self, host: str, *, now: float) -> bool:
        """Tell whether nothing is exchanged with an address now."""
        return self.bans.banned_until(host, now=now) is not None

    # --- the books -----------------------------------------------------------------------

    def _put(self, entry: Candidate, instant: float) -> None:
        entry.next_at = instant
        self._queue.put(entry, instant)

    def _park(self, entry: Candidate, name: str) -> None:
        entry.next_at = None
        self._queue.park(entry, name)

    def _is_credible(self, endpoint: Endpoint, reach: int) -> bool:
        return (
            endpoint not in self._self
            and is_dialable(endpoint)
            and _nearness(endpoint.host) <= reach
        )

    def _priority(self, endpoint: Endpoint) -> int:
        ours = self._external.get(endpoint.is_ipv6)
        return self._rng.getrandbits(32) if ours is None else canonical_priority(ours, endpoint)

    def _insert(self, endpoint: Endpoint, source: Source, named_by: str | None) -> Candidate:
        address = _address_of(endpoint)
        entry = Candidate(endpoint, source, address, named_by, self._priority(endpoint))
        self._book.insert(entry)
        return entry

    def _activate(self, endpoint: Endpoint) -> None:
        entry = self._book.entries.get(endpoint)
        if entry is not None:
            entry.is_active = True
            self._queue.withdraw(entry)
        if endpoint not in self._active:
            address = str(endpoint) if self.allow_multiple_per_address else _address_of(endpoint)
            self._active[endpoint] = address
            self._busy[address] += 1

    def _release(self, endpoint: Endpoint) -> None:
        address = self._active.pop(endpoint, None)
        if address is None:
            return
        if endpoint in self._book.entries:
            self._book.entries[endpoint].is_active = False
        self._busy[address] -= 1
        if not self._busy[address]:
            del self._busy[address]
            self._queue.call(address, self._now)

    def _put_aside(self, entry: Candidate, now: float) -> bool:
        """Find another place for an entry that may not be dialled now."""
        if entry.is_seed and self.is_seeding:
            self._park(entry, _SEEDS)
            return True
        if not self.allow_multiple_per_address and self._busy[entry.address]:
            self._park(entry, entry.address)
            return True
        host = entry.endpoint.host
        until = self.bans.banned_until(host, now=now)
        if until is None:
            # Limit: H8. Three tries in ten minutes are for addresses that strangers name.
            address = None if entry.source is Source.USER else entry.address
            until = self._dials.blocked_until(address, host, now=now)
        if until is None:
            return False
        self._put(entry, until)
        return True

    def _vary(self, delay: float) -> float:
        return delay * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def __repr__(self) -> str:
        return f"<Candidates {len(self)}/{self._book.limit}, {len(self._active)} active>"


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _nearness(host: str) -> int:
    if _is_loopback(host):
        return _LOOPBACK
    return _PRIVATE if is_local(host) else _PUBLIC


def _address_of(endpoint: Endpoint) -> str:
    """Return what counts as one address: many peers of a test live on one loopback address."""
    return str(endpoint) if _is_loopback(endpoint.host) else network_of(endpoint.host)
