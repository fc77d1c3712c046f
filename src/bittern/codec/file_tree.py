"""
The v2 file tree, and its comparison with the v1 list of a hybrid.

A tree is dictionaries in dictionaries; a dictionary with the empty key is a
file. In the piece space each file starts at the next multiple of the piece
length, in the order of the tree, which is that of the sorted keys.

Source: BEP 52 (file tree, upgrade path), BEP 47 (attributes).
"""

from __future__ import annotations

from dataclasses import replace

from bittern.codec.bencode import Value
from bittern.codec.file_list import (
    MAX_PATH_DEPTH,
    MAX_TOTAL_LENGTH,
    FileEntry,
    is_named_pad,
    read_attributes,
    text_from,
)
from bittern.core.errors import MetainfoError

MAX_PATH_ELEMENTS = 5_000_000
"""
Limit: P2. Path elements of all files together.

A tree names a folder once, our paths name it for every file below it.
"""

_ROOT_LENGTH = 32
_ZERO_ROOT = bytes(_ROOT_LENGTH)


def read_file_tree(value: Value | None, piece_length: int) -> tuple[FileEntry, ...]:
    """
    Read the ``file tree`` of an info dictionary.

    Args:
        value: the decoded tree, its keys sorted.
        piece_length: bytes of a piece, to which files are aligned.

    Returns:
        The files in the order of the tree, one at least.

    Raises:
        MetainfoError: no such tree, or a limit was exceeded.

    Source: BEP 52.
    """
    if not isinstance(value, dict):
        problem = "missing" if value is None else "no dictionary"
        raise MetainfoError(f"info: 'file tree' is {problem}")
    files: list[FileEntry] = []
    offset = 0
    num_elements = 0
    stack: list[tuple[tuple[str, ...], Value]] = [((), value)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            raise MetainfoError(f"file tree {_place(path)}: no dictionary")
        leaf = node.get(b"")
        if leaf is None:
            if len(path) >= MAX_PATH_DEPTH:
                raise MetainfoError(f"file tree: a path has more than {MAX_PATH_DEPTH} elements")
            # Before the paths are made, not when their files are reached.
            if num_elements + len(node) * (len(path) + 1) > MAX_PATH_ELEMENTS:
                raise _too_many_elements()
            stack.extend([((*path, text_from(key)), node[key]) for key in reversed(node)])
            continue
        if not path:
            raise MetainfoError("file tree: the root is a file")
        if len(node) != 1:
            raise MetainfoError(f"file tree {_place(path)}: both a file and a folder")
        try:
            entry = _read_leaf(leaf, path, offset)
        except MetainfoError as error:
            raise MetainfoError(f"file tree {_place(path)}: {error}") from None
        files.append(entry)
        num_elements += len(path)
        if num_elements > MAX_PATH_ELEMENTS:
            raise _too_many_elements()
        offset += -(-entry.length // piece_length) * piece_length
        if offset > MAX_TOTAL_LENGTH:
            raise MetainfoError("file tree: the files are longer than 2^48 - 1 bytes")
    if not files:
        raise MetainfoError("file tree: no files")
    return tuple(files)


def _too_many_elements() -> MetainfoError:
    return MetainfoError(f"file tree: more than {MAX_PATH_ELEMENTS} path elements")


def _place(path: tuple[str, ...]) -> str:
    return ascii("/".join(path)[-80:])


def _read_leaf(leaf: Value, path: tuple[str, ...], offset: int) -> FileEntry:
    if not isinstance(leaf, dict):
        raise MetainfoError("no dictionary")
    entry = read_attributes(leaf, path, offset)
    if entry.is_pad:
        raise MetainfoError("a pad, which v2 does not have")
    root = leaf.get(b"pieces root")
    if root is None:
        if entry.length:
            raise MetainfoError("'pieces root' is missing")
        return entry
    if not isinstance(root, bytes) or len(root) != _ROOT_LENGTH:
        raise MetainfoError("'pieces root' is no string of 32 bytes")
    if not entry.length:
        raise MetainfoError("an empty file has a 'pieces root'")
    if root == _ZERO_ROOT:
        raise MetainfoError("'pieces root' is all zeros")
    return entry.placed(offset, root)


def merge_file_lists(
    listed: tuple[FileEntry, ...], tree: tuple[FileEntry, ...], piece_length: int
) -> tuple[FileEntry, ...]:
    """
    Check that both halves of a hybrid describe the same bytes, and join them.

    Returns:
        The v1 list, pads included, with the ``pieces_root`` of the v2 tree.

    Raises:
        MetainfoError: they differ in a name, a length, the order or a position, or a pad is
            not what fills a piece up.

    Source: BEP 52 (upgrade path): "they must validate that the content (file names,
    order, piece alignment) is identical".
    """
    merged: list[FileEntry] = []
    num_found = 0
    for index, entry in enumerate(listed):
        twin = tree[num_found] if num_found < len(tree) else None
        if entry.is_pad:
            if twin is None or twin.path != entry.path or not is_named_pad(entry):
                _check_pad(index, entry, piece_length)
                merged.append(entry)
                continue
            entry = replace(entry, is_pad=False)
        num_found += 1
        if twin is None:
            raise MetainfoError(f"files[{index}]: not in the file tree")
        if entry.path != twin.path:
            ours, theirs = _place(entry.path), _place(twin.path)
            if ours == theirs:  # a name with a slash in it, or a difference further in front
                ours, theirs = (f"a path of {len(each.path)}" for each in (entry, twin))
            raise MetainfoError(f"files[{index}]: {ours}, but the file tree has {theirs}")
        if entry.length != twin.length or entry.symlink_target != twin.symlink_target:
            raise MetainfoError(f"files[{index}]: differs from the file tree")
        if entry.length and entry.offset != twin.offset:
            raise MetainfoError(
                f"files[{index}]: starts at {entry.offset}, but in the file tree at {twin.offset}"
            )
        merged.append(entry.placed(entry.offset, twin.pieces_root))
    if num_found < len(tree):
        raise MetainfoError(f"file tree {_place(tree[num_found].path)}: not in 'files'")
    return tuple(merged)


def _check_pad(index: int, entry: FileEntry, piece_length: int) -> None:
    """Refuse a pad that is not one whole gap; the last one may be left out altogether."""
    lack = -entry.offset % piece_length
    if entry.length != lack or not lack:
        raise MetainfoError(
            f"files[{index}]: a pad of {entry.length} bytes, where {lack} fill the piece up"
        )
