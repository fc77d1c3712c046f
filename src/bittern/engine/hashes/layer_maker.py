"""
Piece layers of a hybrid from its own data, where nobody else brings them.

A hybrid that was found by its v1 hash has no piece layers. Peers that speak v2
give them, and verifying its pieces makes them; but pieces that the journal
vouches for are not hashed, and peers may all be v1. So once everything wanted is
there, the files that still lack a layer are read once more.

Source: BEP 52 (upgrade path). Limit: P13.
"""

from __future__ import annotations

from collections.abc import Callable

from bittern.core.errors import Inconsistent, StorageError
from bittern.engine.services import Services
from bittern.policy.picker import Picker
from bittern.storage.base import Storage
from bittern.storage.hash_trees import read_piece_hash
from bittern.storage.hashing import PieceHashes


class LayerMaker:
    """
    The one described in the module's text.

    Args:
        services: of the session.
        hashes: of the torrent; layers are added to it.
        storage: of the torrent.
        picker: knows which pieces we have.
        inconsistent: hears that the data, good by v1, is not that of v2.
    """

    def __init__(
        self,
        services: Services,
        hashes: PieceHashes,
        storage: Storage,
        picker: Picker,
        *,
        inconsistent: Callable[[Inconsistent], None],
    ) -> None:
        self._services = services
        self._hashes = hashes
        self._storage = storage
        self._picker = picker
        self._inconsistent = inconsistent
        self._is_busy = False
        self._is_over = not hashes.missing_layers()

    def tick(self) -> None:
        """Begin with the next file, if it is time; called about once a second."""
        if self._is_over or self._is_busy or not self._picker.is_complete:
            return
        missing = self._hashes.missing_layers()
        self._is_over = not missing
        top, have, length = self._picker.top, self._picker.have, self._hashes.piece_length
        for entry in missing:
            first = entry.offset // length
            pieces = range(first, first + -(-entry.length // length))
            if all(have >> (top - index) & 1 for index in pieces):
                self._make(pieces)
                return

    def _make(self, pieces: range) -> None:
        self._is_busy = True

        def read() -> list[bytes]:
            return [read_piece_hash(self._storage, self._hashes, index) for index in pieces]

        def done(found: list[bytes] | None, error: BaseException | None) -> None:
            self._is_busy = False
            if self._is_over:
                return
            if found is None:
                # Whoever is served from it next will find out what is gone.
                self._is_over = True
                if not isinstance(error, StorageError):
                    assert error is not None
                    raise error
                return
            try:
                for index, top in zip(pieces, found, strict=True):
                    self._hashes.note(index, top)
            except Inconsistent as contradiction:
                self._is_over = True
                self._inconsistent(contradiction)

        self._services.disk.submit(read, done)

    def stop(self) -> None:
        """Take no further part."""
        self._is_over = True
