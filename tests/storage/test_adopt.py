"""storage.adopt: copies, clones and hard links of files, and what is never done."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bittern.core.errors import DiskFull, StorageError
from bittern.storage.adopt import (
    ReuseHow,
    adopt_file,
    is_same_file,
    open_source,
    stamp_of,
)
from bittern.storage.copying import COPY_LENGTH
from bittern.storage.rooted import RootedTree
from bittern.storage.system import OsCalls
from bittern.testing.disk import FaultyCalls
from tests.storage.faults import ShortCalls
from tests.storage.places import noise

CONTENT = noise(COPY_LENGTH + 5) + bytes(2 * COPY_LENGTH) + b"end"


class Bench:
    """A source, and a tree that is to have it as ``d/new``."""

    def __init__(self, folder: Path, calls: OsCalls | None = None) -> None:
        self.calls = calls or OsCalls()
        self.source = folder / "source"
        self.source.write_bytes(CONTENT)
        self.tree = RootedTree(folder / "out", self.calls)
        self.tree.make_root()
        self.path = folder / "out" / "d" / "new"
        stamp = stamp_of(self.source, self.calls)
        assert stamp is not None
        self.stamp = stamp

    def adopt(self, how: ReuseHow) -> ReuseHow | None:
        return adopt_file(self.tree, ("d", "new"), self.source, how, self.calls, stamp=self.stamp)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_copy_is_another_file_with_the_same_bytes(bench: Bench) -> None:
    assert bench.adopt(ReuseHow.COPY) is ReuseHow.COPY
    assert bench.path.read_bytes() == CONTENT
    assert not is_same_file(bench.path, bench.source)


def test_a_system_that_writes_less_than_it_is_given_makes_the_same_copy(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ShortCalls(COPY_LENGTH // 3 + 1))
    assert bench.adopt(ReuseHow.COPY) is ReuseHow.COPY
    assert bench.path.read_bytes() == CONTENT


def test_a_copy_over_what_is_there_has_no_old_bytes_left(bench: Bench) -> None:
    """Also where the source has zeros, and beyond its end."""
    bench.path.parent.mkdir()
    bench.path.write_bytes(b"\xff" * (len(CONTENT) + 100))
    assert bench.adopt(ReuseHow.COPY) is ReuseHow.COPY
    assert bench.path.read_bytes() == CONTENT


def test_a_hard_link_is_the_same_file(bench: Bench) -> None:
    assert bench.adopt(ReuseHow.HARDLINK) is ReuseHow.HARDLINK
    assert is_same_file(bench.path, bench.source)


def test_a_hard_link_takes_the_place_of_an_empty_file(bench: Bench) -> None:
    bench.path.parent.mkdir()
    bench.path.touch()
    assert bench.adopt(ReuseHow.HARDLINK) is ReuseHow.HARDLINK
    assert is_same_file(bench.path, bench.source)


def test_a_file_with_content_is_written_over_and_not_replaced(bench: Bench) -> None:
    bench.path.parent.mkdir()
    bench.path.write_bytes(b"something")
    inode = bench.path.stat().st_ino
    assert bench.adopt(ReuseHow.HARDLINK) is ReuseHow.COPY
    assert bench.path.stat().st_ino == inode
    assert bench.path.read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_there_are_no_links_it_is_copied(tmp_path: Path, number: int) -> None:
    calls = FaultyCalls()
    bench = Bench(tmp_path, calls)
    calls.fail_call(0, number, for_good=True, names={"link"})
    assert bench.adopt(ReuseHow.HARDLINK) is ReuseHow.COPY
    assert bench.path.read_bytes() == CONTENT


def test_a_clone_or_a_copy_has_the_same_bytes(bench: Bench) -> None:
    """Which of them depends on the file system under the test."""
    assert bench.adopt(ReuseHow.REFLINK) in (ReuseHow.REFLINK, ReuseHow.COPY)
    assert bench.path.read_bytes() == CONTENT
    assert not is_same_file(bench.path, bench.source)


def test_a_clone_is_told_where_the_system_makes_one(tmp_path: Path) -> None:
    calls = OsCalls()
    bench = Bench(tmp_path, calls)

    def clone(fd: int, source: int) -> None:
        os.pwrite(fd, os.pread(source, len(CONTENT), 0), 0)

    calls.clone = clone
    assert bench.adopt(ReuseHow.REFLINK) is ReuseHow.REFLINK
    assert bench.path.read_bytes() == CONTENT


def test_a_full_disk_is_told_and_not_taken_for_a_lack_of_clones(tmp_path: Path) -> None:
    calls = FaultyCalls()
    bench = Bench(tmp_path, calls)
    calls.fail_call(0, errno.ENOSPC, for_good=True, names={"clone"})
    with pytest.raises(DiskFull):
        bench.adopt(ReuseHow.REFLINK)
    calls.heal()
    calls.fail_call(0, errno.ENOSPC, for_good=True, names={"link"})
    bench.path.unlink()
    with pytest.raises(DiskFull):
        bench.adopt(ReuseHow.HARDLINK)
    calls.heal()
    calls.fail_call(0, errno.ENOSPC, for_good=True, names={"pwritev"})
    with pytest.raises(DiskFull):
        bench.adopt(ReuseHow.COPY)


@pytest.mark.parametrize("how", list(ReuseHow))
def test_a_source_that_has_changed_is_not_taken(bench: Bench, how: ReuseHow) -> None:
    bench.source.write_bytes(b"other")
    assert bench.adopt(how) is None
    assert not bench.path.exists()


@pytest.mark.parametrize("how", list(ReuseHow))
def test_a_source_that_changes_meanwhile_is_not_taken(tmp_path: Path, how: ReuseHow) -> None:
    """And no name is left behind through which we would write into it."""
    calls = FaultyCalls()
    bench = Bench(tmp_path, calls)

    def change(name: str) -> None:
        if name in ("link", "ftruncate", "clone"):
            calls.before_call = None
            bench.source.write_bytes(b"other")

    calls.before_call = change
    assert bench.adopt(how) is None
    assert not is_same_file(bench.path, bench.source)


def test_a_source_that_cannot_be_read_is_not_taken(tmp_path: Path) -> None:
    calls = FaultyCalls()
    bench = Bench(tmp_path, calls)
    calls.fail_call(0, errno.EIO, for_good=True, names={"preadv"})
    assert bench.adopt(ReuseHow.COPY) is None
    calls.heal()
    calls.fail_call(0, errno.EACCES, for_good=True, names={"open"})
    assert bench.adopt(ReuseHow.COPY) is None


def test_only_regular_files_are_sources(tmp_path: Path) -> None:
    calls = OsCalls()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        assert stamp_of(tmp_path / name, calls) is None
        with pytest.raises(StorageError):
            open_source(tmp_path / name, calls)
    with pytest.raises(StorageError):
        open_source(tmp_path, calls)
    assert not is_same_file(tmp_path / "missing", tmp_path / "file")
