"""
Simulated datagram sockets, for DHT nodes, uTP and UDP trackers.

Bytes in, bytes out, and an address. A datagram waits for the sender's upload
line, takes the link's delay, waits for the receiver's download line, and may be
lost, doubled or overtaken on the way, as its ``Link`` says. Each line is a
queue of bounded length that drops what does not fit, so a congestion controller
finds delay before it finds loss. Streams and datagrams of one host do not slow
each other. A ``SimDatagrams`` is a ``net.udp.Datagrams``; receivers have the type
that ``net.udp`` gives them.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from bittern.core.endpoint import Endpoint
from bittern.net.stream import Buffer
from bittern.net.udp import ReceiveDatagram

if TYPE_CHECKING:
    from bittern.testing.host import SimHost

MAX_DATAGRAM_LENGTH = 65_507
"""The most that fits into UDP over IPv4."""
_REORDER_DELAYS = 10


class SimDatagrams:
    """
    One datagram socket; made by ``SimHost.open_datagrams``.

    Attributes:
        num_dropped: datagrams that did not fit into one of this socket's two queues.
    """

    def __init__(
        self, host: SimHost, endpoint: Endpoint, receive: ReceiveDatagram, queue_length: int
    ) -> None:
        self.is_open: bool = True
        self.num_dropped: int = 0
        self._host = host
        self._endpoint = endpoint
        self._receive = receive
        self._queue_length = queue_length
        self._sent_until = 0.0
        self._received_until = 0.0
        self._asked: set[Endpoint] = set()

    @property
    def endpoint(self) -> Endpoint:
        """The address bound to, with the real port."""
        return self._endpoint

    def send(self, data: Buffer, target: Endpoint, *, source: Endpoint | None = None) -> None:
        """
        Send one datagram; there is no answer whether it arrives.

        Args:
            data: at most 65,507 bytes.
            target: where to.
            source: a false source address, as an attacker would write it.

        Raises:
            OSError: the socket is closed, the datagram is too long, or this machine
                has no address of that family.
        """
        if not self.is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if len(data) > MAX_DATAGRAM_LENGTH:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        host, network = self._host, self._host.network
        if source is None:
            source = Endpoint(host.address_towards(target.host), self._endpoint.port)
            self._asked.add(target)
        network.datagram_lengths[source, target] += len(data)
        now = network.loop.time()
        leaves_at = self._queue(self._sent_until, len(data), host.upload.rate)
        if leaves_at is None:
            return
        self._sent_until = leaves_at
        receiver = network.host_of(target.host)
        if receiver is None or network.is_cut(host, receiver):
            return
        link, chance = network.link(host, receiver), network.loop.random
        copies = 2 if link.duplication and chance.random() < link.duplication else 1
        for _ in range(copies):
            if link.loss and chance.random() < link.loss:
                network.record("lost datagram", source, target, len(data))
                continue
            delay = leaves_at - now + network.draw_delay(host, receiver)
            if link.reordering and chance.random() < link.reordering:
                delay += chance.random() * _REORDER_DELAYS * link.delay
            network.loop.call_background(now + delay, _reach, receiver, bytes(data), source, target)

    def reach(self, data: bytes, source: Endpoint) -> None:
        """Take a datagram that came over the link into the queue before our line."""
        if not self._host.is_reachable and source not in self._asked:
            return
        at = self._queue(self._received_until, len(data), self._host.download.rate)
        if at is None:
            return
        self._received_until = at
        if at <= self._host.network.loop.time():
            self._deliver(data, source)
        else:
            self._host.network.loop.call_background(at, self._deliver, data, source)

    def _queue(self, busy_until: float, length: int, rate: float | None) -> float | None:
        """Return when ``length`` bytes are through a line that is busy until then."""
        now = self._host.network.loop.time()
        if rate is None:
            return now
        start = max(now, busy_until)
        if (start - now) * rate > self._queue_length:
            self.num_dropped += 1
            return None
        return start + length / rate

    def _deliver(self, data: bytes, source: Endpoint) -> None:
        if self.is_open:
            self._host.network.record_data(data, source, self._endpoint)
            # As with streams: whoever keeps the view is found out.
            buffer = bytearray(data)
            try:
                self._receive(memoryview(buffer), source)
            finally:
                buffer[:] = b"\xdd" * len(buffer)

    def close(self) -> None:
        """Close; datagrams under way are dropped. Idempotent."""
        if self.is_open:
            self.is_open = False
            self._host.release(self)

    def __repr__(self) -> str:
        return f"<SimDatagrams {self._endpoint} of {self._host}>"


def _reach(receiver: SimHost, data: bytes, source: Endpoint, target: Endpoint) -> None:
    socket = receiver.datagrams_at(target)
    if socket is not None and not receiver.is_gone:
        socket.reach(data, source)
