"""Files of v2: order and places, and the comparison of both halves of a hybrid."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from bittern.codec import file_tree
from bittern.codec.bencode import Value
from bittern.codec.file_list import FileEntry
from bittern.codec.file_tree import merge_file_lists, read_file_tree
from bittern.core.errors import MetainfoError
from tests.codec.zoo.cases import GROUPS

BLOCK = 16_384
ROOT = b"r" * 32


def _leaf(length: int, **fields: Value) -> Value:
    leaf: dict[bytes, Value] = {b"length": length}
    if length:
        leaf[b"pieces root"] = ROOT
    return {b"": leaf | {key.encode(): value for key, value in fields.items()}}


def test_files_are_aligned_in_the_order_of_the_tree() -> None:
    tree: Value = {
        b"a": {b"b": _leaf(BLOCK + 1), b"c": {b"d": _leaf(0)}},
        b"a.txt": _leaf(5, attr=b"x", mtime=7),
        b"e": {},
        b"\xff": _leaf(3 * BLOCK),
    }
    assert read_file_tree(tree, BLOCK) == (
        FileEntry(("a", "b"), BLOCK + 1, 0, pieces_root=ROOT),
        FileEntry(("a", "c", "d"), 0, 2 * BLOCK),
        FileEntry(("a.txt",), 5, 2 * BLOCK, is_executable=True, pieces_root=ROOT, mtime=7),
        FileEntry(("\udcff",), 3 * BLOCK, 3 * BLOCK, pieces_root=ROOT),
    )


def test_depth_and_elements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tree: Value = _leaf(0)
    for _ in range(100):
        tree = {b"a": tree}
    assert len(read_file_tree(tree, BLOCK)[0].path) == 100
    with pytest.raises(MetainfoError, match="a path has more than 100 elements"):
        read_file_tree({b"a": tree}, BLOCK)
    monkeypatch.setattr(file_tree, "MAX_PATH_ELEMENTS", 4)
    two: Value = {b"a": {b"b": _leaf(0), b"c": _leaf(0)}}
    read_file_tree(two, BLOCK)
    with pytest.raises(MetainfoError, match="more than 4 path elements"):
        read_file_tree({b"a": two}, BLOCK)
    for more in (_leaf(0), {b"e": _leaf(0)}):
        tree = {b"a": {b"b": _leaf(0), b"c": _leaf(0)}, b"d": more}
        with pytest.raises(MetainfoError, match="more than 4 path elements"):
            read_file_tree(tree, BLOCK)


def test_the_paths_of_a_wide_folder_far_down_are_not_made_to_be_refused() -> None:
    """They took 200 MB, all at once, before the first of them was counted."""
    num_files, depth = 60_000, 90
    tree: Value = dict.fromkeys((b"%d" % number for number in range(num_files)), _leaf(0))
    for _ in range(depth):
        tree = {b"a": tree}
    tracemalloc.start()
    try:
        with pytest.raises(MetainfoError, match="more than 5000000 path elements"):
            read_file_tree(tree, BLOCK)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_places_in_errors_are_cut_and_escaped() -> None:
    with pytest.raises(MetainfoError) as caught:
        read_file_tree({"\u202e".encode(): {b"x" * 500: {b"\x1b[2J": 5}}}, BLOCK)
    assert str(caught.value) == f"file tree '{'x' * 75}/\\x1b[2J': no dictionary"


def _entry(path: str, length: int, offset: int, root: bytes | None = None) -> FileEntry:
    return FileEntry(tuple(path.split("/")), length, offset, pieces_root=root)


def _pad(length: int, offset: int) -> FileEntry:
    return FileEntry((".pad", str(length)), length, offset, is_pad=True)


TREE = (
    _entry("a", 10, 0, b"1" * 32),
    _entry("b", 0, BLOCK),
    _entry("c/d", BLOCK, BLOCK, b"2" * 32),
    _entry("e", 5, 2 * BLOCK, b"3" * 32),
    _entry("f", 0, 3 * BLOCK),
)
LISTED = (
    _entry("a", 10, 0),
    _entry("b", 0, 10),
    _pad(BLOCK - 10, 10),
    _entry("c/d", BLOCK, BLOCK),
    _entry("e", 5, 2 * BLOCK),
    _entry("f", 0, 2 * BLOCK + 5),
)


class TestMerge:
    def test_the_list_gets_the_roots(self) -> None:
        merged = merge_file_lists(LISTED, TREE, BLOCK)
        assert [(entry.path, entry.offset, entry.is_pad) for entry in merged] == [
            (entry.path, entry.offset, entry.is_pad) for entry in LISTED
        ]
        assert [entry.pieces_root and entry.pieces_root[:1] for entry in merged] == [
            b"1", None, None, b"2", b"3", None,
        ]  # fmt: skip

    def test_a_pad_at_the_end_is_optional_but_must_fit(self) -> None:
        end = 2 * BLOCK + 5
        merge_file_lists((*LISTED, _pad(BLOCK - 5, end)), TREE, BLOCK)
        for length in (1, BLOCK - 6, BLOCK - 4, 2 * BLOCK - 5):
            with pytest.raises(MetainfoError, match=f"a pad of {length} bytes"):
                merge_file_lists((*LISTED, _pad(length, end)), TREE, BLOCK)

    def test_empty_files_may_stand_anywhere_in_the_space(self) -> None:
        listed = (LISTED[0], LISTED[2], _entry("b", 0, BLOCK), *LISTED[3:])
        assert len(merge_file_lists(listed, TREE, BLOCK)) == 6

    def test_the_name_of_a_pad_makes_none_of_a_file_of_the_tree(self) -> None:
        """Old clients wrote pads to disk, where they were found by whoever made a new torrent."""
        name = "_____padding_file_0_"
        tree = (_entry(name, 10, 0, b"1" * 32), _entry("c", 1, BLOCK, b"2" * 32))
        named = replace(_entry(name, 10, 0), is_pad=True)
        listed = (named, _pad(BLOCK - 10, 10), _entry("c", 1, BLOCK))
        merged = merge_file_lists(listed, tree, BLOCK)
        assert [entry.is_pad for entry in merged] == [False, True, False]
        assert merged[0].pieces_root == b"1" * 32
        fill = replace(_entry(name, BLOCK - 10, 10), is_pad=True)
        merged = merge_file_lists((*LISTED[:2], fill, *LISTED[3:]), TREE, BLOCK)
        assert [entry.is_pad for entry in merged] == [entry.is_pad for entry in LISTED]

    def test_only_empty_files(self) -> None:
        only = (_entry("b", 0, 0),)
        assert merge_file_lists(only, only, BLOCK) == only


def test_zoo() -> None:
    for case in GROUPS["file_tree"]:
        case.check()
