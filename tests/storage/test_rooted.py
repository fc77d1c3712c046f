from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bittern.core.errors import FileVanished, StorageError, UnsafePath, VolumeMissing
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls
from tests.storage.faults import FailingCalls, open_descriptors


@pytest.fixture(params=[False, True], ids=["handles", "names"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RootedTree]:
    before = open_descriptors()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("outside")
    made = RootedTree(tmp_path / "root", OsCalls(portable=request.param))
    made.make_root()
    yield made
    assert open_descriptors() == before


def make_file(tree: RootedTree, *path: str, text: str = "") -> None:
    fd = tree.open_file(path, writable=True, create=True)
    os.write(fd, text.encode())
    os.close(fd)


def test_files_and_their_folders_are_made_and_found(tree: RootedTree) -> None:
    make_file(tree, "a", "b", "f", text="hello")
    assert (tree.root / "a/b/f").read_text() == "hello"
    assert tree.full_path(("a", "b", "f")) == tree.root / "a/b/f"
    found = tree.stat(("a", "b", "f"))
    assert found is not None
    assert found.st_size == 5
    assert tree.exists(("a", "b", "f"))
    assert tree.exists(("a", "b"))
    assert tree.stat(("a", "b")) is None
    assert not tree.exists(("a", "c"))
    assert not tree.exists(("c", "d"))
    assert tree.stat(("c", "d")) is None
    fd = tree.open_file(("a", "b", "f"), writable=False)
    assert os.read(fd, 10) == b"hello"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)


def test_reading_makes_nothing(tree: RootedTree) -> None:
    for writable in (False, True):
        with pytest.raises(FileVanished):
            tree.open_file(("a", "f"), writable=writable)
    assert list(tree.root.iterdir()) == []


def test_an_exclusive_file_is_new(tree: RootedTree) -> None:
    make_file(tree, "f")
    with pytest.raises(StorageError) as caught:
        tree.open_file(("f",), writable=True, create=True, exclusive=True)
    assert caught.value.errno == errno.EEXIST


def test_links_on_the_way_are_refused_by_every_call(tree: RootedTree, tmp_path: Path) -> None:
    (tree.root / "link").symlink_to(tmp_path / "outside")
    (tree.root / "inner").mkdir()
    (tree.root / "inner" / "link").symlink_to("..")
    make_file(tree, "mine")
    refused: list[Callable[[FilePath], object]] = [
        lambda path: tree.open_file(path, writable=False),
        lambda path: tree.open_file(path, writable=True, create=True),
        tree.exists,
        lambda path: tree.rename(path, tree, ("here",)),
        lambda path: tree.rename(("mine",), tree, (*path[:-1], "there")),
        lambda path: tree.link(path, "x"),
        lambda path: tree.sync_folder(path[:-1]),
    ]
    paths: list[FilePath] = [("link", "f"), ("inner", "link", "mine")]
    for path in paths:
        for call in refused:
            with pytest.raises(UnsafePath):
                call(path)
        assert tree.stat(path) is None
        assert not tree.unlink(path)
        assert not tree.remove_folder((*path[:-1], "new"))
    assert [entry.name for entry in (tmp_path / "outside").iterdir()] == ["f"]
    assert (tmp_path / "outside" / "f").read_text() == "outside"


def test_a_link_as_the_file_is_refused_and_removed_as_a_link(
    tree: RootedTree, tmp_path: Path
) -> None:
    tree.link(("f",), str(tmp_path / "outside" / "f"))
    for writable in (False, True):
        with pytest.raises(UnsafePath, match="symbolic link"):
            tree.open_file(("f",), writable=writable, create=writable)
    assert tree.stat(("f",)) is None
    assert tree.exists(("f",))
    assert tree.read_link(("f",)) == str(tmp_path / "outside" / "f")
    assert tree.unlink(("f",))
    assert tree.read_link(("f",)) is None
    make_file(tree, "f")
    assert tree.read_link(("f",)) is None
    assert (tmp_path / "outside" / "f").exists()


