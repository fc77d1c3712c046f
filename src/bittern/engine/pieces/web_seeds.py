"""
The web seeds of one torrent while its swarm moves pieces.

Asks as many at a time as the limit says, and the next one when one of them fails.
Asks nobody while nothing is missing. What it knows of each outlives the swarm, in
``WebSeedRecord``. A torrent without web seeds has a ``WebSeeds`` without any.

BEP 17 (``httpseeds``) is not served: it needs a script on the server that hands out
pieces, almost no such server is left, and libtorrent has dropped it for that reason.

Sources: BEP 19; threats.md N8.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import reduce
from operator import or_

from bittern.codec.info import Info
from bittern.codec.url import normalise_url
from bittern.core.errors import DecodeError, WebSeedUseless
from bittern.engine.events import Event, SourceChanged
from bittern.engine.peers.range_reader import HttpOpener
from bittern.engine.pieces.web_seed import SeededSwarm, WebSeed
from bittern.engine.services import Services
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.policy.web_seeds import WebSeedRecord

Records = dict[str, WebSeedRecord]
"""What is known of the web seeds of a torrent, by URL."""


class WebSeeds:
    """
    The one described in the module's text.

    Args:
        services: of the session.
        swarm: whose pieces they have.
        report: tells the outside.
    """

    __slots__ = ("_counted", "_is_stopped", "_named", "_report", "_seeds", "_services", "_swarm")

    def __init__(
        self,
        services: Services,
        swarm: SeededSwarm,
        report: Callable[[Event], None],
    ) -> None:
        self._services = services
        self._swarm = swarm
        self._report = report
        self._seeds: dict[str, WebSeed] = {}
        """By URL, in the order in which they are asked."""
        self._named: tuple[str, ...] = ()
        """The same URLs in the order of those who named them."""
        self._counted: dict[str, int] = {}
        """Pieces of each that the picker was told of."""
        self._is_stopped = False

    def use(self, info: Info, records: Records, http: HttpOpener) -> None:
        """Have these, and no others, from now on; once the swarm is whole."""
        self._named = tuple(records)
        for seed in list(self._seeds.values()):
            if records.get(seed.record.url) is not seed.record:
                self._drop(seed)
        ordered = [record for record in records.values() if record.url not in self._seeds]
        self._services.rng.shuffle(ordered)  # not everybody at the first of several mirrors
        for record in ordered:
            self._seeds[record.url] = WebSeed(
                record, self._swarm, self._services, info, http, self._changed
            )
        self.set_reading(not self._services.disk.is_congested)

    def _drop(self, seed: WebSeed) -> None:
        del self._seeds[seed.record.url]
        seed.stop()
        if counted := self._counted.pop(seed.record.url, 0):
            self._swarm.picker.remove_peer(counted)

    @property
    def num_active(self) -> int:
        """Web seeds that are being asked."""
        return sum(seed.is_active for seed in self._seeds.values())

    @property
    def rate(self) -> float:
        """Bytes per second that they send."""
        return sum(seed.down.rate for seed in self._seeds.values())

    def rate_of(self, url: str) -> float:
        """Bytes per second that one of them sends; 0 of one that there is not."""
        return self._seeds[url].down.rate if url in self._seeds else 0.0

    @property
    def bits(self) -> int:
        """The pieces that those have which work."""
        return reduce(or_, self._counted.values(), 0)

    def offered(self, *, now: float) -> int:
        """Return the pieces, as bits, of those that are being asked or may be."""
        seeds = self._seeds.values()
        return reduce(
            or_, [s.bits for s in seeds if s.is_active or s.record.may_be_asked(now=now)], 0
        )

    def tick(self, *, now: float) -> None:
        """Bring rates up to date and ask whom it is time to ask; called once a second."""
        for seed in self._seeds.values():
            seed.tick(now=now)
        self.ask(now=now)

    def ask(self, *, now: float) -> None:
        """Ask those that may be asked, if something is missing that they have."""
        missing = self._swarm.picker.missing
        if not missing or self._is_stopped:
            return
        usable = [
            seed
            for seed in self._seeds.values()
            if seed.is_active or (seed.record.may_be_asked(now=now) and seed.bits & missing)
        ]
        # One that has worked before another: the others are in reserve.
        usable.sort(key=lambda seed: not (seed.is_active or seed.record.num_bytes))
        for seed in usable[: self._services.config.max_web_seeds_per_torrent]:
            if not seed.is_active and self._services.may_connect():
                seed.begin()

    def piece_failed(self, index: int, guilty: Iterable[Hashable]) -> None:
        """Ask nobody again for a piece that he certainly sent bad."""
        for key in guilty:
            if (seed := self._find(key)) is not None:
                seed.record.refused |= 1 << (self._swarm.picker.top - index)

    def accuse(self, key: Hashable) -> bool:
        """Note that somebody sent a bad piece; False if he is no web seed."""
        seed = self._find(key)
        if seed is None:
            return False
        seed.record.accused()
        if seed.record.is_out:
            seed.abort(WebSeedUseless(seed.record.reason))
        self._changed(seed)
        return True

    def _find(self, key: Hashable) -> WebSeed | None:
        return self._seeds.get(key) if isinstance(key, str) else None

    def _changed(self, seed: WebSeed) -> None:
        """Let the picker know of the pieces of a seed that works, and the outside of its state."""
        record, picker = seed.record, self._swarm.picker
        is_known = record.num_bytes > 0 and not record.is_out and record.next_at is None
        bits = seed.bits if is_known else 0
        before = self._counted.pop(record.url, 0)
        if bits != before:
            if before:
                picker.remove_peer(before)
            if bits:
                picker.add_peer(bits)
        if bits:
            self._counted[record.url] = bits
        self._report(SourceChanged(self._status(seed)))

    def set_reading(self, can_read: bool) -> None:
        """Read on, or wait for the disk (Limit: F16)."""
        for seed in self._seeds.values():
            seed.reader.set_reading(can_read)

    def statuses(self) -> list[SourceStatus]:
        """Return how each stands, in the order in which they were named."""
        return [self._status(self._seeds[url]) for url in self._named]

    def _status(self, seed: WebSeed) -> SourceStatus:
        state, message = SourceState.WORKING, seed.record.reason
        if seed.is_active and not seed.is_sending:
            state = SourceState.ASKING
        elif seed.record.is_out or seed.record.next_at is not None or not seed.bits:
            state = SourceState.FAILING
        elif seed.record.last_answer_at is None and not seed.is_active:
            state, message = SourceState.WAITING, self._why_unasked()
        return status_of(seed.record, state, message)

    def _why_unasked(self) -> str:
        return "in reserve" if self._swarm.picker.missing else "nothing is missing"

    def stop(self) -> None:
        """Close every connection and ask nobody any more; idempotent."""
        self._is_stopped = True
        for seed in self._seeds.values():
            seed.stop()


def status_of(record: WebSeedRecord, state: SourceState, message: str) -> SourceStatus:
    """Return a web seed as a source."""
    return SourceStatus(
        kind=SourceKind.WEB_SEED,
        name=record.url,
        state=state,
        last_asked_at=record.last_asked_at,
        last_answer_at=record.last_answer_at,
        num_bytes=record.num_bytes,
        message=message or None,
        next_at=record.next_at,
    )


def choose_web_seeds(known: Records, trusted: Iterable[str], others: Iterable[str]) -> Records:
    """
    Return the records of the web seeds that are named; one that cannot be used says why.

    Args:
        known: what was known of them and of others. Whom another one names now, the user instead
            of the torrent, is begun with anew.
        trusted: URLs as the user gives them.
        others: as the torrent gives them; what it names cannot be taken out.
    """
    records: Records = {}
    for urls, is_trusted in ((trusted, True), (others, False)):
        for given in urls:
            url, reason = read_url(given)
            if url in records:
                continue
            record = known.get(url)
            if record is None or record.is_trusted is not is_trusted:
                record = WebSeedRecord(url, is_trusted=is_trusted)
                record.reason, record.is_out = reason, bool(reason)
            records[url] = record
    return records


def read_url(given: str) -> tuple[str, str]:
    """Return the name of a web seed, its normal URL, and "", or as it is and why it is no use."""
    try:
        return normalise_url(given), ""
    except DecodeError as error:
        return given, str(error)
