from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bittern.core.errors import StorageError
from bittern.storage import statelock
from bittern.storage.statelock import StateLock

HOLDER = """
import sys
from pathlib import Path
from bittern.storage.statelock import StateLock
lock = StateLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


@pytest.mark.slow
def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    """Limit: F18."""
    child = start_holder(tmp_path)
    try:
        with pytest.raises(StorageError, match=f"in use by another bittern, process {child.pid}"):
            StateLock(tmp_path)
    finally:
        end(child)
    assert (tmp_path / "lock").read_text()
    StateLock(tmp_path).release()


def test_the_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    lock.release()
    lock.release()
    assert (tmp_path / "a" / "b" / "lock").read_text() == ""


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(statelock, "_lock", fail)


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    "holder", ["", "no number", "99999999 1", "OWN 1", "9" * 30, "-1 5", "\xff"]
)
def test_without_locks_a_holder_that_does_not_run_is_stale(holder: str, tmp_path: Path) -> None:
    # Names of tests must be the same in every process that collects them.
    (tmp_path / "lock").write_text(holder.replace("OWN", str(os.getpid())), "latin-1")
    StateLock(tmp_path).release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_running_holder_is_respected(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(StorageError, match="in use"):
        StateLock(tmp_path)
    lock.release()
    (tmp_path / "lock").write_text(statelock._identity(1))
    with pytest.raises(StorageError, match="process 1"):
        StateLock(tmp_path)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_foreign_process_that_may_not_be_asked_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "lock").write_text(statelock._identity(1))
    with pytest.raises(StorageError, match="process 1"):
        StateLock(tmp_path)


def test_a_process_without_a_start_time_is_known_by_its_number() -> None:
    assert statelock._identity(99999999) == "99999999"


def test_a_held_lock_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = StateLock(tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(StorageError, match="process unknown"):
        StateLock(tmp_path)
    lock.release()


def test_a_lock_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(StorageError, match="no room"):
        StateLock(tmp_path)
    monkeypatch.undo()
    StateLock(tmp_path).release()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a directory"):
        StateLock(tmp_path / "file" / "state")


def test_windows_locks_a_byte_behind_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[tuple[int, int, int]] = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(fd: int, mode: int, length: int) -> None:
            locked.append((os.lseek(fd, 0, os.SEEK_CUR), mode, length))

    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt)
    monkeypatch.setattr(sys, "platform", "win32")
    lock = StateLock(tmp_path)
    assert locked == [(4096, 2, 1)]
    assert (tmp_path / "lock").read_text() == statelock._identity(os.getpid())
    lock.release()


def test_a_volume_that_fails_to_close_a_file_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount of rclone does with a file that was opened to read and write."""
    lock = StateLock(tmp_path)

    def close(fd: int) -> None:
        real(fd)
        raise OSError(errno.EPERM, "no")

    def read(_fd: int, _length: int) -> bytes:
        raise OSError(errno.EPERM, "no")

    real = os.close
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        lock.release()
        patch.setattr(os, "read", read)
        with pytest.raises(StorageError, match="not permitted") as caught:
            StateLock(tmp_path)
    assert caught.value.path == str(tmp_path / "lock")
    StateLock(tmp_path).release()