def test_a_file_where_a_folder_should_be(tree: RootedTree) -> None:
    make_file(tree, "f")
    with pytest.raises(UnsafePath, match="not a plain folder"):
        tree.open_file(("f", "g"), writable=True, create=True)
    assert tree.stat(("f", "g")) is None


def test_a_name_that_the_locale_cannot_write_is_an_error_that_says_so(tree: RootedTree) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise UnicodeEncodeError("koi8-r", "\xe9", 0, 1, "no letter")

    tree._calls.stat = tree._calls.open = fail
    with pytest.raises(StorageError, match=r"encoding \(koi8-r\) cannot write this name"):
        tree.open_file(("\xe9",), writable=True, create=True)


def test_folders_are_made_once(tree: RootedTree) -> None:
    for name in ("f", "g"):
        make_file(tree, "a", "b", name)
    assert {entry.name for entry in (tree.root / "a" / "b").iterdir()} == {"f", "g"}


def test_a_folder_that_somebody_else_makes_first_is_used(tree: RootedTree) -> None:
    real = tree._calls.mkdir

    def mkdir(*args: object, **options: object) -> None:
        real(*args, **options)
        real(*args, **options)

    tree._calls.mkdir = mkdir
    make_file(tree, "a", "b", "f")
    assert (tree.root / "a" / "b" / "f").is_file()


def test_renaming_makes_folders_and_overwrites_nothing(tree: RootedTree) -> None:
    make_file(tree, "f", text="f")
    make_file(tree, "g", text="g")
    tree.rename(("f",), tree, ("a", "b", "h"))
    assert (tree.root / "a/b/h").read_text() == "f"
    with pytest.raises(StorageError, match="something is there already"):
        tree.rename(("g",), tree, ("a", "b", "h"))
    with pytest.raises(StorageError, match="something is there already"):
        tree.rename(("g",), tree, ("a",))
    with pytest.raises(FileVanished):
        tree.rename(("missing",), tree, ("x",))
    assert (tree.root / "g").read_text() == "g"


def test_a_hard_link_is_another_name_for_a_file(tree: RootedTree, tmp_path: Path) -> None:
    """Where nothing is, and not by way of a link (P8)."""
    source = tmp_path / "outside" / "f"
    tree.hard_link(("a", "l"), source)
    assert (tree.root / "a" / "l").samefile(source)
    make_file(tree, "a", "taken", text="ours")
    with pytest.raises(StorageError):
        tree.hard_link(("a", "taken"), source)
    assert (tree.root / "a" / "taken").read_text() == "ours"
    (tree.root / "way").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePath):
        tree.hard_link(("way", "l"), source)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["f"]


def test_renaming_in_place_of_another_file(tree: RootedTree) -> None:
    make_file(tree, "old", text="old")
    make_file(tree, "a", "new", text="new")
    tree.rename(("a", "new"), tree, ("old",), replaces=True)
    assert (tree.root / "old").read_text() == "new"
    assert not tree.exists(("a", "new"))


def test_removing_is_for_files_and_empty_folders(tree: RootedTree) -> None:
    make_file(tree, "a", "f")
    assert not tree.remove_folder(("a",))
    assert not tree.unlink(("a",))
    assert not tree.unlink(("a", "missing"))
    assert tree.unlink(("a", "f"))
    assert tree.remove_folder(("a",))
    assert not tree.remove_folder(("a",))


def test_the_root_is_made_on_request_only(tree: RootedTree) -> None:
    gone = RootedTree(tree.root / "x" / "y", tree._calls)
    with pytest.raises(FileVanished):
        gone.open_file(("f",), writable=True, create=True)
    assert not (tree.root / "x").exists()
    gone.make_root()
    assert (tree.root / "x" / "y").is_dir()


