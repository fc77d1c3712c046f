"""
Datagrams to a multicast group on every interface, and from it.

One socket for each family, joined on each interface that somebody listens on. What
is sent goes out on each, one after the other, from each IPv4 address of it; nothing
leaves the local network (a hop limit of one), and what comes from beyond it is not
handed on. Interfaces come and go: ``refresh`` joins where one has come.

Sending and joining never raise: an interface that cannot is left out.

Works with every event loop that has ``add_reader``. Sources: BEP 14; RFC 3493 (IPv6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import sys
from collections.abc import Callable, Mapping

from bittern.core.endpoint import Endpoint
from bittern.net.interfaces import Interface, interfaces_for, is_neighbour

log: logging.Logger = logging.getLogger(__name__)

READS_PER_WAKEUP = 32
"""Datagrams before other callbacks get their turn."""
_RECEIVE_BUFFER_LENGTH = 65_536
"""A flood beyond this is dropped by the kernel, which is cheapest."""
_MAX_LENGTH = 4_096
_HOPS = 1

# Linux numbers; the socket module does not name them.
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29

Receive = Callable[[bytes, Endpoint], object]
"""Takes a datagram and the address it came from."""


class LocalNetwork:
    """
    The multicast groups described in the module's text; closed again with ``close``.

    Args:
        groups: the address of each family's group, one or two.
        port: of the groups.
        listen_hosts: where the caller takes connections; see ``interfaces_for``.
        find: returns the interfaces; the system's unless a test brings others.

    Attributes:
        interfaces: those that are joined.
    """

    def __init__(
        self,
        groups: tuple[str, ...],
        port: int,
        *,
        listen_hosts: tuple[str, ...] = (),
        find: Callable[[tuple[str, ...]], tuple[Interface, ...]] = interfaces_for,
    ) -> None:
        self.interfaces: tuple[Interface, ...] = ()
        self._listen_hosts = listen_hosts
        self._find = find
        self._groups = groups
        self._port = port
        self._sockets: dict[str, _GroupSocket] = {}

    def open(self, receive: Receive) -> None:
        """
        Open the sockets on the running loop and join.

        A family that this machine has not, or whose port is taken by somebody who does not
        share it, is left out.

        Args:
            receive: called with every datagram from the local network; must not raise.
        """

        def filtered(data: bytes, source: Endpoint) -> None:
            if is_neighbour(source.host, self.interfaces):
                receive(data, source)

        for group in self._groups:
            try:
                self._sockets[group] = _GroupSocket(group, self._port, filtered)
            except OSError as error:
                log.info("no multicast to %s port %d: %s", group, self._port, error)
        self.refresh()

    def refresh(self) -> bool:
        """Look for interfaces, join and leave; True when an address has come that was not there."""
        before = {(each.index, address) for each in self.interfaces for address in each.addresses}
        self.interfaces = self._find(self._listen_hosts)
        now = {(each.index, address) for each in self.interfaces for address in each.addresses}
        if now != before:
            for sock in self._sockets.values():
                sock.join(self.interfaces)
        return bool(now - before)

    def send(self, datagrams: Mapping[str, bytes]) -> int:
        """
        Send one datagram on every interface.

        Args:
            datagrams: what each group is sent, by its address.

        Returns:
            How often that succeeded; 0 when there is nobody to hear.
        """
        return sum(
            sock.send(datagrams[group], self.interfaces)
            for group, sock in self._sockets.items()
            if group in datagrams
        )

    def close(self) -> None:
        """Leave and close; idempotent."""
        while self._sockets:
            self._sockets.popitem()[1].close()
        self.interfaces = ()


class _GroupSocket:
    """The socket of one family."""

    def __init__(self, group: str, port: int, receive: Receive) -> None:
        self._target = (group, port)
        self._is_ipv6 = ":" in group
        self._packed = socket.inet_pton(socket.AF_INET6 if self._is_ipv6 else socket.AF_INET, group)
        self._receive = receive
        self._joined: set[int] = set()
        """Indices of interfaces."""
        self._sock = socket.socket(
            socket.AF_INET6 if self._is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        try:
            self._configure()
            # Bound to the group, it hears nothing else; Windows knows no such thing.
            self._sock.bind(("" if sys.platform == "win32" else group, port))
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._sock.fileno(), self._read)
        except BaseException:
            self._sock.close()
            raise

    def _configure(self) -> None:
        sock = self._sock
        sock.setblocking(False)
        # Every client on this machine listens at the same port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform not in ("linux", "win32"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_LENGTH)
        if self._is_ipv6:
            level, hops, loop = (
                socket.IPPROTO_IPV6,
                socket.IPV6_MULTICAST_HOPS,
                socket.IPV6_MULTICAST_LOOP,
            )
            sock.setsockopt(level, socket.IPV6_V6ONLY, 1)
        else:
            level, hops, loop = (
                socket.IPPROTO_IP,
                socket.IP_MULTICAST_TTL,
                socket.IP_MULTICAST_LOOP,
            )
        sock.setsockopt(level, hops, _HOPS)
        sock.setsockopt(level, loop, 1)  # others on this machine are neighbours, too
        if sys.platform == "linux":
            # Only from interfaces that we have joined, not from those that somebody else has.
            with contextlib.suppress(OSError):  # IPv6: since Linux 4.20
                option = _IPV6_MULTICAST_ALL if self._is_ipv6 else _IP_MULTICAST_ALL
                sock.setsockopt(level, option, 0)

    # --- interfaces --------------------------------------------------------------------------

    def join(self, interfaces: tuple[Interface, ...]) -> None:
        """Be a member on these interfaces and on no others."""
        wanted = {each.index: each for each in interfaces if self._addresses(each)}
        for index in self._joined - wanted.keys():
            self._change(index, "", is_joining=False)
        self._joined &= wanted.keys()
        for index in wanted.keys() - self._joined:
            if self._change(index, self._addresses(wanted[index])[0], is_joining=True):
                self._joined.add(index)

    def _addresses(self, interface: Interface) -> list[str]:
        version = 6 if self._is_ipv6 else 4
        return [str(address.ip) for address in interface.addresses if address.version == version]

    def _change(self, index: int, address: str, *, is_joining: bool) -> bool:
        if self._is_ipv6:
            level = socket.IPPROTO_IPV6
            option = socket.IPV6_JOIN_GROUP if is_joining else socket.IPV6_LEAVE_GROUP
            value = self._packed + struct.pack("@I", index)
        else:
            level = socket.IPPROTO_IP
            option = socket.IP_ADD_MEMBERSHIP if is_joining else socket.IP_DROP_MEMBERSHIP
            value = self._packed + _interface_v4(address, index)
        try:
            self._sock.setsockopt(level, option, value)
        except OSError as error:
            # An interface that has gone, that takes no multicast, or one too many (Linux: 20).
            log.debug("multicast group %s, interface %d: %s", self._target[0], index, error)
            return False
        return True

    # --- datagrams ---------------------------------------------------------------------------

    def send(self, data: bytes, interfaces: tuple[Interface, ...]) -> int:
        """Send on every interface; return how often that succeeded."""
        num_sent = 0
        for interface in interfaces:
            addresses = self._addresses(interface)
            # IPv6: the system chooses the address, the widest in scope.
            for address in addresses[:1] if self._is_ipv6 else addresses:
                try:
                    self._choose(interface.index, address)
                    self._sock.sendto(data, self._target)
                    num_sent += 1
                except OSError as error:
                    log.debug("multicast on %s from %s: %s", interface.name, address, error)
        return num_sent

    def _choose(self, index: int, address: str) -> None:
        if self._is_ipv6:
            option, value = socket.IPV6_MULTICAST_IF, struct.pack("@I", index)
            self._sock.setsockopt(socket.IPPROTO_IPV6, option, value)
        else:
            value = _interface_v4(address, index)
            if sys.platform == "linux":
                value = self._packed + value  # a whole ip_mreqn
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, value)

    def _read(self) -> None:
        for _ in range(READS_PER_WAKEUP):
            try:
                data, address = self._sock.recvfrom(_MAX_LENGTH)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.debug("multicast group %s: %s", self._target[0], error)
                return
            self._receive(data, Endpoint.make(address[0], address[1]))
            if self._sock.fileno() < 0:  # closed by the receiver
                return

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


def _interface_v4(address: str, index: int) -> bytes:
    """Return what names an interface to IPv4: on Linux its index counts, elsewhere its address."""
    packed = socket.inet_aton(address or "0.0.0.0")  # noqa: S104  # not bound to
    return packed + struct.pack("@i", index) if sys.platform == "linux" else packed
