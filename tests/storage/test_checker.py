from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from bittern.codec.merkle import block_hashes
from bittern.core.bitfield import Bitfield
from bittern.core.errors import DiskFull, FileVanished, Inconsistent, MisuseError, StorageError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage import checker, run_hashing
from bittern.storage.checker import CheckResult, check_blocks, check_pieces
from bittern.storage.files import FileStorage
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage
from tests.storage.places import noise
from tests.storage.test_hashing import PIECE, Torrent


class Content:
    """A torrent whose bytes are in memory."""

    def __init__(self, torrent: Torrent) -> None:
        self.torrent = torrent
        self.geometry = torrent.info.geometry
        self.layout = Layout(torrent.info.files, self.geometry)
        self.storage = MemoryStorage(self.layout)
        self.storage.prepare()
        self.hashes = torrent.hashes()

    def fill(self) -> Content:
        if self.torrent.space:
            self.storage.write(0, [self.torrent.space])
        return self

    def check(self, **options: object) -> CheckResult:
        return check_pieces(
            self.storage,
            self.layout,
            self.geometry,
            self.hashes,
            **options,  # type: ignore[arg-type]
        )


CONTENTS = [noise(3 * PIECE + 100), b"", noise(10, 2), noise(PIECE, 3), noise(2 * PIECE + 1, 4)]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_complete_content_is_found_complete(version: str, num_threads: int) -> None:
    content = Content(Torrent(version, CONTENTS)).fill()
    result = content.check(num_threads=num_threads)
    assert result.have.is_full
    assert not result.unchecked
    assert result.missing_files == ()


@pytest.mark.parametrize("batch_length", [PIECE, checker.BATCH_LENGTH])
@pytest.mark.parametrize("buffer_length", [PIECE // 2, 3 * PIECE, run_hashing.BUFFER_LENGTH])
@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_bad_pieces_and_no_others_are_found_bad(
    version: str, buffer_length: int, batch_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "BATCH_LENGTH", batch_length)
    monkeypatch.setattr(run_hashing, "BUFFER_LENGTH", buffer_length)
    content = Content(Torrent(version, CONTENTS)).fill()
    for index in (0, 3, content.geometry.num_pieces - 1):
        at = content.geometry.offset_of(index)
        content.storage.write(at, [bytes([content.torrent.space[at] ^ 1])])
    result = content.check(num_threads=2)
    bad = Bitfield.full(content.geometry.num_pieces).bits ^ result.have.bits
    assert list(Bitfield(content.geometry.num_pieces, bad)) == [
        0,
        3,
        content.geometry.num_pieces - 1,
    ]


def test_missing_and_short_files_cost_no_reading() -> None:
    content = Content(Torrent("1", CONTENTS)).fill()
    del content.storage.files[1], content.storage.files[3]
    del content.storage.files[4][PIECE:]
    reads: list[int] = []
    real = content.storage.read_into

    def read_into(offset: int, buffers: Sequence[memoryview], *, nowait: bool = False) -> bool:
        reads.extend(range(offset // PIECE, (offset + len(buffers[0]) - 1) // PIECE + 1))
        return real(offset, buffers, nowait=nowait)

    content.storage.read_into = read_into  # type: ignore[method-assign]
    result = content.check()
    assert result.missing_files == (1, 3, 4)
    # Files 3 and 4 begin in pieces 3 and 4; of file 4 one piece's length is there.
    assert reads == [0, 1, 2]
    assert list(result.have) == [0, 1, 2]
    assert not result.unchecked


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, 3 * PIECE - 1, 3 * PIECE, 5 * PIECE])
def test_of_a_short_file_the_pieces_before_its_end_are_found(version: str, length: int) -> None:
    """And those of the files around it."""
    files = [noise(2 * PIECE), noise(5 * PIECE + 10, 2), noise(3 * PIECE, 3)]
    content = Content(Torrent(version, files)).fill()
    del content.storage.files[1][length:]
    result = content.check()
    assert result.missing_files == (1,)
    whole = 2 + length // PIECE
    assert list(result.have) == [*range(whole), *range(8, content.geometry.num_pieces)]
    assert not result.unchecked


def test_nothing_there_reads_nothing() -> None:
    content = Content(Torrent("2", CONTENTS))
    content.storage.read_into = None  # type: ignore[method-assign,assignment]
    result = content.check()
    assert not result.have
    assert result.missing_files == (0, 2, 3, 4)
    assert not result.unchecked


def test_a_file_longer_than_it_should_be_is_not_short() -> None:
    content = Content(Torrent("1", CONTENTS)).fill()
    content.storage.files[0] += b"tail"
    assert content.check().have.is_full


def test_only_what_is_asked_for_is_judged() -> None:
    content = Content(Torrent("1", CONTENTS)).fill()
    seen: list[int] = []
    result = content.check(pieces=iter([1, 4]), progress=seen.append)
    assert list(result.have) == [1, 4]
    assert not result.unchecked
    assert seen[-1] == 2


def test_progress_rises_to_the_number_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "BATCH_LENGTH", 2 * PIECE)
    content = Content(Torrent("1", CONTENTS)).fill()
    del content.storage.files[4]
    seen: list[int] = []
    content.check(num_threads=2, progress=seen.append)
    assert seen == sorted(set(seen))
    assert len(seen) > 2
    assert seen[-1] == content.geometry.num_pieces


def test_a_check_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "BATCH_LENGTH", PIECE)
    content = Content(Torrent("1", CONTENTS)).fill()
    seen: list[int] = []
    result = content.check(num_threads=1, progress=seen.append, is_stopped=lambda: len(seen) == 3)
    assert list(result.unchecked) == list(range(3, content.geometry.num_pieces))
    assert list(result.have) == [0, 1, 2]


