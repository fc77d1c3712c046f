"""
What asks DHT nodes: a crowd for their routing tables, and a load of queries.

The crowd is a few hundred nodes in one process that answer everything and name each
other. The load keeps a window of queries under way on sockets of many addresses, each
datagram sent by a call of its own, and counts answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import socket
import struct
import time
from functools import cache
from typing import Final, cast

NUM_CROWD: Final = 240
NUM_SOURCES: Final = 16
WINDOW: Final = 24
"""Queries under way of each source; all of them fit into a socket's default buffer."""
NUM_TORRENTS: Final = 2000
PEERS_EACH: Final = 50
"""100,000 peers: what both clients keep with their default limits."""
_SILENCE: Final = 0.1
"""Seconds after which what is under way counts as lost."""


class Crowd(asyncio.DatagramProtocol):
    """One node of the crowd."""

    everybody: list[bytes] = []  # noqa: RUF012  # one crowd in a process

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._node_id = rng.randbytes(20)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        compact = socket.inet_aton(host) + struct.pack(">H", port)
        self.everybody.append(self._node_id + compact)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at = data.find(b"1:t")
        if data.endswith(b"1:y1:qe") and at > 0:
            length, _, rest = data[at + 3 :].partition(b":")
            number = rest[: int(length)]
            nodes = b"".join(self._rng.sample(self.everybody, 8))
            self._transport.sendto(
                b"d1:rd2:id20:%b5:nodes208:%b5:token4:aaaae1:t%d:%b1:y1:re"
                % (self._node_id, nodes, len(number), number),
                addr,
            )


async def run_crowd() -> None:
    """Answer until standard input ends; the first line printed is the port of one of them."""
    loop = asyncio.get_running_loop()
    rng = random.Random(1)
    for number in range(NUM_CROWD):
        host = f"127.{1 + number // 200}.{number % 200}.1"
        await loop.create_datagram_endpoint(lambda: Crowd(rng), local_addr=(host, 0))
    info = Crowd.everybody[0]
    print(int.from_bytes(info[-2:], "big"), flush=True)
    await loop.run_in_executor(None, os.read, 0, 1)


def make_queries(rng: random.Random, count: int = 4096) -> list[bytes]:
    """Return queries as they come: mostly get_peers, some of torrents that have peers."""
    queries = []
    for number in range(count):
        node_id, tail = rng.randbytes(20), b"1:t2:%b1:y1:qe" % rng.randbytes(2)
        if number % 4 == 0:
            queries.append(b"d1:ad2:id20:%be1:q4:ping%b" % (node_id, tail))
            continue
        wanted = hash_of(number % NUM_TORRENTS) if number % 4 == 1 else rng.randbytes(20)
        queries.append(b"d1:ad2:id20:%b9:info_hash20:%be1:q9:get_peers%b" % (node_id, wanted, tail))
    return queries


@cache
def hash_of(number: int) -> bytes:
    """Return the info hash of one of the torrents that are announced."""
    return random.Random(number).randbytes(20)


class Load:
    """
    Sockets that ask one node.

    Args:
        port: of the node, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._buffer = bytearray(2048)
        for number in range(NUM_SOURCES):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind((f"127.0.0.{10 + number}", 0))
            sock.connect(("127.0.0.1", port))
            self._selector.register(sock, selectors.EVENT_READ, number)
            self._sockets.append(sock)

    def ask(self, seconds: float) -> float:
        """Return answers a second."""
        queries = make_queries(random.Random(2))
        num_queries, turn, num_answers = len(queries), 0, 0
        left = [0] * NUM_SOURCES
        sockets, buffer = self._sockets, self._buffer
        start = now = time.perf_counter()
        ready = list(enumerate(sockets))
        while now < start + seconds:
            for number, sock in ready:
                receive, send = sock.recv_into, sock.send
                count = left[number]
                try:
                    while True:
                        receive(buffer)
                        count -= 1
                except BlockingIOError:
                    pass
                num_answers += left[number] - count
                for _ in range(WINDOW - max(0, count)):
                    send(queries[turn])
                    turn = (turn + 1) % num_queries
                left[number] = WINDOW
            ready = [(key.data, sockets[key.data]) for key, _ in self._selector.select(_SILENCE)]
            if not ready:  # all that was under way is lost
                left = [0] * NUM_SOURCES
                ready = list(enumerate(sockets))
            now = time.perf_counter()
        return num_answers / (now - start)

    def announce(self) -> None:
        """Store peers of all torrents with the node, and see that it took them."""
        target = self._sockets[0].getpeername()
        for number in range(PEERS_EACH):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1.0)
                sock.bind((f"127.{20 + number}.0.1", 0))
                sock.connect(target)
                _announce(sock)

    def close(self) -> None:
        """Close the sockets."""
        self._selector.close()
        for sock in self._sockets:
            sock.close()


def _announce(sock: socket.socket) -> None:
    """Announce a peer of every torrent, ten at a time; what gets lost is sent again."""
    for first in range(0, NUM_TORRENTS, 10):
        hashes = [hash_of(number) for number in range(first, first + 10)]
        for _ in range(10):
            try:
                _announce_to(sock, hashes)
            except TimeoutError:
                continue
            break
        else:
            raise RuntimeError("a node does not answer")


def _announce_to(sock: socket.socket, hashes: list[bytes]) -> None:
    node_id = b"n" * 20
    for info_hash in hashes:
        sock.send(
            b"d1:ad2:id20:%b9:info_hash20:%be1:q9:get_peers1:t2:%b1:y1:qe"
            % (node_id, info_hash, info_hash[:2])
        )
    tokens: dict[bytes, bytes] = {}
    while len(tokens) < len(hashes):
        answer = _receive(sock)
        if b"5:token" in answer:
            tokens.update([_read_token(answer)])
    for info_hash in hashes:
        token = tokens[info_hash[:2]]
        sock.send(
            b"d1:ad2:id20:%b9:info_hash20:%b4:porti2000e5:token%d:%be"
            b"1:q13:announce_peer1:t2:aa1:y1:qe" % (node_id, info_hash, len(token), token)
        )
    for _ in hashes:
        _receive(sock)


def _read_token(answer: bytes) -> tuple[bytes, bytes]:
    """Return the transaction id and the token of an answer."""
    length, _, rest = answer[answer.index(b"5:token") + 7 :].partition(b":")
    at = answer.rindex(b"1:t2:") + 5
    return answer[at : at + 2], rest[: int(length)]


def _receive(sock: socket.socket) -> bytes:
    """Return the next answer; a node may also ping who asks it."""
    while True:
        data = sock.recv(2048)
        if b"1:y1:e" in data:
            raise RuntimeError(f"a node refused: {data!r}")
        if b"1:y1:r" in data:
            return data


if __name__ == "__main__":
    asyncio.run(run_crowd())
