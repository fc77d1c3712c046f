"""storage.lanes: who hashes with a process and who without, and that nobody notices."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.errors import StorageError
from bittern.storage import checker, lanes
from bittern.storage.base import FilePlace, FileStamp
from bittern.storage.checker import CheckResult, check_pieces
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.donors import DonorStorage
from bittern.storage.files import FileStorage
from bittern.storage.hashing_process import HashingProcess, can_start_processes
from bittern.storage.lanes import MAX_FINE_LENGTH, MAX_PROCESSES, MIN_SHARE, Lanes
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage
from bittern.storage.piece_hashing import _Reader
from bittern.storage.system import OsCalls
from bittern.testing.disk import FaultyCalls
from tests.storage.places import noise
from tests.storage.test_hashing import PIECE, Torrent

pytestmark = pytest.mark.skipif(not can_start_processes(), reason="no processes here")

CONTENTS = [noise(30 * PIECE + 100), b"", noise(10, 2), noise(9 * PIECE, 3), noise(2 * PIECE + 1)]


class Processes:
    """
    Notes the processes that are started.

    A process takes longer to start than these contents to hash. So whoever hashes by himself
    waits, before the first long run, until a process was asked or has answered.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[HashingProcess] = []
        self.num_done = 0
        self.before: Callable[[HashingProcess], object] = lambda _: None
        self.waits_for_answer = True
        self._is_going = threading.Event()
        noted = self

        class Noted(HashingProcess):
            def __init__(self, piece_length: int) -> None:
                try:
                    super().__init__(piece_length)
                except OSError:
                    noted._is_going.set()
                    raise
                noted.made.append(self)

            def hash(
                self,
                place: FilePlace,
                length: int,
                *,
                v1_length: int,
                v2_length: int,
                level: int | None,
            ) -> tuple[bytes, bytes] | None:
                noted.before(self)
                if not noted.waits_for_answer:
                    noted._is_going.set()
                found = super().hash(
                    place, length, v1_length=v1_length, v2_length=v2_length, level=level
                )
                noted.num_done += found is not None
                noted._is_going.set()
                return found

        monkeypatch.setattr(lanes, "HashingProcess", Noted)
        for reader in (FileStorage, DonorStorage):
            monkeypatch.setattr(reader, "read_into", self._late_read(reader.read_into))
        monkeypatch.setattr(_Reader, "read", self._late(_Reader.read))

    def let_go(self) -> None:
        """Let nobody wait, until ``hold``."""
        self._is_going.set()

    def hold(self) -> None:
        """Let them wait again."""
        self._is_going.clear()

    def _late(self, read: Callable[..., None]) -> Callable[..., None]:
        def late(reader: object, offset: int, view: memoryview) -> None:
            if len(view) >= PIECE:
                assert self._is_going.wait(60)
            read(reader, offset, view)

        return late

    def _late_read(self, read: Callable[..., bool]) -> Callable[..., bool]:
        def late(storage: object, offset: int, views: list[memoryview]) -> bool:
            if len(views[0]) >= PIECE:
                assert self._is_going.wait(60)
            return read(storage, offset, views)

        return late

    def check_ended(self) -> None:
        assert self.made
        assert all(process._process.returncode is not None for process in self.made)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Small things are much, so that there are processes."""
    monkeypatch.setattr(lanes, "MIN_SHARE", 1)
    monkeypatch.setattr(lanes, "MIN_ASKED", PIECE)
    monkeypatch.setattr(lanes, "ASKED_LENGTH", 2 * PIECE)
    monkeypatch.setattr(checker, "BATCH_LENGTH", 2 * PIECE)
    monkeypatch.setattr(lanes, "MAX_FINE_LENGTH", PIECE)
    return Processes(monkeypatch)


class OnDisk:
    """A complete torrent in files."""

    def __init__(self, folder: Path, version: str, **options: object) -> None:
        self.torrent = torrent = Torrent(version, CONTENTS)
        self.layout = Layout(torrent.info.files, torrent.info.geometry)
        paths = [() if entry.is_pad else entry.path for entry in torrent.info.files]
        self.storage = FileStorage(self.layout, folder, paths, **options)  # type: ignore[arg-type]
        self.storage.prepare()
        self.storage.write(0, [torrent.space])

    def check(self, num_threads: int = 2, **options: object) -> CheckResult:
        try:
            return check_pieces(
                self.storage,
                self.layout,
                self.torrent.info.geometry,
                self.torrent.hashes(),
                num_threads=num_threads,
                **options,  # type: ignore[arg-type]
            )
        finally:
            self.storage.close()


# --- who has a process --------------------------------------------------------------------------


def makes_processes(
    *, piece_length: int = 1 << 20, num_threads: int = 2, length: int = 1 << 40, has_v2: bool = True
) -> bool:
    return Lanes(piece_length, num_threads=num_threads, length=length, has_v2=has_v2).has_processes


def test_little_work_starts_no_process() -> None:
    assert makes_processes(num_threads=3, length=3 * MIN_SHARE)
    assert not makes_processes(num_threads=3, length=3 * MIN_SHARE - 1)
    assert not makes_processes(num_threads=1)


def test_long_pieces_of_v1_need_none() -> None:
    assert makes_processes(piece_length=MAX_FINE_LENGTH, has_v2=False)
    assert not makes_processes(piece_length=2 * MAX_FINE_LENGTH, has_v2=False)


def test_where_there_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not makes_processes()


def test_one_thread_at_least_hashes_by_itself(tmp_path: Path) -> None:
    storage = OnDisk(tmp_path, "2").storage
    for num_threads, num_asking in ((2, 1), (4, 3), (100, MAX_PROCESSES)):
        made = Lanes(PIECE, num_threads=num_threads, length=1 << 40, has_v2=True)
        opened = [made.open(lambda _offset, _view: None, storage) for _ in range(num_threads)]
        assert sum(lane.asks for lane in opened) == num_asking
    storage.close()


def test_what_lies_in_no_files_is_read_by_threads(processes: Processes) -> None:
    torrent = Torrent("2", CONTENTS)
    layout = Layout(torrent.info.files, torrent.info.geometry)
    storage = MemoryStorage(layout)
    storage.prepare()
    storage.write(0, [torrent.space])
    result = check_pieces(storage, layout, torrent.info.geometry, torrent.hashes(), num_threads=2)
    assert result.have.is_full
    assert not processes.made


def test_reads_that_somebody_watches_go_by_way_of_him(processes: Processes, tmp_path: Path) -> None:
    processes.let_go()
    calls = FaultyCalls()
    assert OnDisk(tmp_path, "2", os_calls=calls).check().have.is_full
    assert not processes.made
    assert "preadv" in calls.log


# --- rechecks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_threads", [2, 3])
@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_processes_find_the_same(
    version: str, num_threads: int, processes: Processes, tmp_path: Path
) -> None:
    content = OnDisk(tmp_path, version)
    geometry = content.torrent.info.geometry
    bad = [0, 7, 31, geometry.num_pieces - 1]
    for index in bad:
        at = geometry.offset_of(index)
        content.storage.write(at, [bytes([content.torrent.space[at] ^ 1])])
    result = content.check(num_threads)
    assert [index for index in range(geometry.num_pieces) if index not in result.have] == bad
    assert not result.unchecked
    assert result.damaged == (() if version == "1" else tuple(bad))
    assert processes.num_done
    processes.check_ended()


def test_a_process_that_is_killed_leaves_its_runs_to_its_thread(
    processes: Processes, tmp_path: Path
) -> None:
    processes.before = lambda process: os.kill(process._process.pid, signal.SIGKILL)
    content = OnDisk(tmp_path, "2")
    assert content.check().have.is_full
    assert len(processes.made) == 1
    processes.check_ended()


def test_a_program_that_never_answers_is_not_waited_for(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    processes.waits_for_answer = False
    assert OnDisk(tmp_path / "d", "2").check().have.is_full
    assert [process._process.returncode for process in processes.made] == [-signal.SIGKILL]


def test_a_process_that_starts_when_all_is_done_is_not_waited_for(processes: Processes) -> None:
    made = Lanes(PIECE, num_threads=2, length=1 << 40, has_v2=True)
    with made.open(lambda _offset, _view: None, None) as lane:
        assert not lane.asks
    process = made.start_process()
    assert process is not None
    process.close()
    assert process._process.returncode == -signal.SIGKILL


def test_without_an_interpreter_threads_do_it(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert OnDisk(tmp_path, "2").check().have.is_full
    assert not processes.made


def test_a_file_that_is_cut_meanwhile_costs_its_pieces(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F5. A refused run is read by the thread, which learns why."""
    content = OnDisk(tmp_path, "2")
    monkeypatch.setattr(FileStorage, "stat_file", lambda _self, _index: FileStamp(1 << 40, 0, 0))
    os.truncate(tmp_path / "f0", 10 * PIECE + 5)
    result = content.check()
    geometry = content.torrent.info.geometry
    lost = [index for index in range(geometry.num_pieces) if index not in result.have]
    assert lost == list(range(10, 31))
    assert processes.num_done
    assert result.damaged == ()


