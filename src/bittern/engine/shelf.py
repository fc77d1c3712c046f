"""
What a torrent is called and made of, kept small while it rests.

A torrent that has nothing to do puts its metainfo away: the hashes of its
pieces and the names of its files are on disk already, in the state folder, and
are read again when somebody asks. What remains is one small object.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bittern.codec.fingerprints import fingerprints
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.errors import MetainfoError
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.storage.hashing import PieceHashes

_MARK_LENGTH: Final = 8
"""Bytes of a fingerprint that are kept: two different ones share them by chance never."""

_FEW_MARKS: Final = 2
"""A file has one for each half of its torrent; so few are found sooner one by one."""


class Shelf:
    """
    The identity of one torrent, and its metainfo while that is in use.

    Args:
        source: metainfo, or a magnet link while it is unknown.
    """

    __slots__ = (
        "_lengths",
        "_marks",
        "_metainfo",
        "_path",
        "info_hash",
        "info_hash_v2",
        "is_private",
        "magnet",
        "name",
        "num_pieces",
        "total_length",
    )

    def __init__(self, source: Metainfo | Magnet) -> None:
        self._metainfo: Metainfo | None = None
        self._path: str | None = None  # a tenth of the memory of a Path
        self._marks = b""
        self._lengths: dict[int, int] | None = None
        self.magnet: Magnet | None = None
        self.is_private: bool = False
        self.num_pieces: int = 0
        self.total_length: int = 0
        if isinstance(source, Metainfo):
            self.put(source)
        else:
            self.magnet = source
            self.name: str = source.name or str(source.wire_hash)
            self.info_hash: InfoHash | None = source.info_hash
            self.info_hash_v2: InfoHashV2 | None = source.info_hash_v2

    def put(self, metainfo: Metainfo) -> None:
        """Take metainfo, the first or one that was put away."""
        info = metainfo.info
        self._metainfo = metainfo
        self._lengths = None
        self.name = info.name
        self.info_hash = info.info_hash
        self.info_hash_v2 = info.info_hash_v2
        self.is_private = info.is_private
        self.num_pieces = info.geometry.num_pieces
        self.total_length = info.geometry.total_length
        if not self._marks:
            found = (name for index in range(len(info.files)) for name in fingerprints(info, index))
            self._marks = b"".join([name[:_MARK_LENGTH] for name in found])

    @staticmethod
    def marks_of(names: Iterable[bytes]) -> frozenset[bytes]:
        """Return what ``may_hold`` takes for fingerprints of files; made once for many torrents."""
        return frozenset(name[:_MARK_LENGTH] for name in names)

    def may_hold(self, marks: frozenset[bytes]) -> bool:
        """Tell whether a file with one of some fingerprints may be in it, without its metainfo."""
        ours, length = self._marks, _MARK_LENGTH
        if len(marks) <= _FEW_MARKS:
            # Asked for each file that another torrent completes.
            return any(_is_entry(ours, mark) for mark in marks)
        return any(ours[at : at + length] in marks for at in range(0, len(ours), length))

    @property
    def v2_hash(self) -> InfoHash | None:
        """The v2 hash as it stands in handshakes, cut to 20 bytes; None without one."""
        return None if self.info_hash_v2 is None else self.info_hash_v2.truncated

    @property
    def has_metainfo(self) -> bool:
        """True when the metadata is known, here or on disk."""
        return self._metainfo is not None or self._path is not None

    @property
    def all_hashes(self) -> tuple[InfoHash, ...]:
        """Every 20-byte hash that handshakes may name, ours first (BEP 52)."""
        v1, v2 = self.info_hash, self.info_hash_v2
        hashes = () if v1 is None else (v1,)
        return hashes if v2 is None else (*hashes, v2.truncated)

    def length_of(self, bits: int) -> int:
        """
        Return the bytes of a set of pieces, given as the bits of a ``Bitfield``.

        If the metainfo was put away, and then could not be read, they are estimated.
        """
        if bits.bit_count() == self.num_pieces:
            return self.total_length
        if not bits:
            return 0
        if self._metainfo is not None:
            return self._metainfo.info.geometry.total_of(bits)
        # At rest the same sets are asked for over and over, and not read from disk each time.
        if self._lengths is None:
            self._lengths = {}
        if bits not in self._lengths:
            self._lengths[bits] = self._read_length(bits)
        return self._lengths[bits]

    def _read_length(self, bits: int) -> int:
        try:
            return self.metainfo().info.geometry.total_of(bits)
        except MetainfoError:
            return max(1, self.total_length * bits.bit_count() // self.num_pieces)

    def metainfo(self) -> Metainfo:
        """
        Return the metainfo, read from disk if it was put away.

        Raises:
            MetainfoError: it is not known yet, or the file has gone or is another's.
        """
        if self._metainfo is None:
            if self._path is None:
                raise MetainfoError("the metadata of this torrent is not known yet")
            try:
                found = decode_metainfo(Path(self._path).read_bytes())
            except OSError as error:
                raise MetainfoError(f"{self._path}: {error.strerror}") from error
            if (found.info.info_hash, found.info.info_hash_v2) != (
                self.info_hash,
                self.info_hash_v2,
            ):
                raise MetainfoError(f"{self._path}: not the torrent that was kept there")
            return found
        return self._metainfo

    def put_away(self, path: Path) -> None:
        """
        Drop the metainfo from memory; ``path`` holds it and is read when it is asked for.

        One without its piece layers, as from a magnet link, makes no .torrent file, so it stays;
        so does one that could not be kept, because it is too long (P6) or the disk is full. What
        is kept there must be all of it.
        """
        found = self._metainfo
        if found is not None and (
            not path.is_file() or PieceHashes(found.info, found.piece_layers).missing_layers()
        ):
            return
        self._metainfo = None
        self._path = str(path)

    def take(self) -> Metainfo:
        """Read the metainfo back into memory and return it; MetainfoError as ``metainfo``."""
        self.put(self.metainfo())
        return self.metainfo()


def _is_entry(marks: bytes, mark: bytes) -> bool:
    """Tell whether a mark is among others that stand end to end."""
    at = marks.find(mark)
    while at % _MARK_LENGTH and at >= 0:
        at = marks.find(mark, at + 1)
    return at >= 0
