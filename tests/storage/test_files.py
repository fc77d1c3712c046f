from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bittern.core.errors import (
    DiskFull,
    FileVanished,
    MisuseError,
    StorageError,
    UnsafePath,
    VolumeMissing,
)
from bittern.core.geometry import Geometry
from bittern.storage.adopt import ReuseHow, stamp_of
from bittern.storage.files import SLOW_PAUSE, SLOW_READ, FileStorage
from bittern.storage.handles import HandleCache
from bittern.storage.layout import Layout
from bittern.storage.system import OsCalls
from bittern.testing.disk import FaultyCalls
from tests.storage.conformance import StorageContract, read
from tests.storage.faults import (
    ColdCalls,
    FailingCalls,
    FullCalls,
    ShortCalls,
    UnknowingCalls,
    open_descriptors,
)
from tests.storage.places import Mounts, Place, contiguous, noise, paths_for


class TestFiles(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        return FileStorage(layout, folder / "out", paths_for(layout))


class TestPartFiles(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        return FileStorage(layout, folder / "out", paths_for(layout), part_suffix=".part")


class TestFilesWithoutFolderHandles(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        calls = OsCalls(portable=True)
        return FileStorage(layout, folder / "out", paths_for(layout), os_calls=calls)


class TestFilesOneOpenAtATime(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        return FileStorage(layout, folder / "out", paths_for(layout), handles=HandleCache(1))


class TestFilesByHalves(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        calls = ShortCalls(61)
        return FileStorage(layout, folder / "out", paths_for(layout), os_calls=calls)


class TestColdFiles(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        return FileStorage(layout, folder / "out", paths_for(layout), os_calls=ColdCalls())


class TestFilesOnMemoryFileSystems(StorageContract):
    def make(self, layout: Layout, folder: Path) -> FileStorage:
        return FileStorage(layout, folder / "out", paths_for(layout), os_calls=UnknowingCalls())


def storage_in(folder: Path, *lengths: int, calls: OsCalls | None = None) -> FileStorage:
    layout = contiguous(*lengths)
    storage = FileStorage(layout, folder, paths_for(layout), os_calls=calls)
    storage.prepare()
    return storage


# --- reads that must not wait ------------------------------------------------------------


def test_nowait_reads_nothing_from_a_file_that_is_not_open(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100)
    storage.write(0, [noise(100)])
    storage.close()
    assert not storage.read_into(0, [memoryview(bytearray(10))], nowait=True)
    assert read(storage, 0, 10) == noise(100)[:10]
    assert storage.read_into(0, [memoryview(bytearray(10))], nowait=True)
    storage.close()


def test_nowait_says_no_when_the_cache_is_cold(tmp_path: Path) -> None:
    calls = ColdCalls()
    storage = storage_in(tmp_path, 100, 100, calls=calls)
    storage.write(0, [noise(200)])
    for offset in (0, 90):
        assert not storage.read_into(offset, [memoryview(bytearray(20))], nowait=True)
    assert calls.num_refused == 2
    storage.close()


def test_nowait_says_no_when_only_a_part_is_cached(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100, calls=ShortCalls(7))
    storage.write(0, [noise(100)])
    assert not storage.read_into(0, [memoryview(bytearray(20))], nowait=True)
    storage.close()


@pytest.mark.parametrize("error_number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_nowait_is_asked_once(error_number: int, tmp_path: Path) -> None:
    calls = UnknowingCalls(error_number)
    storage = storage_in(tmp_path, 100, calls=calls)
    storage.write(0, [noise(100)])
    got = bytearray(20)
    for _ in range(3):
        assert storage.read_into(0, [memoryview(got)], nowait=True)
    assert got == noise(100)[:20]
    assert calls.num_refused == 1
    storage.close()


def test_reads_in_place_stop_for_a_while_after_a_slow_one(tmp_path: Path) -> None:
    clock = [100.0]
    calls = UnknowingCalls()
    fast = calls.preadv

    def slow(*args: object) -> int:
        clock[0] += SLOW_READ * 2
        return fast(*args)

    storage = FileStorage(
        contiguous(100), tmp_path, [("f",)], os_calls=calls, clock=lambda: clock[0]
    )
    storage.prepare()
    storage.write(0, [noise(100)])
    buffers = [memoryview(bytearray(20))]
    storage._preadv = slow
    assert storage.read_into(0, buffers, nowait=True)
    storage._preadv = fast
    assert not storage.read_into(0, buffers, nowait=True)
    assert storage.read_into(0, buffers)
    clock[0] += SLOW_PAUSE
    assert storage.read_into(0, buffers, nowait=True)
    storage.close()


def test_other_errors_of_nowait_reads_are_errors(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100, calls=UnknowingCalls(errno.EIO))
    storage.write(0, [noise(100)])
    with pytest.raises(StorageError) as caught:
        storage.read_into(0, [memoryview(bytearray(20))], nowait=True)
    assert caught.value.errno == errno.EIO
    storage.close()


# --- paths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [(), ("..", "x"), ("a", ""), ("a/b",), ("/etc",), (".",), ("a\0",)]
)
def test_paths_that_lead_out_are_refused(path: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UnsafePath):
        FileStorage(contiguous(10), tmp_path, [path])


def test_two_files_with_one_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath, match="share"):
        FileStorage(contiguous(10, 10), tmp_path, [("a", "b"), ("a", "b")])


def test_a_relative_root_does_not_follow_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = FileStorage(contiguous(10), "out", [("f",)])
    monkeypatch.chdir("/")
    storage.prepare()
    storage.write(0, [b"x"])
    assert storage.root == tmp_path / "out"
    assert storage.path_of(0) == tmp_path / "out" / "f"
    assert (tmp_path / "out" / "f").read_bytes() == b"x"
    assert repr(storage) == f"<FileStorage 1 files in {tmp_path / 'out'}>"
    storage.close()


def put_link(path: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(b"precious" * 20)
    path.symlink_to(elsewhere)


def put_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def put_folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()


def put_device(path: Path, elsewhere: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def put_socket(path: Path, elsewhere: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFSOCK)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("put", [put_link, put_fifo, put_folder, put_device, put_socket])
def test_what_is_no_plain_file_is_neither_read_nor_written(
    put: Callable[[Path, Path], None], portable: bool, tmp_path: Path
) -> None:
    """Limit: F5, P11."""
    root = tmp_path / "out"
    storage = storage_in(root, 100, calls=OsCalls(portable=portable))
    (root / "top" / "d0").mkdir(parents=True)
    before = open_descriptors()
    try:
        put(root / "top" / "d0" / "f0", tmp_path / "elsewhere")
    except PermissionError:
        pytest.fail("this test makes special files and needs the right to")
    with pytest.raises(UnsafePath):
        storage.write(0, [b"overwritten"])
    with pytest.raises(UnsafePath):
        read(storage, 0, 10)
    assert storage.stat_file(0) is None
    storage.delete()
    if put is put_link:
        assert (tmp_path / "elsewhere").read_bytes() == b"precious" * 20
    assert open_descriptors() == before


@pytest.mark.parametrize("portable", [False, True])
def test_a_folder_that_became_a_link_is_not_entered(portable: bool, tmp_path: Path) -> None:
    """Limit: P8: the second check, at the time of opening."""
    root, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    storage = storage_in(root, 100, 50, calls=OsCalls(portable=portable))
    storage.write(0, [noise(150)])
    storage.close()
    (root / "top").rename(elsewhere)
    (root / "top").symlink_to(elsewhere)
    for attempt in (
        lambda: storage.write(0, [bytes(150)]),
        lambda: read(storage, 0, 10),
        lambda: storage.finish_file(0),
        storage.sync,
    ):
        with pytest.raises(StorageError):
            attempt()
    assert storage.stat_file(0) is None
    storage.delete()
    assert (elsewhere / "d0" / "f0").read_bytes() == noise(150)[:100]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    storage = storage_in(tmp_path / "link", 10)
    storage.write(0, [b"x"])
    assert (tmp_path / "real" / "top" / "d0" / "f0").read_bytes() == b"x"
    storage.close()


@pytest.mark.slow
def test_swapping_a_folder_for_a_link_while_files_are_opened_lets_nothing_out(
    tmp_path: Path,
) -> None:
    root, outside = tmp_path / "out", tmp_path / "outside"
    (outside / "d0").mkdir(parents=True)
    storage = storage_in(root, 100)
    (root / "top" / "d0").mkdir(parents=True)
    stop = threading.Event()

    def swap() -> None:
        top, aside = root / "top", root / "aside"
        while not stop.is_set():
            # The storage makes the folder anew when it finds none: then that is cleared away.
            with contextlib.suppress(OSError):
                top.rename(aside)
                top.symlink_to(outside)
            with contextlib.suppress(OSError):
                if top.is_symlink():
                    top.unlink()
                else:
                    shutil.rmtree(top)
                aside.rename(top)

    thread = threading.Thread(target=swap)
    thread.start()
    num_written = 0
    try:
        for _ in range(2000):
            try:
                storage.write(0, [b"x"])
                num_written += 1
            except StorageError:
                pass
            storage.close()
    finally:
        stop.set()
        thread.join()
    assert num_written
    assert list((outside / "d0").iterdir()) == []


# --- volumes, room, descriptors ----------------------------------------------------------


def on_another_volume(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    def changed(*args: object, **options: object) -> os.stat_result:
        found = call(*args, **options)
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))

    return changed


def test_another_volume_in_place_of_the_root_is_not_written_to(tmp_path: Path) -> None:
    """Limit: F6: an empty mount point is not the volume that was mounted there."""
    for portable in (False, True):
        calls = OsCalls(portable=portable)
        storage = storage_in(tmp_path / str(portable), 100, calls=calls)
        storage.write(0, [noise(100)])
        storage.close()
        calls.stat, calls.fstat = on_another_volume(calls.stat), on_another_volume(calls.fstat)
        with pytest.raises(VolumeMissing, match="not mounted"):
            storage.write(0, [b"x"])
        with pytest.raises(VolumeMissing, match="not mounted"):
            read(storage, 0, 1)
        storage.prepare()
        storage.write(0, [b"x"])
        storage.close()


@pytest.mark.parametrize("portable", [False, True])
def test_a_folder_that_went_with_its_volume_is_not_one_that_was_removed(
    portable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F6. As where mount points are made, and removed, by who mounts a disk."""
    volume, mounts = tmp_path / "usb", Mounts(monkeypatch)
    mounts.add(volume)
    storage = storage_in(volume / "data", 100, calls=OsCalls(portable=portable))
    storage.write(0, [noise(100)])
    storage.close()
    shutil.rmtree(volume / "data")
    with pytest.raises(FileVanished):
        storage.write(0, [b"x"])
    assert storage.stat_file(0) is None
    mounts.clear()
    with pytest.raises(VolumeMissing) as caught:
        storage.write(0, [b"x"])
    assert caught.value.path == str(volume)
    with pytest.raises(VolumeMissing):
        storage.stat_file(0)
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("room", range(0, 150, 7))
def test_a_full_disk_says_so_and_a_repeated_write_completes(room: int, tmp_path: Path) -> None:
    """Limit: F1."""
    calls = FullCalls(room)
    storage = storage_in(tmp_path, 100, 50, calls=calls)
    data = noise(150)
    with pytest.raises(DiskFull) as caught:
        storage.write(0, [data[:40], data[40:]])
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(caught.value)
    calls.room = 1000
    storage.write(0, [data[:40], data[40:]])
    assert read(storage, 0, 150) == data
    storage.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.ENOENT, FileVanished),
        (errno.EIO, StorageError),
        (errno.EACCES, StorageError),
        (errno.EROFS, StorageError),
    ],
)
def test_errors_of_the_system_are_translated(
    number: int, kind: type[StorageError], tmp_path: Path
) -> None:
    calls = FailingCalls(names={"pwritev", "preadv"})
    storage = storage_in(tmp_path, 100, calls=calls)
    storage.write(0, [noise(100)])
    for attempt in (lambda: storage.write(0, [b"x"]), lambda: read(storage, 0, 10)):
        calls.arm(0, number)
        with pytest.raises(StorageError) as caught:
            attempt()
        assert type(caught.value) is kind
        assert caught.value.errno == number
        assert caught.value.path == str(storage.path_of(0))
        assert isinstance(caught.value.__cause__, OSError)
    storage.close()


def test_a_system_that_takes_nothing_does_not_loop_for_ever(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100)
    storage._pwritev = lambda *_: 0
    with pytest.raises(StorageError, match="takes no more"):
        storage.write(0, [b"abc"])
    storage.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_idle_files_are_closed_and_the_call_repeated(
    number: int, tmp_path: Path
) -> None:
    """Limit: F13."""
    calls = FailingCalls(names={"open"})
    storage = storage_in(tmp_path, *[10] * 8, calls=calls)
    storage.write(0, [noise(70)])
    calls.arm(0, number)
    storage.write(70, [noise(10)])
    assert read(storage, 70, 10) == noise(10)
    storage.close()
    calls.arm(0, number)
    with pytest.raises(StorageError, match="too many open files"):
        storage.write(0, [b"x"])
    storage.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_other_errors_of_opening_are_not_repeated(number: int, tmp_path: Path) -> None:
    calls = FailingCalls(names={"open"})
    storage = storage_in(tmp_path, 10, calls=calls)
    calls.arm(0, number)
    with pytest.raises(StorageError) as caught:
        storage.write(0, [b"x"])
    assert caught.value.errno == number
    storage.write(0, [b"x"])
    storage.close()


def test_what_is_told_only_at_the_end_of_a_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """As NFS does; a file may be closed because another one is opened."""
    layout, calls, before = contiguous(10, 10), OsCalls(), open_descriptors()
    storage = FileStorage(
        layout, tmp_path, paths_for(layout), handles=HandleCache(1), os_calls=calls
    )

    def close(fd: int) -> None:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        os.close(fd)
        if is_file:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    storage.prepare()
    storage.write(0, [b"x"])
    calls.close = close
    with pytest.raises(DiskFull, match="quota exceeded"):
        storage.write(10, [b"y"])
    calls.close = os.close
    storage.write(10, [b"y"])
    calls.close = close
    with pytest.raises(DiskFull, match="quota exceeded"):
        storage.close()
    assert open_descriptors() == before


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    layout = contiguous(*[10] * 300)
    before = len(open_descriptors())
    storage = FileStorage(layout, tmp_path, paths_for(layout), handles=HandleCache(8))
    storage.prepare()
    storage.write(0, [noise(3000)])
    assert read(storage, 0, 3000) == noise(3000)
    assert len(open_descriptors()) == before + 8
    storage.sync()
    storage.close()
    assert len(open_descriptors()) == before


def test_a_cache_is_shared_without_mixing_files(tmp_path: Path) -> None:
    handles = HandleCache(4)
    layout = contiguous(10, 10, 10)
    storages = [
        FileStorage(layout, tmp_path / str(number), paths_for(layout), handles=handles)
        for number in range(3)
    ]
    for number, storage in enumerate(storages):
        storage.prepare()
        storage.write(0, [noise(30, number)])
    assert len(handles) == 4
    storages[2].close()
    for number, storage in enumerate(storages):
        assert read(storage, 0, 30) == noise(30, number)
        storage.close()
    assert len(handles) == 0


def test_files_that_cannot_be_written_are_read_and_finished(tmp_path: Path) -> None:
    """A seed from a medium that is read-only opens nothing for writing."""
    storage = storage_in(tmp_path, 100, 0)
    storage.write(0, [noise(100)])
    storage.close()
    calls = OsCalls()
    real_open = calls.open

    def open_read_only(path: object, flags: int, *rest: object, **options: object) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(path, flags, *rest, **options)

    calls.open = open_read_only
    layout = contiguous(100, 0)
    storage = FileStorage(layout, tmp_path, paths_for(layout), os_calls=calls)
    storage.prepare()
    assert read(storage, 0, 100) == noise(100)
    storage.finish_file(0)
    storage.sync()
    storage.close()


# --- preparing, syncing, finishing -------------------------------------------------------


def test_files_are_sparse_unless_room_is_reserved(tmp_path: Path) -> None:
    layout = contiguous(1 << 20, 1 << 20)
    sparse = FileStorage(layout, tmp_path / "sparse", paths_for(layout))
    sparse.prepare()
    sparse.write((1 << 20) - 1, [b"x"])
    found = sparse.path_of(0).stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 < 1 << 19
    sparse.close()
    full = FileStorage(layout, tmp_path / "full", paths_for(layout), preallocate=True)
    full.prepare({0})
    full.prepare({0})
    found = full.path_of(0).stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20
    assert not full.path_of(1).exists()
    full.close()


def test_reserving_more_than_there_is_says_so(tmp_path: Path) -> None:
    calls = FailingCalls(names={"allocate"})
    calls.arm(0, errno.ENOSPC)
    layout = contiguous(100)
    storage = FileStorage(layout, tmp_path, paths_for(layout), preallocate=True, os_calls=calls)
    with pytest.raises(DiskFull):
        storage.prepare()
    storage.close()


def test_what_has_no_room_is_not_begun(tmp_path: Path) -> None:
    layout = contiguous(1 << 20, 1 << 20)
    calls = FailingCalls(names={"allocate"})
    storage = FileStorage(layout, tmp_path, paths_for(layout), preallocate=True, os_calls=calls)
    calls.free_bytes = lambda _: (2 << 20) - 1
    with pytest.raises(
        DiskFull, match=f"^{2 << 20} bytes are to be reserved, {(2 << 20) - 1}"
    ) as caught:
        storage.prepare()
    assert caught.value.errno == errno.ENOSPC
    assert calls.log == []
    assert not storage.path_of(0).exists()
    # What has its room already is not asked for again.
    storage.prepare({0})
    calls.free_bytes = lambda _: 1 << 20
    storage.prepare()
    assert calls.log == ["allocate"] * 2
    storage.close()


def test_a_volume_that_does_not_tell_its_room_is_an_error_with_a_place(tmp_path: Path) -> None:
    calls = FailingCalls(names={"free_bytes"})
    calls.arm(0, errno.EIO)
    layout = contiguous(100)
    storage = FileStorage(layout, tmp_path, paths_for(layout), preallocate=True, os_calls=calls)
    with pytest.raises(StorageError, match="the disk reports an error") as caught:
        storage.prepare()
    assert caught.value.path == str(tmp_path)
    storage.close()


def test_sync_covers_data_and_the_names_of_new_files_once(tmp_path: Path) -> None:
    calls = FailingCalls(names={"fdatasync", "fsync"})
    storage = storage_in(tmp_path, 100, 50, 50, calls=calls)
    storage.write(0, [noise(150)])
    storage.sync()
    # Two files; the folders top/d0, top/d1, top and the root.
    assert calls.log == ["fdatasync"] * 2 + ["fsync"] * 4
    calls.log.clear()
    storage.sync()
    assert calls.log == []
    storage.write(0, [b"x"])
    storage.sync()
    assert calls.log == ["fdatasync"]
    storage.close()


@pytest.mark.skipif(os.name != "posix", reason="only who may write can sync")
def test_a_file_that_can_only_be_read_by_now_is_synced(tmp_path: Path) -> None:
    """A killed process has written to it, then the volume was mounted to be read."""
    killed = storage_in(tmp_path, 100)
    killed.write(0, [noise(100)])
    killed.close()

    calls = FailingCalls(names={"fdatasync"})
    real = calls.open

    def open_readable(name: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "read-only")
        return real(name, flags, *args, dir_fd=dir_fd)

    calls.open = open_readable
    layout = contiguous(100)
    storage = FileStorage(layout, tmp_path, paths_for(layout), os_calls=calls)
    storage.mark_unsynced([0])
    storage.sync()
    assert calls.log == ["fdatasync"]
    storage.close()


def test_files_dropped_from_the_cache_are_synced_all_the_same(tmp_path: Path) -> None:
    calls = FailingCalls(names={"fdatasync"})
    layout = contiguous(*[10] * 6)
    storage = FileStorage(
        layout, tmp_path, paths_for(layout), handles=HandleCache(2), os_calls=calls
    )
    storage.prepare()
    storage.write(0, [noise(60)])
    storage.sync()
    assert calls.log == ["fdatasync"] * 6
    storage.close()


def test_a_failed_sync_is_reported_after_all_files_were_tried(tmp_path: Path) -> None:
    """Limit: F3."""
    dropped: list[int] = []

    class Calls(FailingCalls):
        def drop_cache(self, fd: int) -> None:
            dropped.append(fd)
            raise OSError(errno.EINVAL, "it is only a hint")

    calls = Calls(names={"fdatasync", "fsync"})
    storage = storage_in(tmp_path, 100, 50, 50, calls=calls)
    storage.write(0, [noise(200)])
    calls.arm(1, errno.EIO)
    with pytest.raises(StorageError) as caught:
        storage.sync()
    assert caught.value.errno == errno.EIO
    assert calls.log.count("fdatasync") == 3
    assert len(dropped) == 1
    calls.log.clear()
    storage.sync()  # the system may have left off in the middle of that file
    assert calls.log == ["fdatasync"]
    storage.close()


def test_a_file_that_has_gone_is_missed_by_one_sync_only(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100)
    storage.write(0, [noise(100)])
    storage.close()
    storage.path_of(0).unlink()
    with pytest.raises(FileVanished):
        storage.sync()
    storage.sync()
    storage.close()


def test_a_failed_sync_of_a_folder_is_tried_again(tmp_path: Path) -> None:
    calls = FailingCalls(names={"fsync"})
    storage = storage_in(tmp_path, 100, calls=calls)
    storage.write(0, [noise(100)])
    calls.arm(0, errno.EIO)
    with pytest.raises(StorageError):
        storage.sync()
    calls.log.clear()
    storage.sync()
    assert calls.log == ["fsync"]
    storage.close()


def test_syncing_a_file_that_was_removed_makes_no_empty_one(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100)
    storage.write(0, [noise(100)])
    storage.close()
    storage.path_of(0).unlink()
    with pytest.raises(FileVanished):
        storage.sync()
    assert not storage.path_of(0).exists()


def test_finishing_cuts_marks_and_renames(tmp_path: Path) -> None:
    geometry = Geometry.contiguous(64, 150, 150)
    places = [Place(100, 0, is_executable=True), Place(50, 100)]
    layout = Layout(places, geometry)
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part")
    storage.prepare()
    storage.write(0, [noise(150)])
    part, final = tmp_path / "top/d0/f0.part", tmp_path / "top/d0/f0"
    assert storage.path_of(0) == part
    part.chmod(0o640)
    with part.open("ab") as file:
        file.write(b"tail")
    storage.finish_file(0)
    assert not part.exists()
    assert final.read_bytes() == noise(150)[:100]
    assert stat.S_IMODE(final.stat().st_mode) == 0o750
    assert storage.path_of(0) == final
    assert (tmp_path / "top/d1/f1.part").exists()
    storage.finish_file(0)
    assert read(storage, 0, 150) == noise(150)
    storage.write(0, [b"again"])
    assert not part.exists()
    storage.sync()
    storage.close()


def test_a_complete_file_without_suffix_is_used_as_it_is(tmp_path: Path) -> None:
    layout = contiguous(100)
    plain = FileStorage(layout, tmp_path, paths_for(layout))
    plain.prepare()
    plain.write(0, [noise(100)])
    plain.close()
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part")
    assert read(storage, 0, 100) == noise(100)
    storage.close()


def test_empty_files_have_no_suffix_and_existing_ones_stay(tmp_path: Path) -> None:
    layout = contiguous(0, 0)
    (tmp_path / "top" / "d1").mkdir(parents=True)
    (tmp_path / "top/d1/f1").write_bytes(b"not ours")
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part")
    storage.prepare()
    assert (tmp_path / "top/d0/f0").read_bytes() == b""
    assert (tmp_path / "top/d1/f1").read_bytes() == b"not ours"
    assert sorted(path.name for path in tmp_path.rglob("*.part")) == []
    storage.close()


def test_an_empty_file_gets_its_name_also_the_second_time(tmp_path: Path) -> None:
    layout = contiguous(0)
    calls = FailingCalls(names={"rename"})
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part", os_calls=calls)
    calls.arm(0, errno.EIO)
    with pytest.raises(StorageError):
        storage.prepare()
    storage.prepare()
    assert [path.name for path in tmp_path.rglob("f*")] == ["f0"]
    storage.close()


def test_what_is_whole_drops_its_suffix_and_the_rest_keeps_it(tmp_path: Path) -> None:
    layout = contiguous(100, 50, 30, 20)
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part")
    storage.prepare()
    storage.write(0, [noise(180)])
    storage.finish_file(0)
    storage.name_whole([100, 50, 29, 20])
    names = sorted(path.name for path in tmp_path.rglob("f*"))
    assert names == ["f0", "f1", "f2.part"]
    assert read(storage, 0, 180) == noise(180)
    storage.close()


def test_links_of_a_torrent_are_not_made(tmp_path: Path) -> None:
    """Limit: P11."""
    places = [Place(100), Place(0, 100, symlink_target=("d0", "f0"))]
    layout = Layout(places, Geometry.contiguous(64, 100, 100))
    storage = FileStorage(layout, tmp_path, paths_for(layout))
    storage.prepare()
    storage.write(0, [noise(100)])
    storage.finish_file(1)
    assert storage.stat_file(1) is None
    assert sorted(path.name for path in tmp_path.rglob("f*")) == ["f0"]
    storage.close()


def test_trimming_reports_errors(tmp_path: Path) -> None:
    calls = FailingCalls(names={"ftruncate"})
    storage = storage_in(tmp_path, 100, calls=calls)
    storage.write(0, [noise(100)])
    with storage.path_of(0).open("ab") as file:
        file.write(b"tail")
    calls.arm(0, errno.EIO)
    with pytest.raises(StorageError) as caught:
        storage.finish_file(0)
    assert caught.value.errno == errno.EIO
    storage.close()


def with_links(folder: Path) -> FileStorage:
    places = [
        Place(100, path=("f0",)),
        Place(0, 100, symlink_target=("f0",), path=("d", "link")),
        Place(0, 100, symlink_target=("..", "secret"), path=("bad",)),
    ]
    layout = Layout(places, Geometry.contiguous(64, 100, 100))
    paths = [("t", "f0"), ("t", "d", "link"), ("t", "bad")]
    return FileStorage(layout, folder, paths, part_suffix=".part")


def test_links_are_made_on_request_once_their_file_is_complete(tmp_path: Path) -> None:
    """Limit: P11."""
    storage = with_links(tmp_path)
    storage.prepare()
    storage.write(0, [noise(100)])
    assert storage.make_links() == []
    storage.finish_file(0)
    assert storage.make_links() == [1]
    assert storage.make_links() == []
    link = tmp_path / "t/d/link"
    assert link.readlink() == Path("../f0")
    assert link.read_bytes() == noise(100)
    assert not (tmp_path / "t/bad").is_symlink()
    storage.sync()
    storage.move(tmp_path / "moved", [("t", "g0"), ("t", "link"), ("t", "bad")])
    assert not link.is_symlink()
    assert (tmp_path / "moved/t/link").readlink() == Path("g0")
    assert not (tmp_path / "t").exists()
    storage.delete()
    assert list((tmp_path / "moved").iterdir()) == []


def test_files_have_moved_also_when_their_links_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = with_links(tmp_path)
    storage.prepare()
    storage.write(0, [noise(100)])
    storage.finish_file(0)
    storage.make_links()
    calls = storage._calls
    calls.unlink = _deny
    storage.move(tmp_path / "moved")
    assert read(storage, 0, 100) == noise(100)
    assert storage.root == tmp_path / "moved"
    assert "permission denied" in caplog.text
    storage.close()


def _deny(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_link_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    storage = with_links(tmp_path)
    storage.prepare()
    (tmp_path / "t" / "d").mkdir(parents=True)
    (tmp_path / "t/d/link").symlink_to("elsewhere")
    storage.delete()
    assert (tmp_path / "t/d/link").is_symlink()


# --- moving and deleting -----------------------------------------------------------------


def test_moving_keeps_suffixes_and_leaves_no_folders(tmp_path: Path) -> None:
    layout = contiguous(100, 50)
    storage = FileStorage(layout, tmp_path / "a", paths_for(layout), part_suffix=".part")
    storage.prepare()
    storage.write(0, [noise(150)])
    storage.finish_file(0)
    storage.move(tmp_path / "b")
    assert list((tmp_path / "a").iterdir()) == []
    assert (tmp_path / "b/top/d0/f0").exists()
    assert (tmp_path / "b/top/d1/f1.part").exists()
    assert read(storage, 0, 150) == noise(150)
    storage.finish_file(1)
    assert (tmp_path / "b/top/d1/f1").exists()
    storage.sync()
    storage.close()


def test_unsafe_new_paths_are_refused_before_anything_moves(tmp_path: Path) -> None:
    storage = storage_in(tmp_path / "a", 100)
    storage.write(0, [noise(100)])
    with pytest.raises(UnsafePath):
        storage.move(tmp_path / "b", [("..", "f")])
    with pytest.raises(MisuseError):
        storage.move(tmp_path / "b", [])
    assert read(storage, 0, 100) == noise(100)
    storage.close()


def test_deleting_leaves_what_is_not_ours(tmp_path: Path) -> None:
    layout = contiguous(100, 50)
    storage = FileStorage(layout, tmp_path, paths_for(layout), part_suffix=".part")
    storage.prepare()
    storage.write(0, [noise(150)])
    storage.finish_file(0)
    (tmp_path / "top" / "d1" / "mine.txt").write_text("keep")
    storage.delete()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["top", "top/d1", "top/d1/mine.txt"]


def test_deleting_where_the_root_is_gone(tmp_path: Path) -> None:
    storage = FileStorage(contiguous(10), tmp_path / "never", [("f",)])
    storage.delete()
    assert not (tmp_path / "never").exists()


# --- failing at every call ---------------------------------------------------------------


def soaking(number: int) -> object:
    return pytest.param(number, marks=pytest.mark.soak)


# "Not now": after such a failure the same step may succeed.
PASSING = [errno.EIO, errno.EMFILE, *map(soaking, (errno.ENOSPC, errno.EACCES, errno.ENFILE))]
# "There is none": a file is rightly left behind.
LASTING = [errno.EIO, errno.ENOENT, *map(soaking, (errno.ELOOP, errno.ENOSPC, errno.EROFS))]


def run_scenario(storage: FileStorage, folder: Path, retry: bool) -> None:
    """Everything a storage does, each step repeated until it works if ``retry``."""

    def step(action: Callable[[], object]) -> None:
        try:
            action()
        except StorageError:
            if not retry:
                raise
            action()

    step(storage.prepare)
    step(lambda: storage.write(0, [noise(150)[:60], noise(150)[60:]]))
    step(lambda: read(storage, 0, 150))
    step(storage.sync)
    step(lambda: storage.finish_file(0))
    step(lambda: storage.finish_file(1))
    step(lambda: storage.move(folder / "b"))
    step(storage.sync)


@pytest.mark.slow
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("number", PASSING)
def test_each_call_in_turn_fails_once(number: int, portable: bool, tmp_path: Path) -> None:
    """R11: no other error than ours comes out, nothing leaks, a repeated step succeeds."""
    layout = contiguous(100, 50, 0)
    before = open_descriptors()
    for fail_at in range(10_000):
        folder = tmp_path / str(fail_at)
        calls = FailingCalls(portable=portable)
        storage = FileStorage(
            layout, folder / "a", paths_for(layout), part_suffix=".part", os_calls=calls
        )
        calls.arm(fail_at, number)
        run_scenario(storage, folder, retry=True)
        is_over = calls.num_calls <= fail_at
        calls.disarm()
        assert read(storage, 0, 150) == noise(150)
        assert (folder / "b/top/d0/f0").exists()
        storage.delete()
        assert not list((folder / "b").iterdir())
        storage.close()
        assert open_descriptors() == before
        if is_over:
            break
    else:
        pytest.fail("the scenario has no end")


@pytest.mark.slow
@pytest.mark.parametrize("number", LASTING)
def test_each_call_in_turn_fails_for_good(number: int, tmp_path: Path) -> None:
    layout = contiguous(100, 50, 0)
    before = open_descriptors()
    for fail_at in range(10_000):
        folder = tmp_path / str(fail_at)
        calls = FailingCalls()
        storage = FileStorage(
            layout, folder / "a", paths_for(layout), part_suffix=".part", os_calls=calls
        )
        calls.arm(fail_at, number, keeps_failing=True)
        failed = False
        try:
            run_scenario(storage, folder, retry=False)
        except StorageError:
            failed = True
        calls.disarm()
        storage.close()
        assert open_descriptors() == before
        if not failed:
            break
    else:
        pytest.fail("the scenario has no end")


def test_a_place_names_the_open_file_for_other_processes(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100, 60)
    storage.write(0, [noise(160)])
    place = storage.place_of(110, 50)
    assert place is not None
    path = Path(place.path)
    status = path.stat()
    assert path.read_bytes()[place.position :] == noise(160)[110:]
    assert (place.device, place.inode) == (status.st_dev, status.st_ino)
    storage.close()


def test_what_is_not_in_one_file_has_no_place(tmp_path: Path) -> None:
    storage = storage_in(tmp_path, 100, 60)
    storage.write(0, [noise(160)])
    assert storage.place_of(90, 11) is None
    assert storage.place_of(90, 10) is not None
    storage.close()
    layout = contiguous(100, 28, 64, pads=[1])
    storage = FileStorage(layout, tmp_path / "padded", paths_for(layout))
    storage.prepare()
    assert storage.place_of(100, 10) is None


def test_reads_through_calls_that_were_replaced_have_no_place(tmp_path: Path) -> None:
    calls = ShortCalls(10)
    storage = storage_in(tmp_path, 100, calls=calls)
    storage.write(0, [noise(100)])
    assert storage.place_of(0, 100) is None
    storage.close()


def test_a_place_in_a_file_that_is_not_there_or_odd_is_an_error(tmp_path: Path) -> None:
    calls = OsCalls()
    storage = storage_in(tmp_path, 100, calls=calls)
    with pytest.raises(FileVanished):
        storage.place_of(0, 100)
    storage.write(0, [noise(100)])

    def fail(_fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "bad")

    calls.fstat = fail
    with pytest.raises(StorageError) as caught:
        storage.place_of(0, 100)
    assert caught.value.path == str(storage.path_of(0))
    storage.close()


@pytest.mark.parametrize("how", [ReuseHow.COPY, ReuseHow.HARDLINK])
def test_a_file_taken_from_elsewhere_is_read_and_synced_as_ours(
    how: ReuseHow, tmp_path: Path
) -> None:
    """Also where what was there before is still open (F3)."""
    source = tmp_path / "source"
    source.write_bytes(noise(5_000))
    calls = FaultyCalls()
    stamp = stamp_of(source, calls)
    assert stamp is not None
    storage = storage_in(tmp_path / "out", 5_000, calls=calls)
    storage.write(0, [bytes(100)])
    storage.sync()
    os.truncate(storage.path_of(0), 0)  # so that a link can take its place
    assert storage.adopt(0, source, how, stamp=stamp) is how
    assert read(storage, 0, 5_000) == noise(5_000)
    calls.log.clear()
    storage.sync()
    assert calls.log.count("fdatasync") == 1
    storage.close()


def test_a_file_that_is_not_what_was_verified_is_not_taken(tmp_path: Path) -> None:
    """Limit: F5."""
    source, calls = tmp_path / "source", OsCalls()
    source.write_bytes(noise(5_000))
    stamp = stamp_of(source, calls)
    assert stamp is not None
    source.write_bytes(noise(5_001))
    storage = storage_in(tmp_path / "out", 5_000)
    assert storage.adopt(0, source, ReuseHow.COPY, stamp=stamp) is None
    storage.close()
