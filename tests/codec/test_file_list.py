"""Files of v1: places, names of all kinds, attributes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import Value
from bittern.codec.file_list import (
    MAX_PATH_DEPTH,
    MAX_TOTAL_LENGTH,
    FileEntry,
    last_index,
    read_file_list,
    read_name,
    read_single_file,
    text_from,
    text_to,
)
from bittern.core.errors import MetainfoError
from tests.codec.zoo.cases import GROUPS


def _one(**fields: Value) -> FileEntry:
    """Read one file; underscores stand for spaces."""
    item: dict[bytes, Value] = {b"length": 5, b"path": [b"p"]}
    item |= {key.replace("_", " ").encode(): value for key, value in fields.items()}
    return read_file_list([item])[0]


class TestNames:
    @given(st.binary())
    def test_nothing_is_lost(self, raw: bytes) -> None:
        assert text_to(text_from(raw)) == raw

    def test_utf8_is_text(self) -> None:
        assert text_from("é".encode()) == "é"
        assert text_from(b"\xe9") == "\udce9"

    @pytest.mark.parametrize(
        ("info", "name"),
        [
            ({b"name": b"n"}, "n"),
            ({b"name": b"n", b"name.utf-8": "é".encode()}, "é"),
            ({b"name": b"n", b"name.utf-8": b"\xff"}, "n"),
            ({b"name": b"\xff", b"name.utf-8": 5}, "\udcff"),
            ({b"name.utf-8": b"n"}, "n"),
            ({b"name.utf-8": b"\xff"}, None),
            ({b"name": [b"n"]}, None),
            ({}, None),
        ],
    )
    def test_name_of_the_torrent(self, info: dict[bytes, Value], name: str | None) -> None:
        assert read_name(info) == name

    def test_paths_prefer_what_is_marked_as_utf8(self) -> None:
        item: Value = {b"length": 1, b"path": [b"\xe9"], b"path.utf-8": ["é".encode()]}
        assert read_file_list([item])[0].path == ("é",)
        item = {b"length": 1, b"path": [b"\xe9"], b"path.utf-8": [b"\xff"]}
        assert read_file_list([item])[0].path == ("\udce9",)

    @pytest.mark.parametrize("path", [[b".."], [b""], [b"a/b"], [b"\x00"], [b"a"] * MAX_PATH_DEPTH])
    def test_unsafe_names_are_kept_as_they_stand(self, path: list[Value]) -> None:
        assert [element.encode() for element in _one(path=path).path] == path


class TestPlaces:
    def test_a_copy_has_another_place_and_root(self) -> None:
        entry = FileEntry(("a",), 1, 2, False, True, True, ("t",), None, b"s" * 20, 9)
        assert entry.placed(7, b"r" * 32) == replace(entry, offset=7, pieces_root=b"r" * 32)

    def test_files_lie_end_to_end(self) -> None:
        lengths = [3, 0, 0, 7, 1]
        files = read_file_list([{b"length": n, b"path": [b"%d" % n]} for n in lengths])
        assert [entry.offset for entry in files] == [0, 3, 3, 3, 10]
        assert [entry.length for entry in files] == lengths

    def test_the_total_is_bounded(self) -> None:
        half = MAX_TOTAL_LENGTH // 2
        item: Value = {b"length": half, b"path": [b"a"]}
        assert len(read_file_list([item, item, {b"length": 1, b"path": [b"b"]}])) == 3
        with pytest.raises(MetainfoError, match=r"files\[2\]: the files are longer"):
            read_file_list([item, item, {b"length": 2, b"path": [b"b"]}])


class TestAttributes:
    @pytest.mark.parametrize(
        ("attr", "flags"),
        [
            (b"", (False, False, False)),
            (b"p", (True, False, False)),
            (b"x", (False, True, False)),
            (b"h", (False, False, True)),
            (b"xhp", (True, True, True)),
            (b"?A\xff", (False, False, False)),
            (5, (False, False, False)),
        ],
    )
    def test_flags(self, attr: Value, flags: tuple[bool, bool, bool]) -> None:
        entry = _one(attr=attr)
        assert (entry.is_pad, entry.is_executable, entry.is_hidden) == flags
        assert entry.symlink_target is None

    def test_pads_of_bitcomet_are_known_by_name(self) -> None:
        assert _one(path=[b"_____padding_file_12_____"]).is_pad
        assert not _one(path=[b"_____padding_file_12_____", b"x"]).is_pad

    def test_pads_need_no_path(self) -> None:
        expected = FileEntry((".pad", "5"), 5, 0, is_pad=True)
        assert read_file_list([{b"length": 5, b"attr": b"p"}]) == (expected,)

    @pytest.mark.parametrize(
        ("fields", "target"),
        [
            ({"symlink_path": [b"a", b"b"]}, ("a", "b")),
            ({"symlink_path": [b"..", b"\xff"]}, ("..", "\udcff")),
            ({"symlink_path": []}, ()),
            ({"symlink_path": 5}, ()),
            ({}, ()),
        ],
    )
    def test_symlinks(self, fields: dict[str, Value], target: tuple[str, ...]) -> None:
        assert _one(attr=b"l", length=0, **fields).symlink_target == target

    def test_symlinks_need_no_length(self) -> None:
        item: Value = {b"attr": b"l", b"path": [b"p"], b"symlink path": [b"t"]}
        assert read_file_list([item])[0].length == 0

    def test_a_symlink_path_alone_makes_no_link(self) -> None:
        assert _one(symlink_path=[b"a"]).symlink_target is None

    def test_hints(self) -> None:
        entry = _one(sha1=b"s" * 20, mtime=5)
        assert (entry.sha1, entry.mtime) == (b"s" * 20, 5)
        entry = _one(sha1=b"s" * 19, mtime=b"5")
        assert (entry.sha1, entry.mtime) == (None, None)


def test_the_last_file_is_no_padding() -> None:
    file, pad = FileEntry(("a",), 1, 0), FileEntry((), 1, 1, is_pad=True)
    assert last_index([file, pad, file, pad]) == 2
    assert last_index([pad]) == 0


def test_a_single_file_takes_the_name_of_the_torrent() -> None:
    info: dict[bytes, Value] = {b"length": 5, b"attr": b"x", b"sha1": b"s" * 20}
    entry = read_single_file(info, "n")
    assert entry == FileEntry(("n",), 5, 0, is_executable=True, sha1=b"s" * 20)
    with pytest.raises(MetainfoError, match=r"^info: 'length' is missing$"):
        read_single_file({}, "n")


def test_zoo() -> None:
    for case in GROUPS["file_list"]:
        case.check()
