from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import pytest

from bittern.core.errors import FileVanished, Inconsistent, StorageError
from bittern.storage import process_judge
from bittern.storage.hash_process import SLOT_LENGTH, HashProcess
from bittern.storage.process_judge import ProcessJudge
from tests.storage.places import noise
from tests.storage.test_checker import CONTENTS, Content
from tests.storage.test_hashing import PIECE, Torrent


@pytest.fixture
def process() -> Iterator[HashProcess]:
    made = HashProcess()
    yield made
    made.close()


class Verdicts:
    """A judge with what it said."""

    def __init__(self, content: Content, process: HashProcess) -> None:
        self.found: dict[int, bool] = {}
        self.alone: list[int] = []
        self.judge = ProcessJudge(
            content.storage,
            content.geometry,
            content.hashes,
            process,
            judged=self._judged,
            judge_alone=self.alone.append,
        )

    def _judged(self, index: int, is_good: bool) -> None:
        assert index not in self.found
        self.found[index] = is_good


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_good_and_bad_pieces_are_told_apart(version: str, process: HashProcess) -> None:
    content = Content(Torrent(version, CONTENTS)).fill()
    num_pieces = content.geometry.num_pieces
    for index in (0, 3, num_pieces - 1):
        at = content.geometry.offset_of(index)
        content.storage.write(at, [bytes([content.torrent.space[at] ^ 1])])
    verdicts = Verdicts(content, process)
    verdicts.judge.judge(range(num_pieces))
    verdicts.judge.finish()
    assert [index for index, is_good in verdicts.found.items() if not is_good] == [
        0,
        3,
        num_pieces - 1,
    ]
    assert sorted(verdicts.found) == list(range(num_pieces))
    assert verdicts.judge.unjudged == {}
    assert verdicts.alone == []


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_pieces_longer_than_a_slot_go_through_in_steps(version: str, process: HashProcess) -> None:
    length = 4 * SLOT_LENGTH
    contents = [noise(2 * length + 5), noise(SLOT_LENGTH + 9, 2), noise(3 * SLOT_LENGTH, 3)]
    content = Content(Torrent(version, contents, piece_length=length)).fill()
    content.storage.write(length + 3 * SLOT_LENGTH, [b"wrong"])
    verdicts = Verdicts(content, process)
    verdicts.judge.judge(range(content.geometry.num_pieces))
    verdicts.judge.finish()
    assert [index for index, is_good in verdicts.found.items() if not is_good] == [1]
    assert len(verdicts.found) == content.geometry.num_pieces


def test_pieces_apart_are_read_apart(process: HashProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_judge, "SLOT_LENGTH", 3 * PIECE)
    content = Content(Torrent("1", [noise(12 * PIECE)])).fill()
    verdicts = Verdicts(content, process)
    assert [list(run) for run in verdicts.judge._runs([])] == []
    wanted = [0, 1, 2, 3, 4, 6, 8, 9, 11]
    runs = [list(run) for run in verdicts.judge._runs(wanted)]
    assert runs == [[0, 1, 2], [3, 4], [6], [8, 9], [11]]
    verdicts.judge.judge(wanted)
    verdicts.judge.finish()
    assert sorted(verdicts.found) == wanted
    assert all(verdicts.found.values())


def test_what_cannot_be_read_in_one_go_is_judged_alone(process: HashProcess) -> None:
    content = Content(Torrent("2", CONTENTS)).fill()
    del content.storage.files[2]
    verdicts = Verdicts(content, process)
    verdicts.judge.judge([0, 1])
    verdicts.judge.judge([3, 4, 5])
    verdicts.judge.finish()
    assert sorted(verdicts.found) == [0, 1]
    assert verdicts.alone == [3, 4, 5]
    assert verdicts.judge.unjudged == {}


def test_an_error_halfway_through_a_long_piece(process: HashProcess) -> None:
    length = 4 * SLOT_LENGTH
    content = Content(Torrent("2", [noise(3 * length)], piece_length=length)).fill()
    real = content.storage.read_into

    def read_into(offset: int, buffers: Sequence[memoryview], *, nowait: bool = False) -> bool:
        if offset == length + 2 * SLOT_LENGTH:
            raise FileVanished("cut")
        return real(offset, buffers, nowait=nowait)

    content.storage.read_into = read_into  # type: ignore[method-assign]
    verdicts = Verdicts(content, process)
    verdicts.judge.judge(range(3))
    verdicts.judge.finish()
    assert verdicts.found == {0: True, 2: True}
    assert verdicts.alone == [1]


def test_an_error_of_judging_alone_comes_out(process: HashProcess) -> None:
    content = Content(Torrent("2", CONTENTS))
    verdicts = Verdicts(content, process)

    def refuse(index: int) -> None:
        raise StorageError(f"piece {index}")

    verdicts.judge._judge_alone = refuse
    with pytest.raises(StorageError, match="piece 0"):
        verdicts.judge.judge([0])


def test_halves_that_disagree_are_said_so(process: HashProcess) -> None:
    right, other = noise(3 * PIECE), noise(3 * PIECE, 2)
    content = Content(Torrent("hybrid", [right], v1_contents=[other]))
    content.storage.write(0, [right])
    verdicts = Verdicts(content, process)
    verdicts.judge.judge([0, 1, 2])
    with pytest.raises(Inconsistent):
        verdicts.judge.finish()


def test_after_the_death_of_the_process_it_is_known_what_is_left() -> None:
    content = Content(Torrent("2", [noise(40 * PIECE)])).fill()
    process = HashProcess()
    verdicts = Verdicts(content, process)
    verdicts.judge.judge(range(5))
    verdicts.judge.finish()
    os.kill(process.pid, signal.SIGKILL)
    process._child.wait()

    def go_on() -> None:
        verdicts.judge.judge(range(5, 40))
        verdicts.judge.finish()

    with pytest.raises(OSError, match=r"Broken pipe|ended"):
        go_on()
    assert list(verdicts.judge.unjudged) == list(range(5, 40))
    assert list(verdicts.found) == list(range(5))
    process.close()
