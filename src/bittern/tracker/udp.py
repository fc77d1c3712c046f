"""
UDP tracker: datagrams in, datagrams out, nothing remembered about clients.

A connection id is a keyed hash of the client's address and the time, so it proves
that the client gets what we send to that address, and costs no memory. Ids are good
for two to four minutes, in *lenient* mode for ten to twelve, because some clients use
one for longer than the minute that BEP 15 allows them.

What proves nothing gets nothing back but a connection id, which is no longer than its
request (Limit: N1); a wrong id is dropped, not answered and not banned, since honest
clients send them (Limit: T1). Answers stay below ``MAX_ANSWER_LENGTH`` (Limit: T3).

Source: BEP 15; options of BEP 41 are read over.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable

from bittern.codec.udp_tracker import (
    ANNOUNCE,
    ANNOUNCE_ANSWER,
    ANNOUNCE_REQUEST,
    CONNECT,
    CONNECT_REQUEST,
    PROTOCOL_ID,
    REQUEST_HEAD,
    SCRAPE,
    encode_connect_reply,
    encode_error,
    encode_scrape_reply,
)
from bittern.core.announce import Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerFailure
from bittern.net.udp import Datagrams
from bittern.tracker.desk import MAX_SCRAPE_HASHES, Desk, Refused, tell_nobody

MAX_ANSWER_LENGTH = 1_400
"""Limit: T3. Bytes of a datagram, so that it travels whole."""
ID_SLOT = 120
"""Limit: T1. Seconds for which ids of one kind are given out."""
STRICT_SLOTS = 2
"""Limit: T1. Kinds that are accepted: the current one and the one before."""
LENIENT_SLOTS = 6
"""Limit: T1. The same for clients that keep ids for up to ten minutes."""
MIN_SECRET_LENGTH = 16

_EVENTS = (Event.NONE, Event.COMPLETED, Event.STARTED, Event.STOPPED)
_MAX_PEERS = (MAX_ANSWER_LENGTH - ANNOUNCE_ANSWER.size) // 6
_MAX_PEERS_V6 = (MAX_ANSWER_LENGTH - ANNOUNCE_ANSWER.size) // 18


class ConnectionIds:
    """
    Gives and checks connection ids.

    Args:
        secret: unpredictable bytes, at least 16.
        num_slots: how many kinds are accepted.
    """

    def __init__(self, secret: bytes, *, num_slots: int = STRICT_SLOTS) -> None:
        if len(secret) < MIN_SECRET_LENGTH:
            raise ValueError("the secret is too short")
        self._secret = secret
        self._num_slots = num_slots

    def give(self, address: bytes, *, now: float) -> int:
        """Return the id for a packed address."""
        return self._id_of(address, int(now // ID_SLOT))

    def accepts(self, connection_id: int, address: bytes, *, now: float) -> bool:
        """Tell whether we gave that id to that address lately."""
        slot = int(now // ID_SLOT)
        for age in range(self._num_slots):  # nearly always the first
            if connection_id == self._id_of(address, slot - age):
                return True
        return False

    def _id_of(self, address: bytes, slot: int) -> int:
        data = address + slot.to_bytes(8, "big", signed=True)
        digest = hashlib.blake2b(data, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "big")


class UdpTracker:
    """
    One UDP listener of a tracker.

    Args:
        datagrams: what to answer through; whoever owns it calls ``receive``.
        desk: decides.
        ids: shared by all listeners of a tracker.
        clock: gives monotonic seconds.
        refused: hears whom we refuse, an address, and why.

    Attributes:
        num_dropped: datagrams that were no request, or had a wrong connection id.
    """

    def __init__(
        self,
        datagrams: Datagrams,
        desk: Desk,
        ids: ConnectionIds,
        clock: Callable[[], float],
        *,
        refused: Refused = tell_nobody,
    ) -> None:
        self.num_dropped: int = 0
        self._datagrams = datagrams
        self._desk = desk
        self._ids = ids
        self._clock = clock
        self._refused = refused
        self._is_ipv6 = datagrams.endpoint.is_ipv6
        self._family = socket.AF_INET6 if self._is_ipv6 else socket.AF_INET
        self._max_peers = _MAX_PEERS_V6 if self._is_ipv6 else _MAX_PEERS

    def receive(self, data: bytes | memoryview, source: Endpoint) -> None:
        """Take one datagram and answer it, or not."""
        answer = self._answer(data, socket.inet_pton(self._family, source.host))
        if answer is None:
            self.num_dropped += 1
        else:
            self._datagrams.send(answer, source)

    def _answer(self, data: bytes | memoryview, address: bytes) -> bytes | None:
        if len(data) < CONNECT_REQUEST.size:
            return None
        connection_id, action, transaction_id = REQUEST_HEAD.unpack_from(data)
        now = self._clock()
        if action == CONNECT:
            if connection_id != PROTOCOL_ID:
                return None
            return encode_connect_reply(transaction_id, self._ids.give(address, now=now))
        if not self._ids.accepts(connection_id, address, now=now):
            return None
        try:
            if action == ANNOUNCE and len(data) >= ANNOUNCE_REQUEST.size:
                return self._announce(data, address, now)
            if action == SCRAPE:
                return self._scrape(bytes(data), address, now)
        except TrackerFailure as failure:
            self._refused(socket.inet_ntop(self._family, address), failure.reason)
            return encode_error(transaction_id, failure.reason, max_length=len(data))
        return None

    def _announce(self, data: bytes | memoryview, address: bytes, now: float) -> bytes:
        # Without ``decode_query``: this is the path that a busy tracker lives on.
        fields = ANNOUNCE_REQUEST.unpack_from(data)
        event, num_want = fields[8], fields[11]
        selection = self._desk.announce(
            fields[3],
            address,
            fields[12],
            left=fields[6],
            event=_EVENTS[event] if event < len(_EVENTS) else Event.NONE,
            num_want=None if num_want < 0 else num_want,
            now=now,
            max_peers=self._max_peers,
        )
        head = ANNOUNCE_ANSWER.pack(
            ANNOUNCE, fields[2], self._desk.interval, selection.num_leechers, selection.num_seeds
        )
        return head + (selection.peers6 if self._is_ipv6 else selection.peers)

    def _scrape(self, data: bytes, address: bytes, now: float) -> bytes | None:
        _, _, transaction_id = REQUEST_HEAD.unpack_from(data)
        hashes = data[REQUEST_HEAD.size : REQUEST_HEAD.size + 20 * MAX_SCRAPE_HASHES]
        whole = len(hashes) // 20 * 20  # BEP 15: packets may grow
        if not whole:
            return None
        wanted = [hashes[at : at + 20] for at in range(0, whole, 20)]
        counts = self._desk.scrape(wanted, address, now=now)
        return encode_scrape_reply(transaction_id, [ScrapeEntry(*entry) for _, entry in counts])
