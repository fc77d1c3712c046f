"""
Making info dictionaries: where files lie in the piece space, and the bytes.

The result is byte for byte what libtorrent's ``create_torrent`` makes of the
same files in the same order, since both follow the reference program of BEP 52
where the text leaves a choice: in a hybrid every file that does not end at a
piece boundary is followed by a pad, the last one too, unless it is the only
file. Only pads of one length have paths of their own.

Source: BEP 3, BEP 27, BEP 47 (pads, attributes, symlinks), BEP 52.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bittern.codec.bencode import Encodable, encode
from bittern.codec.file_list import FileEntry, text_to
from bittern.codec.info import Version

_Tree = dict[bytes, Encodable]


def arrange_files(
    files: Sequence[FileEntry], *, version: Version, piece_length: int
) -> tuple[FileEntry, ...]:
    """
    Give files their places in the piece space.

    Args:
        files: in the order wanted, without pads; their offsets are not looked at. v2 and
            hybrid need the order of the file tree, which is that of the paths as lists of
            bytes.
        version: decides about alignment and pads.
        piece_length: bytes of a piece.

    Returns:
        The files with their offsets; for a hybrid with the pads between them.

    Source: BEP 47, BEP 52.
    """
    arranged: list[FileEntry] = []
    num_pads: Counter[int] = Counter()
    offset = 0
    for entry in files:
        arranged.append(entry.placed(offset, entry.pieces_root))
        offset += entry.length
        lack = -offset % piece_length
        if version is Version.V1 or not lack or not entry.length:
            continue
        if version is Version.HYBRID:
            if len(files) == 1:
                continue
            num_pads[lack] += 1
            path = _pad_path(lack, num_pads[lack])
            arranged.append(FileEntry(path, lack, offset, is_pad=True))
        offset += lack
    return tuple(arranged)


def _pad_path(length: int, number: int) -> tuple[str, str]:
    """
    Return the path that BEP 47 recommends, of the second pad of a length on another one.

    Interop: rTorrent 0.9.8 and Transmission 4.1.1 to 4.1.4 refuse a torrent in which a path
    stands twice.
    """
    return ".pad", str(length) if number == 1 else f"{length}-{number}"


def encode_info(
    files: Sequence[FileEntry],
    *,
    name: str,
    version: Version,
    piece_length: int,
    is_single_file: bool = False,
    pieces: bytes = b"",
    is_private: bool = False,
    source: str | None = None,
) -> bytes:
    """
    Write an info dictionary.

    Args:
        files: as ``arrange_files`` gives them; for v2 and hybrid with the ``pieces_root``
            of each file that is not empty.
        name: of the file or folder.
        version: which halves to write.
        piece_length: bytes of a piece.
        is_single_file: ``files`` is one file that stands for itself.
        pieces: SHA-1s end to end; not for v2.
        is_private: peers come from the trackers only (BEP 27).
        source: a mark that makes the info hash another.

    Returns:
        The canonical bytes: the same for the same arguments.
    """
    info: _Tree = {b"name": text_to(name), b"piece length": piece_length}
    if version is not Version.V1:
        info[b"file tree"] = _build_tree(entry for entry in files if not entry.is_pad)
        info[b"meta version"] = 2
    if version is not Version.V2:
        info[b"pieces"] = pieces
        if is_single_file:
            info |= _describe_v1(files[0])
        else:
            info[b"files"] = [
                {**_describe_v1(entry), b"path": _encode_path(entry.path)} for entry in files
            ]
    if is_private:
        info[b"private"] = 1
    if source:
        info[b"source"] = text_to(source)
    return encode(info)


def _encode_path(path: tuple[str, ...]) -> list[bytes]:
    return [text_to(element) for element in path]


def _describe_v1(entry: FileEntry) -> _Tree:
    fields = _attributes(entry)
    fields[b"length"] = entry.length
    return fields


def _attributes(entry: FileEntry) -> _Tree:
    fields: _Tree = {}
    attr = b""
    if entry.is_pad:
        attr += b"p"
    if entry.is_hidden:
        attr += b"h"
    if entry.is_executable:
        attr += b"x"
    if entry.symlink_target is not None:
        attr += b"l"
        fields[b"symlink path"] = _encode_path(entry.symlink_target)
    if attr:
        fields[b"attr"] = attr
    return fields


def _build_tree(files: Iterable[FileEntry]) -> _Tree:
    tree: _Tree = {}
    folders: dict[tuple[str, ...], _Tree] = {(): tree}
    for entry in files:
        leaf = _attributes(entry)
        if entry.symlink_target is None:
            leaf[b"length"] = entry.length
        if entry.length:
            assert entry.pieces_root is not None
            leaf[b"pieces root"] = entry.pieces_root
        folder = _folder_of(entry.path[:-1], folders)
        folder[text_to(entry.path[-1])] = {b"": leaf}
    return tree


def _folder_of(path: tuple[str, ...], folders: dict[tuple[str, ...], _Tree]) -> _Tree:
    """Return the dictionary of a folder, made with those above it where needed."""
    depth = len(path)
    while path[:depth] not in folders:
        depth -= 1
    folder = folders[path[:depth]]
    for end in range(depth + 1, len(path) + 1):
        child: _Tree = {}
        folder[text_to(path[end - 1])] = child
        folder = folders[path[:end]] = child
    return folder
