"""
The info dictionary: what a torrent is, and what its info hash covers.

A v1 dictionary lists files and SHA-1s of pieces, a v2 dictionary has a tree of
files, each with the root of its own hash tree, and a hybrid has both, which
must describe the same bytes at the same places.

The bytes as they came are kept and hashed; nothing is ever encoded anew. Old
v1 torrents with unsorted keys are tolerated for that reason; where BEP 52
applies the keys must be sorted.

Source: BEP 3, BEP 27 (private), BEP 52 (v2, hybrid).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

from bittern.codec.bencode import METAINFO_LIMITS, Value, decode_with_order
from bittern.codec.file_list import (
    FileEntry,
    read_file_list,
    read_name,
    read_single_file,
    text_from,
)
from bittern.codec.file_tree import merge_file_lists, read_file_tree
from bittern.core.errors import BencodeDecodeError, MetainfoError
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, InfoHashV2

MAX_PIECES = 2_097_152
"""Limit: P7. As in libtorrent."""

MAX_PIECE_LENGTH = 512 << 20
"""Limit: P7. Bytes; libtorrent's is 16 KiB shorter, and rTorrent has the same."""

_HASH_LENGTH = 20
_NO_PIECES = "info: 'pieces' is missing"


class Version(Enum):
    """Which of the two formats a torrent has."""

    V1 = "1"
    V2 = "2"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Info:
    """
    A checked info dictionary.

    Args:
        raw: its bytes as they came.
        name: suggested name of the file or folder, as the torrent has it: unsafe. The info
            hash in hexadecimal when the torrent's is empty.
        version: v1, v2 or hybrid.
        piece_length: bytes of a piece.
        files: in the order of the piece space, pads included; one at least.
        is_single_file: the one file stands for itself, without a folder.
        info_hash: SHA-1 of ``raw``; None when v2 only.
        info_hash_v2: SHA-256 of ``raw``; None when v1 only.
        pieces: SHA-1 of each piece, end to end; empty when v2 only.
        is_private: peers come from the trackers only (BEP 27).
        source: a mark that private trackers add so that the hash differs.
        geometry: sizes of pieces and blocks.
    """

    raw: bytes
    name: str
    version: Version
    piece_length: int
    files: tuple[FileEntry, ...]
    is_single_file: bool
    info_hash: InfoHash | None
    info_hash_v2: InfoHashV2 | None
    pieces: bytes
    is_private: bool
    source: str | None
    geometry: Geometry

    @property
    def wire_hash(self) -> InfoHash:
        """The 20 bytes of handshakes: the v1 hash if there is one, else the v2 hash cut off."""
        if self.info_hash is not None:
            return self.info_hash
        assert self.info_hash_v2 is not None
        return self.info_hash_v2.truncated

    @property
    def all_hashes(self) -> tuple[InfoHash, ...]:
        """Every 20-byte hash under which the torrent is known, ``wire_hash`` first (BEP 52)."""
        if self.info_hash is None or self.info_hash_v2 is None:
            return (self.wire_hash,)
        return (self.info_hash, self.info_hash_v2.truncated)

    @property
    def has_v1(self) -> bool:
        """True when pieces have SHA-1s."""
        return self.version is not Version.V2

    @property
    def has_v2(self) -> bool:
        """True when files have hash trees."""
        return self.version is not Version.V1

    def piece_hash(self, index: int) -> bytes:
        """Return the SHA-1 of piece ``index``; only where ``has_v1``."""
        return self.pieces[index * _HASH_LENGTH : (index + 1) * _HASH_LENGTH]

    def __repr__(self) -> str:
        return f"<Info {self.wire_hash} v{self.version.value}, {len(self.files)} files>"


def decode_info(raw: bytes) -> Info:
    """
    Read an info dictionary, as peers send it for a magnet link.

    The caller compares the hashes with those that it asked for.

    Raises:
        MetainfoError: it is unusable; the text says what and where.

    Source: BEP 3, BEP 9, BEP 52.
    """
    try:
        value, unsorted_at = decode_with_order(raw, limits=METAINFO_LIMITS)
    except BencodeDecodeError as error:
        raise MetainfoError(f"info: {error}") from None
    return build_info(raw, value, unsorted_at)