def test_a_root_that_cannot_be_made_says_why(tree: RootedTree) -> None:
    make_file(tree, "f")
    with pytest.raises(StorageError) as caught:
        RootedTree(tree.root / "f" / "x", tree._calls).make_root()
    assert str(tree.root / "f" / "x") in str(caught.value)
    with pytest.raises(StorageError, match="file exists"):
        RootedTree(tree.root / "f", tree._calls).make_root()


def test_special_files_are_no_files(tree: RootedTree) -> None:
    os.mkfifo(tree.root / "fifo")
    os.mknod(tree.root / "socket", 0o600 | stat.S_IFSOCK)
    for name in ("fifo", "socket"):
        for writable in (False, True):
            with pytest.raises(UnsafePath, match="not a regular file"):
                tree.open_file((name,), writable=writable)
        assert tree.stat((name,)) is None


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_folders_are_forgiven(number: int, tmp_path: Path) -> None:
    calls = FailingCalls(names={"fsync"})
    made = RootedTree(tmp_path, calls)
    calls.arm(0, number)
    made.sync_folder(())
    calls.arm(0, errno.EIO)
    with pytest.raises(StorageError):
        made.sync_folder(())


def test_folders_cannot_be_synced_without_handles(tmp_path: Path) -> None:
    calls = FailingCalls(names={"fsync"}, portable=True)
    RootedTree(tmp_path, calls).sync_folder(())
    assert calls.log == []


def test_junctions_are_links(tmp_path: Path) -> None:
    """Windows: a folder that is a reparse point of the mount point kind."""
    calls = OsCalls(portable=True)
    real = calls.stat

    class Junction:
        st_mode = stat.S_IFDIR | 0o755
        st_reparse_tag = 0xA0000003

    def found(path: object, **options: object) -> object:
        return Junction() if str(path).endswith("junction") else real(path, **options)

    calls.stat = found  # type: ignore[assignment]
    made = RootedTree(tmp_path, calls)
    with pytest.raises(UnsafePath, match="not a plain folder"):
        made.open_file(("junction", "f"), writable=True, create=True)
    with pytest.raises(UnsafePath):
        made.open_file(("junction",), writable=False)


def test_a_failing_fstat_leaks_nothing(tmp_path: Path) -> None:
    calls = FailingCalls(names={"fstat"})
    made = RootedTree(tmp_path, calls)
    make_file(made, "f")
    before = open_descriptors()
    for number in range(2):
        calls.arm(number, errno.EIO)
        with pytest.raises(StorageError):
            made.open_file(("f",), writable=False)
    assert open_descriptors() == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_folders_that_cannot_be_opened_say_why(number: int, tmp_path: Path) -> None:
    calls = FailingCalls(names={"open"})
    made = RootedTree(tmp_path, calls)
    make_file(made, "a", "f")
    for at in range(2):
        calls.arm(at, number)
        with pytest.raises(StorageError) as caught:
            made.open_file(("a", "f"), writable=False)
        assert caught.value.errno == number


def test_another_device_is_another_root(tmp_path: Path) -> None:
    made = RootedTree(tmp_path, OsCalls())
    make_file(made, "f")
    made._device = -1
    with pytest.raises(VolumeMissing, match="not mounted"):
        made.stat(("f",)) or made.open_file(("f",), writable=False)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_room_is_made_for_every_open(number: int, tmp_path: Path) -> None:
    """Limit: F13. Also folders are opened, to look at a file or to make one."""
    calls = FailingCalls(names={"open"})
    room = [True]
    tree = RootedTree(tmp_path, calls, lambda: bool(room) and room.pop())
    for nth in range(4):
        room[:] = [True]
        calls.arm(nth, number)
        os.close(tree.open_file(("a", str(nth), "f"), writable=True, create=True))
        assert not room
    room[:] = [True]
    calls.arm(1, number)
    assert tree.stat(("a", "0", "f")) is not None
    calls.arm(1, number)
    with pytest.raises(StorageError, match="too many open files"):
        tree.stat(("a", "0", "f"))
