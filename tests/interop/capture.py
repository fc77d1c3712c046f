"""
Everything that is sent in network namespaces, read from the kernel and taken apart here.

Packet sockets see what leaves every other socket, whatever program it belongs to. The parsing
shares no code with bittern. Linux and root only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from bencode2 import bdecode

from tests.interop.place import Place

_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE = 33
_BUFFER_LENGTH = 64 << 20
_HEADER_LENGTH = 14
"""Of Ethernet, which Linux also puts before what is sent on a loopback interface."""
_GREETING = b"\x13BitTorrent protocol"
_PORT, _EXTENDED = 9, 20

Address = tuple[str, int]


@dataclass(slots=True)
class _Flow:
    """One direction of a TCP connection: what was sent, by sequence number."""

    first: int | None = None
    parts: dict[int, bytes] = field(default_factory=dict)

    def data(self) -> bytes:
        """Return the bytes in order, up to the first gap."""
        found = bytearray()
        for at in sorted(self.parts):
            if at > len(found):
                break
            found[at:] = self.parts[at] if at + len(self.parts[at]) >= len(found) else found[at:]
        return bytes(found)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One direction of a peer connection, as far as it is not about pieces."""

    info_hash: bytes
    has_dht_bit: bool
    messages: tuple[tuple[int, bytes], ...]
    """Id and payload of every message."""

    @property
    def extensions(self) -> set[bytes]:
        """Names that extended handshakes offer (BEP 10)."""
        names: set[bytes] = set()
        for number, payload in self.messages:
            if number == _EXTENDED and payload[:1] == b"\0":
                names |= set(bdecode(payload[1:]).get(b"m", {}))
        return names

    @property
    def names_dht_port(self) -> bool:
        """Whether it says where its DHT node is (BEP 5)."""
        return any(number == _PORT for number, _ in self.messages)

    @property
    def exchanges(self) -> list[bytes]:
        """Extended messages that hold lists of peers (BEP 11), under whatever id."""
        return [
            payload
            for number, payload in self.messages
            if number == _EXTENDED and payload[:1] != b"\0" and b"5:added" in payload
        ]


class Capture:
    """Listens on interfaces until it is closed."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[Address, Address, bytes]] = []
        self.dialled: set[Address] = set()
        """Where TCP connections were asked for."""
        self._flows: dict[tuple[Address, Address], _Flow] = defaultdict(_Flow)
        self._sockets: list[socket.socket] = []

    def listen(self, place: Place, interface: str) -> None:
        """Read what passes an interface of a place."""
        with place.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.bind((interface, _ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_LENGTH)
        sock.setblocking(False)
        self._sockets.append(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read, sock)

    def _read(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._packet(sock.recv(1 << 17))

    def _packet(self, frame: bytes) -> None:
        packet = frame[_HEADER_LENGTH:]
        if packet[:1] and packet[0] >> 4 == 4:
            start, kind = (packet[0] & 15) * 4, packet[9]
            hosts = [socket.inet_ntop(socket.AF_INET, packet[at : at + 4]) for at in (12, 16)]
            packet = packet[: int.from_bytes(packet[2:4], "big") or None]
        elif packet[:1] and packet[0] >> 4 == 6:
            start, kind = 40, packet[6]
            hosts = [socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24)]
        else:
            return
        body = packet[start:]
        ports = (int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big"))
        source, target = (hosts[0], ports[0]), (hosts[1], ports[1])
        if kind == socket.IPPROTO_UDP:
            self.datagrams.append((source, target, body[8:]))
        elif kind == socket.IPPROTO_TCP:
            self._segment(source, target, body)

    def _segment(self, source: Address, target: Address, body: bytes) -> None:
        sequence, flags = int.from_bytes(body[4:8], "big"), body[13]
        payload = body[(body[12] >> 4) * 4 :]
        if flags & 2:  # SYN
            self._flows[source, target] = _Flow(first=(sequence + 1) & 0xFFFF_FFFF)
            if not flags & 16:
                self.dialled.add(target)
        flow = self._flows[source, target]
        if payload and flow.first is not None:
            at = (sequence - flow.first) & 0xFFFF_FFFF
            if len(payload) > len(flow.parts.get(at, b"")):
                flow.parts[at] = payload

    def conversations(self, info_hash: bytes) -> list[Conversation]:
        """Return both directions of every peer connection that was about a torrent."""
        found = []
        for flow in self._flows.values():
            data = flow.data()
            if data.startswith(_GREETING) and data[28:48] == info_hash:
                has_dht_bit = bool(data[27] & 1)
                found.append(Conversation(info_hash, has_dht_bit, tuple(_messages(data[68:]))))
        return found

    def close(self) -> None:
        """Stop listening."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + length > len(data):
            return
        if length:
            yield data[at + 4], data[at + 5 : at + 4 + length]
        at += 4 + length
