"""
Incoming connections until they have said which torrent they are for.

A newcomer gets a deadline for its whole handshake and a place among a limited
number, where the oldest makes room for the newest; one that sends anything but
a BitTorrent handshake is closed at the first wrong byte.

Sources: BEP 3 (handshake); threats.md H5 (slow newcomers), F14 (port in use).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from bittern.codec import wire
from bittern.codec.wire import Reserved
from bittern.core.endpoint import network_of
from bittern.core.errors import WireDecodeError
from bittern.core.ids import InfoHash
from bittern.engine.config import SessionConfig
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import is_loopback
from bittern.net.stream import Listener, Network, Stream

log: logging.Logger = logging.getLogger(__name__)

ROUSE_INTERVAL = 0.05
"""Seconds between two looks whether a torrent has woken up."""
_NEEDED = 48
"""Bytes up to the end of the info hash; a peer may wait for our half before it goes on."""


class AcceptingRoster(Protocol):
    """What the acceptor asks of a torrent."""

    def accept(self, stream: Stream, named: InfoHash, reserved: Reserved) -> PeerConnection | None:
        """Make a peer of an incoming stream, not yet started; None to refuse it."""


class Acceptor:
    """
    The session's listening sockets and its newcomers.

    Args:
        find: returns the connections of an info hash, None when there are none.
        rouse: wakes a torrent that rests; False when there is none.
    """

    def __init__(
        self,
        network: Network,
        config: SessionConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        find: Callable[[InfoHash], AcceptingRoster | None],
        rouse: Callable[[InfoHash], bool] = lambda _: False,
    ) -> None:
        self._rouse = rouse
        self._network = network
        self._config = config
        self._loop = loop
        self._find = find
        self._listeners: list[Listener] = []
        self._failures: list[str] = []
        """Where we could not listen at the last try, and why."""
        self._newcomers: dict[_Newcomer, None] = {}
        self._per_address: dict[str, int] = {}
        self.port: int = 0
        """The port that peers reach us at; 0 when we do not listen."""

    def listen(self) -> None:
        """
        Listen as configured, at the first port of those to be tried that is free everywhere.

        An address that this machine has not is left out. When no port is free, the session
        goes on without incoming connections, and says so.
        """
        config = self._config
        if not config.enable_incoming:
            return
        hosts = config.listen_hosts or ("0.0.0.0", "::")  # noqa: S104  # as configured
        first, last = config.listen_port, config.listen_port + config.listen_port_tries
        # A free port of the first address may be taken on another one: then the next free one.
        tries = [0] * (config.listen_port_tries + 1) if first == 0 else range(first, last + 1)
        for port in tries:
            if port > 65535:
                break
            if self._listen_at(hosts, port):
                if len(self._listeners) < len(config.listen_hosts):
                    log.warning("not listening on %s", ", ".join(self._failures))
                return
        log.warning("nobody can connect to us: cannot listen on %s", ", ".join(self._failures))

    def _listen_at(self, hosts: Sequence[str], port: int) -> bool:
        self._failures.clear()
        for host in hosts:
            try:
                listener = self._network.listen(host, port or self.port, self._accept)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                self._failures.append(f"{host} port {port or self.port}: {reason}")
                # A machine without IPv6 is no reason to give up; a port in use is.
                if error.errno == errno.EADDRINUSE:
                    self.close()
                    return False
                continue
            self._listeners.append(listener)
            self.port = listener.endpoint.port
        return bool(self._listeners)

    def _accept(self, stream: Stream) -> None:
        host = stream.remote.host
        address = network_of(host)
        count = self._per_address.get(address, 0)
        per_address = self._config.max_pending_handshakes_per_address
        if count >= per_address and not is_loopback(host):
            stream.close()
            return
        if len(self._newcomers) >= self._config.max_pending_handshakes:
            # Limit: H5. Who has had most time goes, or silent ones would keep all others out.
            next(iter(self._newcomers)).give_up()
            count = self._per_address.get(address, 0)
        newcomer = _Newcomer(self, stream, address)
        self._newcomers[newcomer] = None
        self._per_address[address] = count + 1
        newcomer.start(self._loop, self._config.handshake_timeout)

    def admit(self, newcomer: _Newcomer, info_hash: InfoHash, data: bytes) -> bool:
        """
        Hand a newcomer, with what it sent, to the torrent it names.

        Returns:
            False when it must wait: the torrent is being woken up.
        """
        roster = self._find(info_hash)
        if roster is None and self._rouse(info_hash):
            return False
        reserved = Reserved.from_bytes(data[20:28])
        peer = None if roster is None else roster.accept(newcomer.stream, info_hash, reserved)
        if peer is None:
            newcomer.give_up()
            return True
        newcomer.leave()
        peer.start()
        if not peer.is_closed:
            peer.data_received(memoryview(data))
        return True

    def forget(self, newcomer: _Newcomer) -> None:
        """Give back a newcomer's place."""
        if newcomer in self._newcomers:
            del self._newcomers[newcomer]
            count = self._per_address[newcomer.address] - 1
            if count:
                self._per_address[newcomer.address] = count
            else:
                del self._per_address[newcomer.address]

    def close(self) -> None:
        """Stop listening and close the newcomers; idempotent."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for newcomer in list(self._newcomers):
            newcomer.give_up()
        self.port = 0


class _Newcomer:
    """One incoming stream before its handshake; see ``net.stream.StreamHandler``."""

    def __init__(self, acceptor: Acceptor, stream: Stream, address: str) -> None:
        self._acceptor = acceptor
        self._data = bytearray()
        self._deadline: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self.stream = stream
        self.address = address

    def start(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = loop
        self._deadline = loop.call_later(timeout, self.give_up)
        self.stream.start(self)

    def data_received(self, data: memoryview) -> None:
        self._data += data
        try:
            wire.check_handshake_start(self._data)
        except WireDecodeError:
            self.give_up()
            return
        if len(self._data) >= _NEEDED:
            self.stream.pause_reading()
            self._try_admit()

    def _try_admit(self) -> None:
        self._retry = None
        if not self._acceptor.admit(self, InfoHash(self._data[28:48]), bytes(self._data)):
            self._retry = self._loop.call_later(ROUSE_INTERVAL, self._try_admit)

    def writable(self) -> None:
        pass

    def connection_lost(self, reason: Exception | None) -> None:  # noqa: ARG002  # contract
        self.leave()

    def give_up(self) -> None:
        self.leave()
        self.stream.close()

    def leave(self) -> None:
        """Give the place back: the handshake is over, one way or the other."""
        for timer in (self._deadline, self._retry):
            if timer is not None:
                timer.cancel()
        self._acceptor.forget(self)
