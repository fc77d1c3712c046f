"""
What moving, writing and hashing costs without any protocol: a limit to measure by.

The seed sends a file from beginning to end; the leech receives it, writes it and hashes it with
SHA-1 on a second thread, which reads it back from the page cache as bittern's does. 1 MiB at a
time; nobody asks for anything, nothing is compared. In C it would be the same system calls and
the same SHA-1.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import queue
import socket
import sys
import threading
from pathlib import Path

from bench.meter import Meter, say

RUN = 1 << 20
"""Bytes for each system call."""


def seed(folder: Path) -> None:
    """Send the one file in ``folder`` to the first that connects."""
    [path] = folder.iterdir()
    with socket.create_server(("127.0.0.1", 0)) as server, path.open("rb") as file:
        say(ready=server.getsockname()[1])
        sys.stdin.readline()
        meter = Meter()
        stream, _ = server.accept()
        buffer = memoryview(mmap.mmap(-1, RUN))
        sent = 0
        with stream:
            while length := os.preadv(file.fileno(), [buffer], sent):
                stream.sendall(buffer[:length])
                sent += length
        sys.stdin.read()
        meter.report(sent)


def leech(folder: Path, peers: list[int]) -> None:
    """Receive a file into ``folder``, hash it on a second thread."""
    [port] = peers
    say(ready=0)
    sys.stdin.readline()
    meter = Meter()
    written: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    with (folder / "content.bin").open("w+b") as file:
        fd = file.fileno()
        hashing = threading.Thread(target=_hash, args=(fd, written))
        hashing.start()
        buffer = memoryview(mmap.mmap(-1, RUN))
        at = 0
        with socket.create_connection(("127.0.0.1", port)) as stream:
            while length := stream.recv_into(buffer, RUN, socket.MSG_WAITALL):
                os.pwritev(fd, [buffer[:length]], at)
                written.put((at, length))
                at += length
        written.put((at, 0))
        hashing.join()
    meter.report(at)
    sys.stdin.read()
    say(uploaded=0)


def _hash(fd: int, written: queue.SimpleQueue[tuple[int, int]]) -> None:
    buffer = memoryview(mmap.mmap(-1, RUN))
    while True:
        at, length = written.get()
        if not length:
            return
        os.preadv(fd, [buffer[:length]], at)
        hashlib.sha1(buffer[:length]).digest()