@pytest.mark.parametrize("error_number", [errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_opened_is_told_as_without_processes(
    error_number: int, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F2."""
    content = OnDisk(tmp_path, "2")
    bad = content.layout.files[3].offset
    error = StorageError("no", path=str(tmp_path / "f3"), errno=error_number)

    def fail(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(storage: object, offset: int, what: object) -> Any:
            if bad <= offset < bad + 9 * PIECE:
                raise error
            return real(storage, offset, what)

        return call

    monkeypatch.setattr(FileStorage, "place_of", fail(FileStorage.place_of))
    monkeypatch.setattr(FileStorage, "read_into", fail(FileStorage.read_into))
    if error_number == errno.EIO:
        first = bad // PIECE
        result = content.check()
        assert not any(index in result.have for index in range(first, first + 9))
        assert len(result.have) == content.torrent.info.geometry.num_pieces - 9
    else:
        with pytest.raises(StorageError) as caught:
            content.check()
        assert caught.value.path == str(tmp_path / "f3")
    processes.check_ended()


def test_a_check_that_is_stopped_ends_its_processes(processes: Processes, tmp_path: Path) -> None:
    result = OnDisk(tmp_path, "2").check(is_stopped=lambda: processes.num_done > 0)
    assert 0 < len(result.unchecked) < 42
    processes.check_ended()


def test_files_of_others_are_hashed_by_processes_too(processes: Processes, tmp_path: Path) -> None:
    content = OnDisk(tmp_path, "2")
    donors = {0: tmp_path / "f0", 3: tmp_path / "f3"}
    view = DonorStorage(content.layout, donors, OsCalls())
    result = check_pieces(
        view,
        content.layout,
        content.torrent.info.geometry,
        content.torrent.hashes(),
        num_threads=2,
    )
    view.close()
    content.storage.close()
    assert len(result.have) == 31 + 9
    assert processes.num_done


# --- new torrents -------------------------------------------------------------------------------


def make_files(root: Path) -> None:
    root.mkdir()
    for number, data in enumerate(CONTENTS):
        (root / f"{number}").write_bytes(data)


@pytest.mark.parametrize("piece_length", [PIECE // 4, PIECE, 4 * PIECE])
@pytest.mark.parametrize("version", list(Version))
def test_torrents_are_the_same_with_processes(
    version: Version,
    piece_length: int,
    processes: Processes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "MAX_FINE_LENGTH", 4 * PIECE)
    make_files(tmp_path / "r")
    options = CreateOptions(version=version, piece_length=piece_length)
    processes.let_go()
    expected = create_torrent(tmp_path / "r", options=options, num_threads=1)
    assert not processes.made
    processes.hold()
    assert create_torrent(tmp_path / "r", options=options, num_threads=3) == expected
    assert processes.num_done
    processes.check_ended()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_what_the_report_raises_ends_the_processes(
    kind: type[BaseException], processes: Processes, tmp_path: Path
) -> None:
    make_files(tmp_path / "r")

    def progress(_done: int, _total: int) -> None:
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        create_torrent(tmp_path / "r", num_threads=2, progress=progress)
    processes.check_ended()


def test_a_file_that_shrinks_on_the_way_is_named(processes: Processes, tmp_path: Path) -> None:
    make_files(tmp_path / "r")
    options = CreateOptions(version=Version.V2, piece_length=PIECE)

    def progress(_done: int, _total: int) -> None:
        os.truncate(tmp_path / "r" / "0", PIECE)

    with pytest.raises(StorageError) as caught:
        create_torrent(tmp_path / "r", options=options, num_threads=2, progress=progress)
    assert caught.value.path == str(tmp_path / "r" / "0")
    processes.check_ended()
