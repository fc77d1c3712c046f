"""engine.pieces.hash_queue: pieces read back and hashed by the worker, many in one job."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
from collections.abc import Sequence

import pytest

from bittern.core.errors import FileVanished, StorageError
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.engine.pieces import hash_queue
from bittern.engine.pieces.hash_queue import (
    MAX_WAITING,
    READ_LENGTH,
    HashQueue,
    Part,
    feed_parts,
    make_buffer,
)
from bittern.engine.store.disk import Disk
from bittern.policy.open_piece import OpenPiece
from bittern.testing.disk import SimWorker
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated


class Bytes:
    """A storage of which only reading matters; remembers what was read at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read_into(
        self, offset: int, buffers: Sequence[memoryview], *, nowait: bool = False
    ) -> bool:
        assert not nowait
        for buffer in buffers:
            part = self.data[offset : offset + len(buffer)]
            if len(part) < len(buffer):
                raise FileVanished("the file is too short", path="content")
            self.reads.append((offset, len(buffer)))
            buffer[:] = part
            offset += len(buffer)
        return True


class Scene:
    """A queue over bytes in memory, and what it says."""

    def __init__(
        self, loop: VirtualLoop, *, num_pieces: int, piece_length: int, is_parallel: bool = True
    ) -> None:
        self.data = random.Random(1).randbytes(num_pieces * piece_length - 100)
        self.geometry = Geometry.contiguous(piece_length, len(self.data), len(self.data))
        self.storage = Bytes(self.data)
        self.hashed: list[list[int]] = []
        self.failed: list[BaseException] = []
        worker = SimWorker(loop, delay=0.1, is_parallel=is_parallel)
        self.queue = HashQueue(
            self.storage,  # type: ignore[arg-type]  # only reads are needed
            self.geometry,
            Disk(worker, loop, max_queue=1 << 20),
            hashed=lambda pieces: self.hashed.append([piece.index for piece in pieces]),
            failed=self.failed.append,
        )

    def piece(self, index: int, *, num_hashed: int = 0) -> OpenPiece:
        """A whole piece, the first blocks of which have passed its hash."""
        piece = OpenPiece(index, self.geometry.num_blocks(index), hashlib.sha1())
        start = self.geometry.offset_of(index)
        piece.hasher.update(self.data[start : start + num_hashed * BLOCK_LENGTH])
        piece.num_hashed = num_hashed
        return piece

    def is_right(self, piece: OpenPiece) -> bool:
        start = self.geometry.offset_of(piece.index)
        data = self.data[start : start + self.geometry.length_of(piece.index)]
        assert isinstance(piece.hasher, type(hashlib.sha1()))
        return piece.hasher.digest() == hashlib.sha1(data).digest()


@simulated
async def test_what_comes_while_a_job_runs_makes_up_the_next(loop: VirtualLoop) -> None:
    scene = Scene(loop, num_pieces=6, piece_length=4 * BLOCK_LENGTH)
    pieces = [scene.piece(0), scene.piece(1, num_hashed=2), scene.piece(2), scene.piece(5)]
    assert not scene.queue.is_busy
    for piece in pieces:
        scene.queue.add([piece])
    assert scene.queue.is_busy
    await asyncio.sleep(1)
    assert scene.hashed == [[0], [1, 2, 5]]
    assert not scene.queue.is_busy
    assert all(map(scene.is_right, pieces))
    scene.queue.add([last := scene.piece(3)])
    await asyncio.sleep(1)
    assert scene.hashed[2:] == [[3]]
    assert scene.is_right(last)
    assert not scene.failed


@simulated
async def test_an_error_is_told_once_and_ends_it(loop: VirtualLoop) -> None:
    scene = Scene(loop, num_pieces=3, piece_length=4 * BLOCK_LENGTH)
    scene.storage.data = b""
    scene.queue.add([scene.piece(0)])
    scene.queue.add([scene.piece(1)])
    await asyncio.sleep(1)
    assert [type(error) for error in scene.failed] == [FileVanished]
    assert not scene.hashed


@simulated
async def test_a_lack_of_memory_is_told_as_well(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was met on the event loop, and the pieces stayed unhashed for good."""

    def refuse() -> memoryview:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(hash_queue, "make_buffer", refuse)
    scene = Scene(loop, num_pieces=2, piece_length=BLOCK_LENGTH)
    scene.queue.add([scene.piece(0)])
    await asyncio.sleep(1)
    assert [type(error) for error in scene.failed] == [OSError]
    assert not scene.queue.is_busy


@simulated
async def test_nothing_is_told_after_the_end(loop: VirtualLoop) -> None:
    scene = Scene(loop, num_pieces=3, piece_length=4 * BLOCK_LENGTH)
    scene.queue.add([scene.piece(0)])
    scene.queue.add([scene.piece(1)])
    scene.queue.stop()
    await asyncio.sleep(1)
    assert not scene.hashed
    assert not scene.failed


@pytest.mark.parametrize("is_parallel", [True, False])
@simulated
async def test_it_takes_no_more_than_it_can_hash(loop: VirtualLoop, is_parallel: bool) -> None:
    scene = Scene(loop, num_pieces=5, piece_length=MAX_WAITING // 4, is_parallel=is_parallel)
    room = []
    for index in range(5):
        room.append(scene.queue.has_room)
        scene.queue.add([scene.piece(index)])
    assert room == [is_parallel] * 4 + [False]
    await asyncio.sleep(1)
    assert scene.queue.has_room is is_parallel


@pytest.mark.parametrize("length", [0, 1, BLOCK_LENGTH, READ_LENGTH, 3 * READ_LENGTH + 5])
def test_a_hash_is_fed_in_steps(length: int) -> None:
    data = random.Random(length).randbytes(length)
    storage = Bytes(data)
    hasher = hashlib.sha1()
    feed_parts(storage, [(hasher, 0, length)], make_buffer())  # type: ignore[arg-type]  # only reads are needed
    assert hasher.digest() == hashlib.sha1(data).digest()
    assert all(size <= READ_LENGTH for _, size in storage.reads)


def test_neighbours_are_read_together() -> None:
    third = READ_LENGTH // 3
    data = random.Random(1).randbytes(8 * third)
    storage = Bytes(data)
    # Three in a row, of which the third does not fit any more; then one apart.
    runs = [(0, third), (third, third), (2 * third, 2 * third), (6 * third, third)]
    parts: list[Part] = [(hashlib.sha1(), offset, length) for offset, length in runs]
    feed_parts(storage, parts, make_buffer())  # type: ignore[arg-type]  # only reads are needed
    for (hasher, offset, length), _ in zip(parts, runs, strict=True):
        assert isinstance(hasher, type(hashlib.sha1()))
        assert hasher.digest() == hashlib.sha1(data[offset : offset + length]).digest()
    assert storage.reads == [
        (0, READ_LENGTH),
        (READ_LENGTH, 4 * third - READ_LENGTH),
        (6 * third, third),
    ]


def test_an_error_of_the_storage_comes_out() -> None:
    with pytest.raises(StorageError):
        feed_parts(Bytes(b"abc"), [(hashlib.sha1(), 0, 4)], make_buffer())  # type: ignore[arg-type]
