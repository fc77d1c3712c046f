"""
UDP sockets, each shared by DHT, uTP and UDP trackers.

The first byte tells them apart: a DHT message is a bencoded dictionary (``d``), a
uTP packet starts with its type and version 1 (0x01 to 0x41), an answer of a UDP
tracker with a 32-bit action below 256 (0x00). So dispatch is one look into a table;
whether the source is the right one is checked by the machine that gets the datagram.

Nothing here raises after the socket is open: a datagram may get lost anyway, so an
error is counted and the datagram is gone. What the kernel has no room for waits in a
queue of bounded length; what does not fit there is dropped, newest first.

Where the kernel can (Linux), datagrams of one sender arrive joined (``UDP_GRO``, once
uTP listens) and runs of equal length leave joined (``UDP_SEGMENT``), which is what
makes fast uTP possible; receivers and callers do not notice.

One socket is one address family, since IPv4-mapped addresses help nobody. Works with
every event loop that has ``add_reader``.

Sources: BEP 5, BEP 15, BEP 29.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError

DHT_BYTES = (0x64,)
"""First byte of a DHT message: ``d``."""
UTP_BYTES = (0x01, 0x11, 0x21, 0x31, 0x41)
"""First byte of a uTP packet: type 0 to 4, version 1 (BEP 29)."""
TRACKER_BYTES = (0x00,)
"""First byte of a UDP tracker's answer (BEP 15)."""

MAX_QUEUE_LENGTH = 1_048_576
"""Bytes that may wait for room in the kernel; more are dropped."""
MAX_DATAGRAM_LENGTH = 65_507
MAX_ENDPOINTS = 4_096
"""Senders whose address is kept in the form that receivers get."""
MIN_JOINED = 4
"""Datagrams sent together among which it is worth while to look for some to join."""
READS_PER_WAKEUP = 64
"""Reads before other callbacks get their turn."""
_KERNEL_BUFFER_LENGTH = 4_194_304
_NO_WAY = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}
)
"""Errors of a target that cannot be reached from here; others pass."""
_MAX_SEGMENTS = 64

# Linux numbers; the socket module does not name them.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104

ReceiveDatagram = Callable[[memoryview, Endpoint], object]
"""Takes a datagram, valid until the call returns, and its source."""


class Datagrams(Protocol):
    """What senders ask of a datagram socket, real or simulated."""

    @property
    def endpoint(self) -> Endpoint:
        """The address bound to, with the real port."""

    def send(self, data: bytes, target: Endpoint) -> object:
        """Send one datagram; False when there is no way to the target, else nothing is known."""