def build_info(raw: bytes, value: Value, unsorted_at: int) -> Info:
    """
    Check a decoded info dictionary.

    Args:
        raw: its bytes.
        value: what they decode to.
        unsorted_at: offset of its first key out of order, -1 for none.

    Raises:
        MetainfoError: it is unusable.
    """
    if not isinstance(value, dict):
        raise MetainfoError("info: no dictionary")
    version = _read_version(value)
    if version is not Version.V1 and unsorted_at >= 0:
        raise MetainfoError(f"info: keys are not sorted at byte {unsorted_at} (BEP 52)")
    info_hash = None if version is Version.V2 else InfoHash(hashlib.sha1(raw).digest())
    info_hash_v2 = None if version is Version.V1 else InfoHashV2(hashlib.sha256(raw).digest())
    name = read_name(value)
    if name is None:
        raise MetainfoError("info: 'name' is missing")
    name = name or str(info_hash or info_hash_v2)
    piece_length = _read_piece_length(value, version)
    files, is_single_file = _read_files(value, version, name, piece_length)
    num_pieces = -(-(files[-1].offset + files[-1].length) // piece_length)
    if num_pieces > MAX_PIECES:
        raise MetainfoError(f"info: {num_pieces} pieces, more than {MAX_PIECES}")
    pieces = _read_pieces(value, version, num_pieces)
    source = value.get(b"source")
    private = value.get(b"private")
    return Info(
        raw,
        name,
        version,
        piece_length,
        files,
        is_single_file,
        info_hash,
        info_hash_v2,
        pieces,
        isinstance(private, int) and private != 0,
        text_from(source) if isinstance(source, bytes) else None,
        _measure(files, version, piece_length, num_pieces),
    )


def _read_version(info: dict[bytes, Value]) -> Version:
    # BEP 52: this field must be checked first, so that a newer torrent is called that.
    meta_version = info.get(b"meta version")
    if meta_version is None:
        if b"file tree" in info:
            raise MetainfoError("info: 'file tree' without 'meta version'")
        return Version.V1
    if meta_version != 2:
        if isinstance(meta_version, int) and meta_version > 2:
            raise MetainfoError(f"info: 'meta version' {meta_version} is newer than we know")
        raise MetainfoError("info: 'meta version' is not 2")
    return Version.HYBRID if b"files" in info or b"length" in info else Version.V2


def _read_piece_length(info: dict[bytes, Value], version: Version) -> int:
    length = info.get(b"piece length")
    if not isinstance(length, int):
        raise MetainfoError(
            "info: 'piece length' is " + ("missing" if length is None else "no integer")
        )
    if not 1 <= length <= MAX_PIECE_LENGTH:
        raise MetainfoError(f"info: 'piece length' is {length}, not 1 to 512 MiB")
    if version is not Version.V1 and (length < BLOCK_LENGTH or length & (length - 1)):
        raise MetainfoError(
            f"info: 'piece length' is {length}, not a power of two of 16 KiB or more (BEP 52)"
        )
    return length


def _read_files(
    info: dict[bytes, Value], version: Version, name: str, piece_length: int
) -> tuple[tuple[FileEntry, ...], bool]:
    """Return the files, and whether the one file stands for itself."""
    listed: tuple[FileEntry, ...] = ()
    is_single_file = False
    if version is not Version.V2:
        if b"files" not in info:
            listed = (read_single_file(info, name),)
            is_single_file = True
        elif b"length" in info:
            raise MetainfoError("info: both 'files' and 'length'")
        else:
            listed = read_file_list(info[b"files"])
        if version is Version.V1:
            return listed, is_single_file
    tree = read_file_tree(info.get(b"file tree"), piece_length)
    if version is Version.HYBRID:
        return merge_file_lists(listed, tree, piece_length), is_single_file
    return tree, len(tree) == 1 and len(tree[0].path) == 1


def _measure(
    files: tuple[FileEntry, ...], version: Version, piece_length: int, num_pieces: int
) -> Geometry:
    total_length = sum([entry.length for entry in files if not entry.is_pad])
    if version is not Version.V2:
        space_length = files[-1].offset + files[-1].length
        padding = _padding(files, piece_length)
        return Geometry.contiguous(piece_length, space_length, total_length, padding)
    short = {
        (entry.offset + entry.length) // piece_length: entry.length % piece_length
        for entry in files
        if entry.length % piece_length
    }
    return Geometry(piece_length, num_pieces, short, total_length, has_gaps=True)


def _padding(files: tuple[FileEntry, ...], piece_length: int) -> dict[int, int]:
    """Return the bytes of padding in each piece that has some; O(files and pieces) (BEP 47)."""
    found: dict[int, int] = {}
    for entry in files:
        if entry.is_pad:
            at, end = entry.offset, entry.offset + entry.length
            while at < end:
                index = at // piece_length
                until = min(end, (index + 1) * piece_length)
                found[index] = found.get(index, 0) + until - at
                at = until
    return found


def _read_pieces(info: dict[bytes, Value], version: Version, num_pieces: int) -> bytes:
    pieces = info.get(b"pieces")
    if version is Version.V2:
        if pieces is not None:
            raise MetainfoError("info: 'pieces' without 'files' or 'length'")
        return b""
    if not isinstance(pieces, bytes):
        raise MetainfoError(_NO_PIECES if pieces is None else "info: 'pieces' is no string")
    if len(pieces) != num_pieces * _HASH_LENGTH:
        raise MetainfoError(
            f"info: 'pieces' has {len(pieces)} bytes, not 20 for each of {num_pieces} pieces"
        )
    return pieces
