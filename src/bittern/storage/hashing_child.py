"""
What runs in a process that hashes: it reads runs of files and returns their hashes.

Threads that hash blocks of 16 KiB meet at the interpreter lock some hundred
thousand times a second; a process has a lock of its own. ``hashing_process``
starts it and talks to it over its standard input and output. It knows nothing
of torrents: one request is one run within one file, and it keeps nothing
between two. The end of its input is its end, so it cannot outlive whoever
started it.

A request names a file by its path and, since it was opened safely elsewhere, by
device and inode: what is found there must be that file. Whatever does not work
is refused, and whoever asked reads by himself and learns the reason.

What is in the page cache is mapped rather than copied, which saves a
twentieth of the whole. A file that becomes shorter at that moment ends this
process by a signal and no other (Limit: F5).

Request, then the path, in the byte order of the machine:

| offset | size | field |
|---|---|---|
| 0 | 8 | where the run begins in the file |
| 8 | 8 | bytes of it in the file; what is missing up to the v1 length are zeros |
| 16 | 8 | v1 length: bytes that v1 counts, 0 for none |
| 24 | 8 | v2 length: the same of v2 |
| 32 | 8 | device |
| 40 | 8 | inode |
| 48 | 4 | level of the v2 hashes wanted, -1 for the root of a file that ends in its first piece |
| 52 | 4 | bytes of the path |

Reply, then the hashes as of ``RunHasher.hash``: 4 and 4 bytes, the lengths of
those of v1 and of v2. Both are 0 in a refusal.

It imports next to nothing, because each process must do that again.
"""

from __future__ import annotations

import os
import sys
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap
from struct import Struct

from bittern.codec.merkle import LEAF_LENGTH
from bittern.storage.run_hashing import RunHasher, cut, sha1s, sha256s, top_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

REQUEST = Struct("=6QiI")
REPLY = Struct("=II")
NUMBER_MASK = (1 << 64) - 1
"""Devices and inodes are compared in 64 bits."""

MAX_MAPPED = 16 << 20
"""Bytes that are mapped at once (Limit: P7); runs are shorter, pieces may be longer."""

_REFUSAL = REPLY.pack(0, 0)
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""A pipe that somebody put there must not hold us up. Links are followed: what counts is whose."""
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def main() -> None:
    """Serve standard input; the argument is the piece length."""
    serve(sys.stdin.buffer, sys.stdout.buffer, piece_length=int(sys.argv[1]))
    os._exit(0)  # nothing is left to be done, and the interpreter takes its time to end


def serve(requests: BinaryIO, replies: BinaryIO, *, piece_length: int) -> None:
    """Answer requests until there are no more."""
    hasher = RunHasher(piece_length)
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        position, length, v1_length, v2_length, device, inode, level, path_length = REQUEST.unpack(
            header
        )
        path = requests.read(path_length)
        try:
            fd = _open(path, (device, inode))
            try:
                run = _Run(fd, position, length)
                v1, v2 = run.hash(hasher, v1_length, v2_length, None if level < 0 else level)
            finally:
                os.close(fd)
            replies.write(REPLY.pack(len(v1), len(v2)) + v1 + v2)
        except (OSError, ValueError, EOFError):
            replies.write(_REFUSAL)
        replies.flush()


def _open(path: bytes, wanted: tuple[int, int]) -> int:
    # Looked at before it is opened too: opening a device may do something.
    if _identity(os.stat(path)) != wanted:  # noqa: PTH116 - pathlib takes long to import
        raise FileNotFoundError
    fd = os.open(path, _FLAGS)
    if _identity(os.fstat(fd)) != wanted:
        os.close(fd)
        raise FileNotFoundError
    return fd


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev & NUMBER_MASK, status.st_ino & NUMBER_MASK


class _Run:
    """``length`` bytes of an open file, from ``position`` on."""

    def __init__(self, fd: int, position: int, length: int) -> None:
        self._fd = fd
        self._position = position
        self._length = length

    def hash(
        self, hasher: RunHasher, v1_length: int, v2_length: int, level: int | None
    ) -> tuple[bytes, bytes]:
        # A hybrid is read: so it is still in some cache when it is hashed for the second time.
        if (v1_length and v2_length) or not self._is_cached():
            return hasher.hash(self._read, 0, v1_length=v1_length, v2_length=v2_length, level=level)
        view = self._map()
        if v1_length:
            return sha1s(cut(view, hasher.piece_length)), b""
        return b"", top_of(sha256s(cut(view, LEAF_LENGTH)), level)

    def _is_cached(self) -> bool:
        """
        Tell whether it seems to be in memory, to be mapped: its first and last byte are.

        Otherwise reading is better: the system looks further ahead, and errors are no signals.
        """
        if sys.platform == "win32" or not _NOWAIT or self._length > MAX_MAPPED:
            return False
        byte = bytearray(1)
        ends = self._position, self._position + self._length - 1
        try:
            return all(os.preadv(self._fd, [byte], at, _NOWAIT) == 1 for at in ends)
        except OSError:
            return False

    def _map(self) -> memoryview:
        """Return a view of all of it, mapped as long as there are views."""
        start = self._position % ALLOCATIONGRANULARITY
        mapping = mmap(
            self._fd, start + self._length, access=ACCESS_READ, offset=self._position - start
        )
        return memoryview(mapping)[start:]

    def _read(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` on, and with zeros where the run has ended."""
        if sys.platform == "win32":
            raise EOFError  # there ``hashing_process`` starts none
        present = max(0, min(self._length - offset, len(view)))
        view[present:] = bytes(len(view) - present)
        view = view[:present]
        while view:
            count = os.preadv(self._fd, [view], self._position + offset)
            if not count:
                raise EOFError
            offset += count
            view = view[count:]
