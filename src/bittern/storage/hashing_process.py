"""
A process that hashes for us, seen from here.

It is a new interpreter that imports little, never a copy of ours, which has
threads. It reads files itself, so only places and hashes pass between us. A
process that cannot be started, that ends or that answers nonsense is no error:
``hash`` returns None, and the caller hashes by himself what he asked for.

It ends when its input does, so also when we are killed, and signals of the
terminal do not reach it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from bittern.codec.merkle import HASH_LENGTH
from bittern.storage.base import FilePlace
from bittern.storage.hashing import SHA1_LENGTH
from bittern.storage.hashing_child import NUMBER_MASK, REPLY, REQUEST

END_TIMEOUT: Final = 1.0
"""Seconds that a process has to end by itself after its input has ended."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv.pop()); "
    "from bittern.storage.hashing_child import main; main()"
)


def can_start_processes() -> bool:
    """
    Tell whether there is an interpreter to start, and something to be gained by it.

    Not on Windows, where this was never measured; not where the system cannot read at a position
    into a buffer (macOS before 11); not in a program that was frozen into its
    interpreter; and not where the interpreter has no lock that threads would wait for.
    """
    return (
        os.name == "posix"
        and hasattr(os, "preadv")
        and bool(sys.executable)
        and not getattr(sys, "frozen", False)
        and getattr(sys, "_is_gil_enabled", lambda: True)()
    )


class HashingProcess:
    """
    One process; to be used from one thread, except for ``kill``.

    Args:
        piece_length: of the torrent.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, piece_length: int) -> None:
        import subprocess

        self._piece_length = piece_length
        self.has_answered: bool = False
        self.is_alive: bool = True
        """False once it has failed; then it is not asked any more."""
        # -I and -S: neither the environment nor installed packages have a say, and it is quicker.
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-B", "-I", "-S", "-c", _PROGRAM, str(piece_length), str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._replies = self._process.stdout

    def hash(
        self, place: FilePlace, length: int, *, v1_length: int, v2_length: int, level: int | None
    ) -> tuple[bytes, bytes] | None:
        """
        Hash a run as ``RunHasher.hash`` does.

        Args:
            place: where its first byte is.
            length: bytes of it in that file; what is missing up to ``v1_length`` are zeros.
            v1_length: bytes that v1 counts.
            v2_length: bytes that v2 counts.
            level: of the hashes that v2 wants.

        Returns:
            None when it was not done, for whatever reason.
        """
        path = os.fsencode(place.path)
        header = REQUEST.pack(
            place.position,
            length,
            v1_length,
            v2_length,
            place.device & NUMBER_MASK,
            place.inode & NUMBER_MASK,
            -1 if level is None else level,
            len(path),
        )
        wanted = self._size(v1_length, SHA1_LENGTH), self._size(v2_length, HASH_LENGTH)
        try:
            self._requests.write(header + path)
            self._requests.flush()
            lengths = REPLY.unpack(self._read(REPLY.size))
            if lengths == (0, 0):
                self.has_answered = True
                return None
            if lengths != wanted:
                raise EOFError
            v1, v2 = map(self._read, wanted)
        except (OSError, EOFError):
            self.is_alive = False
            return None
        self.has_answered = True
        return v1, v2

    def _size(self, length: int, hash_length: int) -> int:
        return -(-length // self._piece_length) * hash_length

    def _read(self, length: int) -> bytes:
        data = self._replies.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def kill(self) -> None:
        """End it at once, whatever it does; ``hash`` then returns None. From any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it and wait for that. Idempotent."""
        self.is_alive = False
        with contextlib.suppress(OSError):  # what it did not take before it died
            self._requests.close()
        self._replies.close()
        from subprocess import TimeoutExpired

        try:
            self._process.wait(END_TIMEOUT)
        except TimeoutExpired:
            self.kill()
            self._process.wait()
