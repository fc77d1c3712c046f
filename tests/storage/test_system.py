from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from bittern.storage import system
from bittern.storage.system import OsCalls, num_processors, readable_flags, writable_flags
from tests.storage.places import noise


@pytest.mark.parametrize("portable", [False, True])
def test_scatter_reads_and_writes_at_positions(portable: bool, tmp_path: Path) -> None:
    calls = OsCalls(portable=portable)
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    assert calls.pwritev(fd, [b"abc", bytearray(b"de"), memoryview(b"fgh")], 4) == 8
    buffers = [memoryview(bytearray(n)) for n in (5, 0, 3, 10)]
    assert calls.preadv(fd, buffers, 2) == 10
    assert [bytes(buffer) for buffer in buffers] == [b"\0\0abc", b"", b"def", b"gh" + bytes(8)]
    assert calls.preadv(fd, buffers, 100) == 0
    os.close(fd)


def test_a_portable_write_reports_what_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = OsCalls(portable=True)
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:2]))
    assert calls.pwritev(fd, [b"ab", b"cde", b"f"], 0) == 4
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"abcd"


def test_the_machine_decides_unless_told() -> None:
    calls = OsCalls()
    assert calls.has_dir_fd is (os.open in os.supports_dir_fd and hasattr(os, "preadv"))
    assert OsCalls(portable=True).nowait_flag == 0


def test_room_can_be_reserved_by_length_alone(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    system._allocate(fd, 0, 1000)
    assert os.fstat(fd).st_size == 1000
    os.write(fd, noise(1000))
    system._allocate(fd, 0, 10)
    assert os.fstat(fd).st_size == 1000
    os.close(fd)


def test_small_calls(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    mode = os.fstat(fd).st_mode
    system._ignore_mode(fd, 0o777)
    system._full_sync(fd)
    OsCalls().drop_cache(fd)
    assert os.fstat(fd).st_mode == mode
    os.close(fd)


def test_the_cache_cannot_be_dropped_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    OsCalls().drop_cache(-1)


def test_processors_are_counted_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_processors() >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_processors() == os.cpu_count()


def test_a_portable_read_may_end_where_the_buffers_do(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    buffers = [memoryview(bytearray(2)), memoryview(bytearray(3))]
    assert OsCalls(portable=True).preadv(fd, buffers, 1) == 5
    assert [bytes(buffer) for buffer in buffers] == [b"bc", b"def"]
    os.close(fd)


def test_a_clone_is_the_same_or_refused(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(noise(10_000))
    source = os.open(tmp_path / "from", os.O_RDONLY)
    fd = os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    try:
        OsCalls().clone(fd, source)
        assert (tmp_path / "to").read_bytes() == noise(10_000)
    except OSError:  # most file systems cannot
        assert (tmp_path / "to").read_bytes() == b""
    finally:
        os.close(source)
        os.close(fd)


def test_only_linux_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(OSError) as caught:
        system._clone(-1, -1)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_macos_is_told_to_empty_the_drive_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: asked.append((fd, command)))
    system._full_sync(7)
    assert asked == [(7, 51)]


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_volumes_that_cannot_do_that_are_synced_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Volumes of the network on macOS, for one."""
    import fcntl

    def refuse(fd: int, command: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    synced: list[int] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", synced.append)
    system._full_sync(7)
    assert synced == [7]


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, and links need rights")
def test_files_are_opened_without_following_links_or_waiting(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    reading, writing = (os.open(path, flags) for flags in (readable_flags(), writable_flags()))
    assert os.read(reading, 3) == b"abc"
    assert os.write(writing, b"x") == 1
    with pytest.raises(OSError):
        os.write(reading, b"x")
    assert not os.get_inheritable(reading)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError) as caught:
        os.open(tmp_path / "link", readable_flags())
    assert caught.value.errno == errno.ELOOP
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", readable_flags())
    for fd in (reading, writing, fifo):
        os.close(fd)


@pytest.mark.parametrize("name", ["preadv", "open"])
def test_calls_that_were_replaced_are_known(name: str) -> None:
    calls = OsCalls()
    assert not calls.is_replaced
    real = getattr(calls, name)
    setattr(calls, name, lambda *args: real(*args))
    assert calls.is_replaced
    assert OsCalls(portable=True).is_replaced
