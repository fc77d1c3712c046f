"""
What names the content of a file, whatever torrent it is in and whatever it is called there.

    half   fingerprint
    v2     the root of its hash tree
    v1     SHA-256 over the length of a piece, that of the file, where in a piece it begins, and
           the hashes of all pieces that lie wholly inside it

Torrents cut differently, or into pieces of other lengths, have no v1 fingerprint in common; nor
has a file without a whole piece of its own. What a v1 fingerprint leaves out are the bytes
before the first whole piece and after the last one, so equal ones are a reason to look and
no proof: whoever takes a file hashes it with his own torrent's hashes.

Sources: BEP 3 (pieces), BEP 52 (pieces root).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from bittern.codec.info import Info

_SHA1_LENGTH: Final = 20


def fingerprints(info: Info, index: int) -> tuple[bytes, ...]:
    """
    Return what names the content of file ``index``: 32 bytes each, one for each half that can.

    Args:
        info: of the torrent.
        index: of the file; padding, links and empty files have no fingerprint.
    """
    entry = info.files[index]
    if entry.is_pad or entry.symlink_target is not None:
        return ()
    found = () if entry.pieces_root is None else (entry.pieces_root,)
    piece_length = info.piece_length
    first, stop = -(-entry.offset // piece_length), (entry.offset + entry.length) // piece_length
    if not info.has_v1 or first >= stop:
        return found
    place = (piece_length, entry.length, entry.offset % piece_length)
    hashed = sha256(b"".join(number.to_bytes(8, "big") for number in place))
    hashed.update(info.pieces[first * _SHA1_LENGTH : stop * _SHA1_LENGTH])
    return (*found, hashed.digest())