class UdpSocket:
    """
    One UDP socket; made by ``open``.

    Attributes:
        num_received: datagrams that were handed to a receiver.
        num_unclaimed: datagrams whose first byte nobody wants.
        num_dropped: datagrams of ours that the queue had no room for.
        num_errors: datagrams of ours that the system refused.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.num_received: int = 0
        self.num_unclaimed: int = 0
        self.num_dropped: int = 0
        self.num_errors: int = 0
        self._sock: socket.socket | None = sock
        self._loop = loop
        address = sock.getsockname()
        self._endpoint = Endpoint(address[0], address[1])
        self._buffer = memoryview(bytearray(65_536))
        self._receivers: list[ReceiveDatagram | None] = [None] * 256
        self._batch_ends: list[Callable[[], object]] = []
        self._queue: deque[tuple[bytes, Endpoint]] = deque()
        self._queue_length = 0
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._has_gro = False
        self._has_gso = _try_option(sock, _UDP_SEGMENT, 0)
        self._descriptor = sock.fileno()
        loop.add_reader(self._descriptor, self._read)

    @classmethod
    def open(cls, host: str, port: int) -> UdpSocket:
        """
        Open a socket on the running loop.

        Args:
            host: address to bind to; its family is the socket's.
            port: 0 for any free one.

        Raises:
            OSError: the address is not ours, or the port is taken.
        """
        is_ipv6 = ":" in host
        sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if is_ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):  # a wish; the system caps it
                    sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER_LENGTH)
            sock.bind((host, port))
            return cls(sock, asyncio.get_running_loop())
        except BaseException:
            sock.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "open"
        return f"<UdpSocket {self._endpoint} {state}>"

    @property
    def endpoint(self) -> Endpoint:
        """The address bound to, with the real port."""
        return self._endpoint

    # --- receiving ---------------------------------------------------------------------------

    def add_receiver(
        self,
        first_bytes: Iterable[int],
        receive: ReceiveDatagram,
        *,
        batch_ended: Callable[[], object] | None = None,
    ) -> None:
        """
        Hand every datagram that starts with one of ``first_bytes`` to ``receive``.

        Args:
            first_bytes: as ``DHT_BYTES``; each has at most one receiver.
            receive: called as ``receive(data, source)``; must not raise.
            batch_ended: called once after the datagrams of one wake-up, the place to
                send what they asked for.

        Raises:
            MisuseError: somebody has one of the bytes already.
        """
        numbers = tuple(first_bytes)
        if any(self._receivers[number] is not None for number in numbers):
            raise MisuseError("two receivers for the same first byte")
        for number in numbers:
            self._receivers[number] = receive
        if self._sock is not None and not self._has_gro and set(numbers) & set(UTP_BYTES):
            # Only uTP comes in runs; for all others it makes each read dearer.
            self._has_gro = _try_option(self._sock, _UDP_GRO, 1)
        if batch_ended is not None:
            self._batch_ends.append(batch_ended)

    def _read(self) -> None:
        if self._has_gro:
            self._read_runs()
        else:
            self._read_plain()
        for batch_ended in self._batch_ends:
            batch_ended()

    def _read_plain(self) -> None:
        sock, buffer, receivers = self._sock, self._buffer, self._receivers
        for _ in range(READS_PER_WAKEUP):
            if sock is None or self._sock is None:
                return
            try:
                length, address = sock.recvfrom_into(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error of something sent earlier, on some systems
                continue
            if not length:
                continue
            receive = receivers[buffer[0]]
            if receive is None:
                self.num_unclaimed += 1
            else:
                self.num_received += 1
                receive(buffer[:length], self._endpoints.get(address) or self._remember(address))

    def _read_runs(self) -> None:
        if sys.platform != "linux":
            return  # nobody else joins them
        sock, buffer = self._sock, self._buffer
        buffers = [buffer]
        for _ in range(READS_PER_WAKEUP):
            if sock is None or self._sock is None:
                return
            try:
                length, ancillary, _, address = sock.recvmsg_into(buffers, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # as above
                continue
            source = self._endpoints.get(address) or self._remember(address)
            segment_length = length
            if ancillary:  # nothing but UDP_GRO was asked for
                (segment_length,) = struct.unpack_from("i", ancillary[0][2])
            for at in range(0, length, segment_length or 1):
                if self._sock is None:  # closed by a receiver
                    return
                self._dispatch(buffer[at : min(at + segment_length, length)], source)

    def _remember(self, address: tuple[str, int]) -> Endpoint:
        """Return the endpoint of an address as sockets give it, and keep it for the next time."""
        if len(self._endpoints) >= MAX_ENDPOINTS:
            self._endpoints.clear()
        endpoint = self._endpoints[address] = Endpoint(address[0], address[1])
        return endpoint

    def _dispatch(self, data: memoryview, source: Endpoint) -> None:
        receive = self._receivers[data[0]]
        if receive is None:
            self.num_unclaimed += 1
        else:
            self.num_received += 1
            receive(data, source)

    # --- sending -----------------------------------------------------------------------------

    def send(self, data: bytes, target: Endpoint) -> bool:
        """
        Send one datagram, or keep it until there is room; errors are only counted.

        Returns:
            False when there is no way to the target from here: a network that this machine is
            not in, as IPv6 often is.
        """
        sock = self._sock
        if sock is None:
            return True
        if not self._queue:
            try:
                sock.sendto(data, target)
                return True
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self.num_errors += 1
                return error.errno not in _NO_WAY
        if self._queue_length + len(data) > MAX_QUEUE_LENGTH:
            self.num_dropped += 1
            return True
        if not self._queue:
            self._loop.add_writer(self._descriptor, self._write)
        self._queue.append((data, target))
        self._queue_length += len(data)
        return True

    def send_many(self, datagrams: Sequence[tuple[bytes, Endpoint]]) -> None:
        """
        Send several datagrams; the same as calling ``send`` for each, in another order maybe.

        Those of equal length for one target leave joined: who asked for a lot in one
        wake-up gets it by one system call, which is most of what an answer costs.
        """
        if len(datagrams) >= MIN_JOINED and self._has_gso and not self._queue:
            runs: dict[tuple[Endpoint, int], list[bytes]] = {}
            for data, target in datagrams:
                runs.setdefault((target, len(data)), []).append(data)
            if 2 * len(runs) <= len(datagrams):
                for (target, length), parts in runs.items():
                    if len(parts) == 1:
                        self.send(parts[0], target)
                    else:
                        self.send_segments(b"".join(parts), length, target)
                return
        for data, target in datagrams:
            self.send(data, target)

    def send_segments(self, data: bytes, segment_length: int, target: Endpoint) -> None:
        """
        Send ``data`` as datagrams of ``segment_length`` bytes each, the last may be shorter.

        The same as calling ``send`` for each, in one system call where possible.
        """
        sock = self._sock
        room = min(_MAX_SEGMENTS, MAX_DATAGRAM_LENGTH // segment_length) * segment_length
        is_joinable = self._has_gso and not self._queue and len(data) <= room
        if sys.platform == "linux" and sock is not None and is_joinable:
            control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", segment_length))]
            try:
                sock.sendmsg([data], control, 0, target)
                return
            except OSError:  # no room, or a path that cannot: one by one sorts it out
                pass
        for at in range(0, len(data), segment_length):
            self.send(data[at : at + segment_length], target)

    def _write(self) -> None:
        sock = self._sock
        while sock is not None and self._queue:
            data, target = self._queue[0]
            try:
                sock.sendto(data, target)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.num_errors += 1
            self._queue.popleft()
            self._queue_length -= len(data)
        self._loop.remove_writer(self._descriptor)

    def close(self) -> None:
        """Close; what waits to be sent is dropped. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._queue.clear()
        self._queue_length = 0
        sock.close()


def _try_option(sock: socket.socket, option: int, value: int) -> bool:
    """Set an option of Linux' UDP; False where there is no such thing."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(_SOL_UDP, option, value)
    except OSError:
        return False
    return True
