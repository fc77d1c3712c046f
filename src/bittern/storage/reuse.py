"""
Taking files of a torrent from where they are already, after verifying them.

A candidate is hashed, all of it, before anything is written; only one that is
the file from its first to its last byte is taken, and only if it did not change
meanwhile. In v2 and hybrid torrents a file owns its pieces, so its hashes say
all. In v1 torrents files share pieces: there the pieces wholly inside a file
decide, those at its borders are hashed once it is in place, and a file without
a piece of its own is taken only together with its neighbours.

Source: BEP 52 (a root names a file, whatever torrent it is in). Limit: P13.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bittern.core.bitfield import Bitfield
from bittern.core.geometry import Geometry
from bittern.storage.adopt import ReuseHow, is_same_file, stamp_of
from bittern.storage.checker import check_pieces
from bittern.storage.donors import MAX_DONORS, DonorStorage, find_by_length, is_readable
from bittern.storage.files import FileStorage
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.system import OsCalls

log: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reused:
    """A file that was taken from elsewhere."""

    index: int
    source: Path
    how: ReuseHow


@dataclass(frozen=True, slots=True)
class ReuseResult:
    """What was taken: the files, and the pieces that are there now, as bits of a ``Bitfield``."""

    files: tuple[Reused, ...]
    have: int


class Reuse:
    """
    One attempt to find a torrent's missing files elsewhere; for the storage worker.

    Args:
        storage: of the torrent, its folder made.
        geometry: of the torrent.
        hashes: of the torrent; files whose hashes are not known yet are left alone.
        how: how a file gets its second place.
        calls: the operating system.
        num_threads: that hash; None for one per core.
        is_stopped: asked between pieces; True ends it early.
    """

    def __init__(
        self,
        storage: FileStorage,
        geometry: Geometry,
        hashes: PieceHashes,
        *,
        how: ReuseHow = ReuseHow.COPY,
        calls: OsCalls | None = None,
        num_threads: int | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._storage = storage
        self._layout: Layout = storage.layout
        self._geometry = geometry
        self._hashes = hashes
        self._how = how
        self._calls = calls or OsCalls()
        self._num_threads = num_threads
        self._is_stopped = is_stopped

    def lacking(self, have: int, wanted: Collection[int] | None) -> list[int]:
        """Return the wanted files that are not all there and could be verified."""
        bits = Bitfield(self._geometry.num_pieces, have)
        found: list[int] = []
        if bits.is_full:  # the usual start of a seed, of which there may be thousands
            return found
        for index, entry in enumerate(self._layout.files):
            if not entry.length or not self._layout.is_stored(index):
                continue
            if wanted is not None and index not in wanted:
                continue
            pieces = self._layout.pieces_of_file(index)
            if self._hashes.can_judge(pieces[0]) and not all(piece in bits for piece in pieces):
                found.append(index)
        return found

    def take(
        self,
        have: int,
        *,
        wanted: Collection[int] | None = None,
        folders: Iterable[Path] = (),
        known: Mapping[int, Sequence[Path]] | None = None,
    ) -> ReuseResult:
        """
        Find, verify and take what can be had.

        Args:
            have: the pieces that are there, as bits of a ``Bitfield``.
            wanted: indices of files; None for all.
            folders: to look through for files of the right length.
            known: by index, paths that are likely to be the file; tried first.

        Returns:
            The files taken, and ``have`` with their pieces. A candidate that cannot be
            read is no candidate.

        Raises:
            StorageError: our own side cannot be written.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        lacking = self.lacking(have, wanted)
        candidates = self._candidates(lacking, folders, known or {})
        taken: list[Reused] = []
        while candidates and not self._is_stopped():
            round_ = {index: paths.pop(0) for index, paths in candidates.items()}
            stamps = {index: stamp_of(path, self._calls) for index, path in round_.items()}
            good = self._verify(round_)
            whole = self._whole_files(round_, good)
            for index, is_certain in whole.items():
                how = self._how if is_certain else ReuseHow.COPY
                stamp = stamps[index]
                made = stamp and self._storage.adopt(index, round_[index], how, stamp=stamp)
                if made is None:
                    log.info("%s changed while it was hashed; it is not taken", round_[index])
                    continue
                taken.append(Reused(index, round_[index], made))
                have |= self._inner(index, good)
                candidates[index].clear()
            have |= self._check_borders([each.index for each in taken], have)
            candidates = {index: paths for index, paths in candidates.items() if paths}
        self._finish([each.index for each in taken], Bitfield(self._geometry.num_pieces, have))
        return ReuseResult(tuple(taken), have)

    def _finish(self, indices: Iterable[int], have: Bitfield) -> None:
        for index in indices:
            if all(piece in have for piece in self._layout.pieces_of_file(index)):
                self._storage.finish_file(index)

    def _candidates(
        self, lacking: Sequence[int], folders: Iterable[Path], known: Mapping[int, Sequence[Path]]
    ) -> dict[int, list[Path]]:
        by_length = find_by_length(folders, {self._layout.files[i].length for i in lacking})
        found: dict[int, list[Path]] = {}
        for index in lacking:
            entry = self._layout.files[index]
            name = entry.path[-1] if entry.path else ""
            others = sorted(by_length.get(entry.length, ()), key=lambda path: path.name != name)
            paths = [
                path
                for path in dict.fromkeys((*known.get(index, ()), *others))
                if not is_same_file(path, self._storage.path_of(index))
                and is_readable(path, entry.length, self._calls)
            ]
            if paths:
                found[index] = paths[:MAX_DONORS]
        return found

    def _verify(self, donors: Mapping[int, Path]) -> Bitfield:
        """Return the pieces that are good where every donor stands for its file."""
        view = DonorStorage(self._layout, donors, self._calls)
        try:
            likely = {
                index for index in donors if all(self._is_good(view, p) for p in self._probe(index))
            }
            pieces = sorted({p for index in likely for p in self._layout.pieces_of_file(index)})
            return check_pieces(
                view,
                self._layout,
                self._geometry,
                self._hashes,
                pieces=pieces,
                num_threads=self._num_threads,
                is_stopped=self._is_stopped,
            ).have
        finally:
            view.close()

    def _probe(self, index: int) -> range:
        """Return one piece that tells most files of the same length apart, or none."""
        inner = self._inner_range(index)
        return inner[:1] if len(inner) > 1 else range(0)

    def _is_good(self, view: DonorStorage, piece: int) -> bool:
        result = check_pieces(
            view, self._layout, self._geometry, self._hashes, pieces=[piece], num_threads=1
        )
        return piece in result.have

    def _inner_range(self, index: int) -> range:
        """Return the pieces that hold bytes of this file and of no other."""
        pieces = self._layout.pieces_of_file(index)
        first, last = pieces[0], pieces[-1]
        if len(self._layout.files_of_piece(last)) > 1:
            last -= 1
        if first <= last and len(self._layout.files_of_piece(first)) > 1:
            first += 1
        return range(first, last + 1)

    def _whole_files(self, donors: Mapping[int, Path], good: Bitfield) -> dict[int, bool]:
        """Return the files whose donors are right, and whether every byte of each was hashed."""
        found = {}
        for index in donors:
            inner = self._inner_range(index)
            is_certain = all(p in good for p in self._layout.pieces_of_file(index))
            if is_certain or (inner and all(p in good for p in inner)):
                found[index] = is_certain
        return found

    def _inner(self, index: int, good: Bitfield) -> int:
        """Return, as bits, what a donor has proven: its own pieces."""
        inner = (piece for piece in self._inner_range(index) if piece in good)
        return Bitfield.of(self._geometry.num_pieces, inner).bits

    def _check_borders(self, indices: Iterable[int], have: int) -> int:
        """Hash the pieces that files share, now that the files are in place."""
        bits = Bitfield(self._geometry.num_pieces, have)
        pieces = {piece for index in indices for piece in self._layout.pieces_of_file(index)}
        unknown = sorted(piece for piece in pieces if piece not in bits)
        if not unknown:
            return 0
        return check_pieces(
            self._storage,
            self._layout,
            self._geometry,
            self._hashes,
            pieces=unknown,
            num_threads=self._num_threads,
            is_stopped=self._is_stopped,
        ).have.bits
