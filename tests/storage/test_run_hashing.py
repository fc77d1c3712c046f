"""storage.run_hashing: runs of pieces through one buffer, against plain hashing."""

from __future__ import annotations

import hashlib

import pytest

from bittern.codec.merkle import block_hashes, piece_layer_of, piece_level, root_of
from bittern.core.errors import FileVanished
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage import run_hashing
from bittern.storage.run_hashing import MAX_RUN_PIECES, RunHasher, run_length
from tests.storage.places import noise


class Space:
    """A piece space in memory that notes how it is read."""

    def __init__(self, length: int) -> None:
        self.data = noise(length)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, view: memoryview) -> None:
        self.reads.append((offset, len(view)))
        part = self.data[offset : offset + len(view)]
        view[:] = part + bytes(len(view) - len(part))


def sha1s(data: bytes, piece_length: int) -> bytes:
    return b"".join(
        hashlib.sha1(data[at : at + piece_length]).digest()
        for at in range(0, len(data), piece_length)
    )


@pytest.mark.parametrize("piece_length", [1, 7, 1000, 16_384, 30_000, 300_000])
@pytest.mark.parametrize("length", [1, 16_384, 100_000, 600_000])
def test_v1_runs(piece_length: int, length: int) -> None:
    space, hasher = Space(length), RunHasher(piece_length)
    found = b""
    step = run_length(piece_length) * piece_length
    for at in range(0, length, step):
        part = min(step, length - at)
        digests, layer = hasher.hash(space.read, at, v1_length=part, v2_length=0, level=None)
        assert layer == b""
        found += digests
    assert found == sha1s(space.data, piece_length)
    assert [offset for offset, _ in space.reads] == list(range(0, length, step))


@pytest.mark.parametrize("buffer_length", [1 << 14, 1 << 16, 1 << 19])
@pytest.mark.parametrize("num_blocks", [1, 2, 4, 64])
@pytest.mark.parametrize("length", [1, 16_384, 16_385, 65_536, 200_000])
def test_a_run_within_a_file_of_a_hybrid(
    length: int, num_blocks: int, buffer_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v1 counts zeros up to the end of the last piece, v2 does not."""
    monkeypatch.setattr(run_hashing, "BUFFER_LENGTH", buffer_length)
    piece_length = num_blocks * BLOCK_LENGTH
    space, hasher = Space(length), RunHasher(piece_length)
    padded = space.data + bytes(-length % piece_length)
    is_small = length <= piece_length
    v1 = v2 = b""
    step = run_length(piece_length) * piece_length
    for at in range(0, length, step):
        digests, layer = hasher.hash(
            space.read,
            at,
            v1_length=min(step, len(padded) - at),
            v2_length=min(step, length - at),
            level=None if is_small else piece_level(piece_length),
        )
        v1 += digests
        v2 += layer
    leaves = block_hashes(space.data)
    assert v1 == sha1s(padded, piece_length)
    assert v2 == (root_of(leaves) if is_small else piece_layer_of(leaves, piece_length))
    assert all(count <= max(buffer_length, 1) for _, count in space.reads)


@pytest.mark.parametrize("num_blocks", [1, 4, 64])
def test_a_run_longer_than_the_buffer(num_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_hashing, "BUFFER_LENGTH", 8 * BLOCK_LENGTH)
    piece_length = num_blocks * BLOCK_LENGTH
    length = 3 * 64 * BLOCK_LENGTH + 100
    padded_length = -(-length // piece_length) * piece_length
    space, hasher = Space(length), RunHasher(piece_length)
    v1, v2 = hasher.hash(
        space.read,
        0,
        v1_length=padded_length,
        v2_length=length,
        level=piece_level(piece_length),
    )
    assert v1 == sha1s(space.data + bytes(padded_length - length), piece_length)
    assert v2 == piece_layer_of(block_hashes(space.data), piece_length)
    assert max(count for _, count in space.reads) == 8 * BLOCK_LENGTH


def test_a_run_may_be_told_how_long_to_be() -> None:
    assert run_length(1 << 20, 8 << 20) == 8
    assert run_length(1, 8 << 20) == MAX_RUN_PIECES
    assert run_length(16 << 20, 8 << 20) == 1


def test_v2_alone_reads_no_pads() -> None:
    space, hasher = Space(20_000), RunHasher(4 * BLOCK_LENGTH)
    v1, v2 = hasher.hash(space.read, 0, v1_length=0, v2_length=20_000, level=None)
    assert (v1, v2) == (b"", root_of(block_hashes(space.data)))
    assert space.reads == [(0, 20_000)]


def test_a_hasher_forgets_what_it_had_before() -> None:
    space, hasher = Space(100_000), RunHasher(BLOCK_LENGTH)
    for at in (0, 50_000, 0):
        v1, _ = hasher.hash(space.read, at, v1_length=20_000, v2_length=0, level=None)
        assert v1 == sha1s(space.data[at : at + 20_000], BLOCK_LENGTH)


def test_tiny_pieces_make_no_endless_lists() -> None:
    assert run_length(1) == MAX_RUN_PIECES
    assert run_length(16_384) == 128
    assert run_length(1 << 24) == 1


def test_an_error_of_reading_comes_out() -> None:
    def read(offset: int, view: memoryview) -> None:
        raise FileVanished("gone")

    with pytest.raises(FileVanished):
        RunHasher(1 << 20).hash(read, 0, v1_length=1 << 20, v2_length=0, level=None)
