"""
Content of any size and the .torrent for it, made without any code of bittern.

Digests are kept instead of a second copy, so that a torrent of gigabytes costs its bytes once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bencode2 import bencode

KIB, MIB = 1 << 10, 1 << 20
NAME = "content"


@dataclass(frozen=True)
class Content:
    """A torrent with its files; ``digests`` are theirs, by path below the torrent's folder."""

    torrent: Path
    folder: Path
    digests: dict[Path, bytes]

    def differences(self, folder: Path) -> list[Path]:
        """Return the files of a download that are not there, wrong, or too many."""
        found = {
            path.relative_to(folder / NAME): path
            for path in [folder / NAME, *(folder / NAME).rglob("*")]
            if path.is_file()
        }
        return sorted(
            name
            for name in {*found, *self.digests}
            if name not in found or name not in self.digests or not self._is_equal(name, found)
        )

    def _is_equal(self, name: Path, found: dict[Path, Path]) -> bool:
        return digest_of(found[name]) == self.digests[name]


def digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def make_content(root: Path, lengths: dict[str, int], *, piece_length: int) -> Content:
    """
    Make files and a .torrent for them, without any code of bittern.

    Args:
        lengths: of files by path; one with the path "" is the whole torrent.
    """
    folder = root / "content"
    dice = random.Random(f"{lengths.keys()} {piece_length}")
    digests: dict[Path, bytes] = {}
    hasher = PieceHasher(piece_length)
    for name, length in lengths.items():
        path = folder / NAME / name if name else folder / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as out:
            for data in random_data(dice, length):
                out.write(data)
                digest.update(data)
                hasher.feed(data)
        digests[Path(name)] = digest.digest()
    info: dict[str, object] = {
        "name": NAME,
        "piece length": piece_length,
        "pieces": hasher.finish(),
    }
    if "" in lengths:
        info["length"] = lengths[""]
    else:
        info["files"] = [
            {"length": length, "path": name.split("/")} for name, length in lengths.items()
        ]
    torrent = root / "content.torrent"
    torrent.write_bytes(bencode({"info": info}))
    return Content(torrent, folder, digests)


def random_data(dice: random.Random, length: int) -> Iterator[bytes]:
    """Yield bytes of which no two blocks are equal, quickly."""
    step = MIB
    base = dice.randbytes(min(length, step))
    for at in range(0, length, step):
        mark = at.to_bytes(8, "big") + dice.randbytes(8)
        block = bytearray(base[: min(step, length - at)])
        for begin in range(0, len(block) - 16, 16 * KIB):
            block[begin : begin + 16] = mark
        yield bytes(block)


class PieceHasher:
    """SHA-1 of each piece of a stream of bytes."""

    def __init__(self, piece_length: int) -> None:
        self._piece_length = piece_length
        self._hasher = hashlib.sha1()
        self._num_bytes = 0
        self._digests: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: self._piece_length - self._num_bytes]
            self._hasher.update(part)
            self._num_bytes += len(part)
            view = view[len(part) :]
            if self._num_bytes == self._piece_length:
                self._end_piece()

    def _end_piece(self) -> None:
        self._digests.append(self._hasher.digest())
        self._hasher, self._num_bytes = hashlib.sha1(), 0

    def finish(self) -> bytes:
        """Return all digests, the last one of a piece that may be short."""
        if self._num_bytes:
            self._end_piece()
        return b"".join(self._digests)