def failing(content: Content, index: int, error: StorageError) -> None:
    real = content.storage.read_into

    def read_into(offset: int, buffers: Sequence[memoryview], *, nowait: bool = False) -> bool:
        if offset <= index * PIECE < offset + sum(map(len, buffers)):
            raise error
        return real(offset, buffers, nowait=nowait)

    content.storage.read_into = read_into  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "error", [StorageError("bad sector", errno=errno.EIO), FileVanished("cut meanwhile")]
)
def test_a_piece_that_cannot_be_read_is_bad_and_the_rest_is_judged(error: StorageError) -> None:
    """Limit: F2."""
    content = Content(Torrent("1", CONTENTS)).fill()
    failing(content, 2, error)
    result = content.check(num_threads=2)
    assert 2 not in result.have
    assert len(result.have) == content.geometry.num_pieces - 1


@pytest.mark.parametrize("num_threads", [1, 2])
def test_other_errors_end_the_check(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "BATCH_LENGTH", PIECE)
    content = Content(Torrent("1", CONTENTS)).fill()
    failing(content, 1, DiskFull("odd", errno=errno.ENOSPC))
    before = threading.active_count()
    with pytest.raises(DiskFull):
        content.check(num_threads=num_threads)
    assert threading.active_count() == before


def test_an_inconsistent_torrent_ends_the_check() -> None:
    right, other = noise(3 * PIECE), noise(3 * PIECE, 2)
    content = Content(Torrent("hybrid", [right], v1_contents=[other]))
    content.storage.write(0, [right])
    with pytest.raises(Inconsistent):
        content.check()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_stopped_check_tells_which_pieces_it_has_not_judged(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a thread has begun is judged; what lies in missing files is judged first."""
    monkeypatch.setattr(checker, "BATCH_LENGTH", PIECE)
    content = Content(Torrent("2", CONTENTS)).fill()
    del content.storage.files[0]
    wanted, lost = [0, *range(3, 9)], content.layout.pieces_of_file(0)
    read: list[int] = []
    real = content.storage.read_into

    def read_into(offset: int, buffers: Sequence[memoryview], *, nowait: bool = False) -> bool:
        read.append(offset // PIECE)
        return real(offset, buffers, nowait=nowait)

    content.storage.read_into = read_into  # type: ignore[method-assign]
    result = content.check(pieces=wanted, num_threads=num_threads, is_stopped=lambda: bool(read))
    judged = {*(index for index in wanted if index in lost), *read}
    assert set(result.unchecked) == set(wanted) - judged
    assert set(result.have) == judged - set(lost)
    assert result.unchecked


def test_a_torrent_without_pieces() -> None:
    content = Content(Torrent("2", [b"", b""]))
    result = content.check()
    assert result.have.is_full
    assert not result.unchecked
    assert result.missing_files == ()
    del content.storage.files[0]
    assert content.check().missing_files == (0,)


def test_tiny_pieces() -> None:
    content = Content(Torrent("1", [noise(1001)], piece_length=7)).fill()
    content.storage.write(70, [b"\0\0"])
    result = content.check()
    assert len(result.have) == 142
    assert 10 not in result.have


def test_files_on_disk(tmp_path: Path) -> None:
    torrent = Torrent("hybrid", CONTENTS)
    layout = Layout(torrent.info.files, torrent.info.geometry)
    paths = [() if entry.is_pad else ("t", *entry.path) for entry in torrent.info.files]
    storage = FileStorage(layout, tmp_path, paths)
    storage.prepare()
    storage.write(0, [torrent.space])
    result = check_pieces(storage, layout, torrent.info.geometry, torrent.hashes())
    assert result.have.is_full
    storage.close()


@pytest.mark.parametrize("version", ["2", "hybrid"])
def test_bad_blocks_are_named(version: str) -> None:
    """Limit: H4."""
    content = Content(Torrent(version, CONTENTS)).fill()
    leaves = block_hashes(CONTENTS[0])
    at = PIECE + 2 * BLOCK_LENGTH
    content.storage.write(at + 9, [bytes([content.torrent.space[at + 9] ^ 1])])
    step = PIECE // BLOCK_LENGTH * 32

    def bad(index: int) -> list[int]:
        expected = leaves[index * step : (index + 1) * step]
        return check_blocks(content.storage, content.geometry, content.hashes, index, expected)

    assert [bad(index) for index in range(4)] == [[], [2], [], []]
    content.storage.write(3 * PIECE, [b"x" * 100])
    assert bad(3) == [0], "a short piece is no longer than it is"


def test_v1_has_no_hashes_of_blocks() -> None:
    content = Content(Torrent("1", CONTENTS)).fill()
    with pytest.raises(MisuseError):
        check_blocks(content.storage, content.geometry, content.hashes, 0, b"")


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_damaged_pieces_are_those_of_v2_that_hold_something(version: str) -> None:
    """Not what is there, not what was never written, and nothing of v1: it knows no blocks."""
    content = Content(Torrent(version, [noise(3 * PIECE + 100)])).fill()
    content.storage.write(PIECE, [b"x" * 10])
    content.storage.write(2 * PIECE, [bytes(PIECE + 100)])
    result = content.check()
    assert list(result.have) == [0]
    assert result.damaged == (() if version == "1" else (1,))
