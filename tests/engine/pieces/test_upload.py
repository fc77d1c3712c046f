"""Blocks into piece messages."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import wire
from bittern.core.errors import FileVanished
from bittern.core.geometry import BLOCK_LENGTH, MAX_REQUEST_LENGTH
from bittern.engine.pieces.upload import SendBuffer, read_requests

PIECE_LENGTH = 65_536
CONTENT = random.Random(0).randbytes(16 * PIECE_LENGTH)


class FakeStorage:
    """Serves CONTENT; notes its reads; may say that it would block, or that all is gone."""

    def __init__(self, *, blocks: bool = False, is_gone: bool = False) -> None:
        self.reads: list[tuple[int, int]] = []
        self._blocks = blocks
        self._is_gone = is_gone

    def read_into(self, offset: int, buffers: list[memoryview], *, nowait: bool = False) -> bool:
        if self._is_gone:
            raise FileVanished("file is missing")
        if nowait and self._blocks:
            return False
        self.reads.append((offset, sum(map(len, buffers))))
        for buffer in buffers:
            buffer[:] = CONTENT[offset : offset + len(buffer)]
            offset += len(buffer)
        return True


def messages(requests: list[tuple[int, int, int]]) -> bytes:
    return b"".join(
        wire.encode_piece(i, b, CONTENT[i * PIECE_LENGTH + b : i * PIECE_LENGTH + b + n])
        for i, b, n in requests
    )


def test_adjacent_blocks_are_one_read_over_the_border_of_a_piece() -> None:
    storage = FakeStorage()
    requests = [(0, 49_152, BLOCK_LENGTH), (1, 0, BLOCK_LENGTH), (1, 16_384, 100)]
    made = SendBuffer(1 << 19).fill(storage, PIECE_LENGTH, requests, nowait=True)  # type: ignore[arg-type]  # a fake
    assert bytes(made or b"") == messages(requests)
    assert storage.reads == [(49_152, 2 * BLOCK_LENGTH + 100)]


def test_runs_that_do_not_touch_are_read_one_by_one() -> None:
    storage = FakeStorage()
    requests = [(5, 0, BLOCK_LENGTH), (2, 0, BLOCK_LENGTH), (2, BLOCK_LENGTH, BLOCK_LENGTH)]
    made = SendBuffer(1 << 19).fill(storage, PIECE_LENGTH, requests, nowait=True)  # type: ignore[arg-type]  # a fake
    assert bytes(made or b"") == messages(requests)
    assert len(storage.reads) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, PIECE_LENGTH - 1), st.integers(1, 40_000)).map(
            lambda r: (r[0], r[1], min(r[2], PIECE_LENGTH - r[1]))
        ),
        max_size=12,
    )
)
def test_any_requests_give_their_messages(requests: list[tuple[int, int, int]]) -> None:
    buffer = SendBuffer(12 * 40_000)
    made = buffer.fill(FakeStorage(), PIECE_LENGTH, requests, nowait=True)  # type: ignore[arg-type]  # a fake
    assert bytes(made or b"") == messages(requests)
    assert read_requests(FakeStorage(), PIECE_LENGTH, requests) == made  # type: ignore[arg-type]  # a fake


whole_blocks = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 3)).map(
        lambda r: (r[0], r[1] * BLOCK_LENGTH, BLOCK_LENGTH)
    ),
    max_size=16,
)
rows = st.tuples(st.integers(0, 63), st.integers(1, 16)).map(
    lambda r: [(n // 4, n % 4 * BLOCK_LENGTH, BLOCK_LENGTH) for n in range(64)][r[0] :][: r[1]]
)
odd_ones = st.sampled_from([[], [], [(0, 5, BLOCK_LENGTH)], [(3, 0, 1)], [(2, 0, 40_000)]])


@given(
    st.lists(
        st.tuples(whole_blocks | rows, odd_ones, whole_blocks | rows).map(
            lambda r: [*r[0], *r[1], *r[2]]
        ),
        max_size=4,
    )
)
def test_runs_that_follow_each_other_leave_nothing_behind(
    runs: list[list[tuple[int, int, int]]],
) -> None:
    """Of whole blocks and of others, in any order, in one buffer."""
    buffer = SendBuffer(32 * BLOCK_LENGTH)
    for requests in runs:
        storage = FakeStorage()
        made = buffer.fill(storage, PIECE_LENGTH, requests, nowait=True)  # type: ignore[arg-type]  # a fake
        assert bytes(made or b"") == messages(requests)
        other = FakeStorage()
        assert read_requests(other, PIECE_LENGTH, requests) == made  # type: ignore[arg-type]  # a fake
        assert storage.reads == other.reads


def test_a_run_of_more_blocks_than_there_is_room_for_at_once() -> None:
    """As many as ``length`` allows and one request more."""
    buffer = SendBuffer(MAX_REQUEST_LENGTH)
    requests = [(n // 4, n % 4 * BLOCK_LENGTH, BLOCK_LENGTH) for n in range(17)]
    for some in (requests, requests[:16], requests):
        made = buffer.fill(FakeStorage(), PIECE_LENGTH, some, nowait=True)  # type: ignore[arg-type]  # a fake
        assert bytes(made or b"") == messages(some)


def test_a_full_batch_and_one_longest_request_fit() -> None:
    buffer = SendBuffer(1 << 19)
    requests = [(n // 4, n % 4 * BLOCK_LENGTH, BLOCK_LENGTH) for n in range(32)]
    requests.append((0, 0, MAX_REQUEST_LENGTH))
    made = buffer.fill(FakeStorage(), PIECE_LENGTH, requests, nowait=True)  # type: ignore[arg-type]  # a fake
    assert made is not None
    assert len(made) == 33 * 13 + (1 << 19) + MAX_REQUEST_LENGTH


def test_what_would_block_is_left_to_the_worker() -> None:
    requests = [(0, 0, BLOCK_LENGTH), (3, 0, BLOCK_LENGTH)]
    storage = FakeStorage(blocks=True)
    for some in (requests, requests[:1]):
        assert SendBuffer(1 << 19).fill(storage, PIECE_LENGTH, some, nowait=True) is None  # type: ignore[arg-type]  # a fake
    read = read_requests(storage, PIECE_LENGTH, requests)  # type: ignore[arg-type]  # a fake
    assert bytes(read) == messages(requests)


def test_a_file_that_has_gone_is_an_error() -> None:
    with pytest.raises(FileVanished):
        SendBuffer(1 << 19).fill(
            FakeStorage(is_gone=True),  # type: ignore[arg-type]  # a fake
            PIECE_LENGTH,
            [(0, 0, 1)],
            nowait=True,
        )


def test_a_cold_run_before_another_is_left_to_the_worker() -> None:
    storage = FakeStorage(blocks=True)
    requests = [(5, 0, BLOCK_LENGTH), (2, 0, BLOCK_LENGTH)]
    assert SendBuffer(1 << 19).fill(storage, PIECE_LENGTH, requests, nowait=True) is None  # type: ignore[arg-type]  # a fake
    assert bytes(read_requests(storage, PIECE_LENGTH, requests)) == messages(requests)  # type: ignore[arg-type]  # a fake
