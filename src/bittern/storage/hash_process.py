"""
Hashing in another process, over memory shared with it.

Threads hash side by side only while one call hashes much at a time: each call
of ``hashlib`` gives the interpreter lock away and must get it back, which for
blocks of 16 KiB costs as much as it gains. A process has a lock of its own.

The child knows nothing of files: it is told runs of bytes in the shared memory
and answers with hashes. It ends when its input ends, so it never outlives us,
however we end.

A request is the number of its steps and the steps:

======  ====  =====================================================
offset  size  field of a step
======  ====  =====================================================
0       1     flags: 1 first of its piece, 2 last, 4 SHA-1, 8 v2
1       4     begin: of the bytes in the shared memory
5       4     length
9       4     v2_length: how many of them belong to the file (BEP 52)
13      1     level of the tree for v2's answer; 255 for the root
======  ====  =====================================================

Integers are big-endian. The answer is one byte, so that there is always one,
and then for each last step the SHA-1 (20 bytes) and the hash of the tree (32
bytes), as far as they were asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from bittern.codec.merkle import block_hashes, layer_above, root_of

SLOT_LENGTH: Final = 1 << 20
"""Bytes of one slot of shared memory; a multiple of the block length."""

NUM_SLOTS: Final = 2
"""So that one is filled while the other is hashed."""

FIRST: Final = 1
LAST: Final = 2
WITH_V1: Final = 4
WITH_V2: Final = 8
ROOT_LEVEL: Final = 255

_STEP: Final = struct.Struct(">BIIIB")
_COUNT: Final = struct.Struct(">I")
_START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from bittern.storage.hash_process import serve; "
    "serve(int(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)"
)
_ROOT: Final = Path(__file__).resolve().parents[2]
_ANSWERED: Final = b"."


class Step(NamedTuple):
    """Bytes in shared memory and what to do with them; see the module's text."""

    flags: int
    begin: int
    length: int
    v2_length: int
    level: int


class StepHasher:
    """
    What the child does.

    Args:
        memory: the shared memory.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._sha1 = hashlib.sha1()
        self._leaves: list[bytes] = []

    def run(self, steps: Sequence[Step]) -> bytes:
        """Return the answer to a request; pieces may go on in the next one."""
        answer = [_ANSWERED]
        for flags, begin, length, v2_length, level in steps:
            if flags & FIRST:
                self._sha1 = hashlib.sha1()
                self._leaves = []
            if flags & WITH_V1:
                self._sha1.update(self._memory[begin : begin + length])
                if flags & LAST:
                    answer.append(self._sha1.digest())
            if flags & WITH_V2:
                # Steps begin at blocks, so no leaf is cut in two.
                self._leaves.append(block_hashes(self._memory[begin : begin + v2_length]))
                if flags & LAST:
                    leaves = b"".join(self._leaves)
                    is_root = level == ROOT_LEVEL
                    answer.append(root_of(leaves) if is_root else layer_above(leaves, 0, level))
        return b"".join(answer)


class HashProcess:
    """
    A child process that hashes, and the memory shared with it.

    ``memory`` has ``NUM_SLOTS`` slots of ``SLOT_LENGTH`` bytes. To be used by one
    thread, and closed.

    Raises:
        OSError: this system cannot do it.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("no memory to share with another program on this system")
        length = SLOT_LENGTH * NUM_SLOTS
        memory_fd = os.memfd_create("bittern-hash")
        try:
            os.ftruncate(memory_fd, length)
            self._map = mmap.mmap(memory_fd, length)
            # Isolated, and not of our process group: neither the user's environment nor his
            # Ctrl-C concerns it.
            self._child = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-I", "-S", "-c", _START, str(_ROOT), str(memory_fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(memory_fd,),
                start_new_session=True,
            )
        finally:
            os.close(memory_fd)
        self._requests = cast(IO[bytes], self._child.stdin)
        self._answers = cast(IO[bytes], self._child.stdout)
        self.memory = memoryview(self._map)

    @property
    def pid(self) -> int:
        """The number of the child."""
        return self._child.pid

    def submit(self, steps: Sequence[Step]) -> None:
        """
        Send a request; the memory it names must stay as it is until it is answered.

        Raises:
            OSError: the child is gone.
        """
        self._requests.write(_COUNT.pack(len(steps)) + b"".join([_STEP.pack(*s) for s in steps]))
        self._requests.flush()

    def answer(self, length: int) -> bytes:
        """
        Wait for the answer to the oldest request, of ``length`` bytes of hashes.

        Raises:
            OSError: the child is gone.
        """
        data = self._answers.read(len(_ANSWERED) + length)
        if len(data) < len(_ANSWERED) + length:
            raise BrokenPipeError("the hashing process ended")
        return data[len(_ANSWERED) :]

    def close(self) -> None:
        """End the child, which does not take long, and free the memory."""
        with contextlib.suppress(OSError):
            self._requests.close()
        self._answers.close()
        self._child.wait()
        # An error on its way up may still hold a part of the memory; then it goes with that.
        with contextlib.suppress(BufferError):
            self.memory.release()
            self._map.close()


def serve(memory_fd: int, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Be the child: answer requests until the input ends."""
    hasher = StepHasher(memoryview(mmap.mmap(memory_fd, SLOT_LENGTH * NUM_SLOTS)))
    with contextlib.suppress(BrokenPipeError):
        while len(head := requests.read(_COUNT.size)) == _COUNT.size:
            data = requests.read(_COUNT.unpack(head)[0] * _STEP.size)
            answers.write(hasher.run([Step(*fields) for fields in _STEP.iter_unpack(data)]))
            answers.flush()
