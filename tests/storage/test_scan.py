"""Finding files: order, kinds, links, attributes, refusals."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bittern.core.errors import FileVanished, StorageError, UnsafePath
from bittern.storage.scan import Content, scan


def _paths(content: Content) -> list[str]:
    return ["/".join(file.entry.path) for file in content.files]


def _put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    _put(tmp_path, "a.bin")
    content = scan(tmp_path / "a.bin")
    assert (content.name, content.is_single_file, content.total_length) == ("a.bin", True, 5)
    assert _paths(content) == ["a.bin"]
    assert content.files[0].os_path == str(tmp_path / "a.bin")


def test_order_is_that_of_the_file_tree(tmp_path: Path) -> None:
    names = ["a/b", "a/c/d", "a b", "a-", "a.txt", "B", ".hidden", "é", "z/y"]
    _put(tmp_path / "root", *names)
    content = scan(tmp_path / "root")
    assert (content.name, content.is_single_file) == ("root", False)
    assert _paths(content) == [".hidden", "B", "a/b", "a/c/d", "a b", "a-", "a.txt", "z/y", "é"]


def test_the_name_is_that_of_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path / "root", "x/a")
    monkeypatch.chdir(tmp_path / "root" / "x")
    assert scan(".").name == "x"
    assert scan("..").name == "root"
    assert scan(str(tmp_path) + "/root/").name == "root"


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff.bin"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    content = scan(tmp_path)
    assert _paths(content) == ["\udcff.bin"]


def test_empty_folders_and_what_is_no_file_leave_no_trace(tmp_path: Path) -> None:
    _put(tmp_path, "a", "zero")
    (tmp_path / "zero").write_bytes(b"")
    (tmp_path / "empty" / "er").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    assert _paths(scan(tmp_path)) == ["a", "zero"]


def test_executable_files_are_marked(tmp_path: Path) -> None:
    _put(tmp_path, "run", "data")
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "data").chmod(0o655)
    assert [file.entry.is_executable for file in scan(tmp_path).files] == [False, True]


@pytest.mark.parametrize(
    ("field", "value"), [("st_file_attributes", stat.FILE_ATTRIBUTE_HIDDEN), ("st_flags", 0x8000)]
)
def test_hidden_is_what_the_file_system_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: int
) -> None:
    """Windows and macOS have such a mark, Linux has not: there a leading dot is just a name."""
    _put(tmp_path, ".dot")
    assert not scan(tmp_path / ".dot").files[0].entry.is_hidden
    real = (tmp_path / ".dot").stat()

    class Marked:
        def __getattr__(self, name: str) -> object:
            return value if name == field else getattr(real, name)

    monkeypatch.setattr(os, "stat", lambda path: Marked())
    assert scan(tmp_path / ".dot").files[0].entry.is_hidden


class TestFollowedLinks:
    def test_content_takes_the_place_of_links(self, tmp_path: Path) -> None:
        _put(tmp_path, "outside/o", "root/a")
        (tmp_path / "root/file").symlink_to(tmp_path / "outside/o")
        (tmp_path / "root/folder").symlink_to(tmp_path / "outside")
        content = scan(tmp_path / "root")
        assert _paths(content) == ["a", "file", "folder/o"]
        assert {file.entry.symlink_target for file in content.files} == {None}

    def test_a_link_to_nothing_is_left_out(self, tmp_path: Path) -> None:
        _put(tmp_path, "a")
        (tmp_path / "broken").symlink_to("nowhere")
        assert _paths(scan(tmp_path)) == ["a"]

    def test_the_same_folder_twice_is_no_loop(self, tmp_path: Path) -> None:
        _put(tmp_path, "a/x")
        (tmp_path / "b").symlink_to("a")
        assert _paths(scan(tmp_path)) == ["a/x", "b/x"]

    @pytest.mark.parametrize("target", [".", "..", "../../root"])
    def test_a_loop_is_refused(self, tmp_path: Path, target: str) -> None:
        _put(tmp_path, "root/a/x")
        (tmp_path / "root/a/loop").symlink_to(target)
        with pytest.raises(StorageError, match="a loop of links"):
            scan(tmp_path / "root")

    def test_the_path_itself_may_be_a_link(self, tmp_path: Path) -> None:
        _put(tmp_path, "real/a")
        (tmp_path / "alias").symlink_to("real")
        content = scan(tmp_path / "alias", keep_symlinks=True)
        assert (content.name, _paths(content)) == ("alias", ["a"])


class TestKeptLinks:
    def test_targets_are_told_from_the_root(self, tmp_path: Path) -> None:
        _put(tmp_path, "a/x")
        (tmp_path / "a/near").symlink_to("x")
        (tmp_path / "b").mkdir()
        (tmp_path / "b/far").symlink_to("../a/x")
        (tmp_path / "b/whole").symlink_to(tmp_path / "a")
        (tmp_path / "b/broken").symlink_to("nowhere")
        found = {
            "/".join(file.entry.path): file.entry.symlink_target
            for file in scan(tmp_path, keep_symlinks=True).files
        }
        assert found == {
            "a/x": None,
            "a/near": ("a", "x"),
            "b/far": ("a", "x"),
            "b/whole": ("a",),
            "b/broken": ("b", "nowhere"),
        }

    @pytest.mark.parametrize("target", ["..", "../other", "/etc/passwd", "."])
    def test_a_link_that_leads_outside_is_refused(self, tmp_path: Path, target: str) -> None:
        _put(tmp_path, "root/a")
        (tmp_path / "root/link").symlink_to(target)
        with pytest.raises(UnsafePath, match="leads outside") as caught:
            scan(tmp_path / "root", keep_symlinks=True)
        assert caught.value.path == str(tmp_path / "root/link")

    def test_a_link_to_another_drive_leads_outside(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def relpath(path: str, start: str) -> str:
            raise ValueError(f"path is on mount {path!r}, start on mount {start!r}")

        _put(tmp_path, "root/a")
        (tmp_path / "root/link").symlink_to("D:/elsewhere")
        monkeypatch.setattr(os.path, "relpath", relpath)
        with pytest.raises(UnsafePath, match="leads outside"):
            scan(tmp_path / "root", keep_symlinks=True)


def _deep(path: Path) -> Path:
    for _ in range(101):
        path /= "d"
    path.mkdir(parents=True)
    return path


REFUSED: list[tuple[str, Callable[[Path], object], type[StorageError], str]] = [
    ("missing", lambda path: None, FileVanished, "no such file"),
    ("empty folder", lambda path: path.mkdir(), StorageError, "no files in the folder"),
    ("pipe", lambda path: os.mkfifo(path), StorageError, "neither a file nor a folder"),
    ("link to itself", lambda path: path.symlink_to(path), StorageError, "too many levels"),
    ("deep", _deep, StorageError, "folders more than 100 deep"),
]


@pytest.mark.parametrize(
    ("prepare", "kind", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refusals(
    tmp_path: Path, prepare: Callable[[Path], object], kind: type[StorageError], reason: str
) -> None:
    prepare(tmp_path / "it")
    with pytest.raises(StorageError, match=reason) as caught:
        scan(tmp_path / "it")
    assert type(caught.value) is kind
    assert caught.value.path is not None
    assert caught.value.path.startswith(str(tmp_path / "it"))


def test_the_root_folder_has_no_name() -> None:
    with pytest.raises(StorageError, match="no name"):
        scan("/")


def test_an_entry_that_vanishes_between_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is read, and then the file is gone before it is looked at."""
    _put(tmp_path, "a")
    real = os.scandir

    def scandir(path: str) -> object:
        entries = real(path)

        class Late:
            def __enter__(self) -> Late:
                return self

            def __exit__(self, *exc_info: object) -> None:
                entries.close()

            def __iter__(self) -> object:
                for entry in entries:
                    (tmp_path / entry.name).unlink()
                    yield entry

        return Late()

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(FileVanished) as caught:
        scan(tmp_path)
    assert caught.value.path == str(tmp_path / "a")
