"""
What is transferred: torrents with their data, made here or taken from webtorrent-fixtures.

The metainfo is written with bencode2 and hashlib and not with bittern, so that a mistake of ours
cannot agree with itself. Only the announce URL is ever changed in a torrent that others made: the
info dictionary, and with it the info hash, stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from bencode2 import bdecode, bencode

from tests.reference import lt

CACHE = Path(
    os.environ.get("BITTERN_INTEROP_CACHE", Path(__file__).parents[2] / ".cache" / "interop")
)
SETUP_HINT = "tests/interop/setup.sh installs it"
FIXTURES = CACHE / "node_modules" / "webtorrent-fixtures" / "fixtures"

# Torrent in webtorrent-fixtures and the data that belongs to it.
FIXTURE_NAMES = {
    "alice": "alice.txt",
    "folder": "folder",
    "leaves": "Leaves of Grass by Walt Whitman.epub",
    # As from a magnet link: nothing but the info dictionary, and an empty list of trackers.
    "leaves-metadata": "Leaves of Grass by Walt Whitman.epub",
    "lots-of-numbers": "lots-of-numbers",
    "numbers": "numbers",
}

_PIECE_LENGTH = 32 * 1024

# Sizes around the block and piece length, so that files begin and end in the middle of both; the
# empty file is one that a client must create without being sent a byte of it. Sorted by path, as
# makers of torrents do.
_FILES = {
    "README": 1,
    "empty": 0,
    "nested/deep/block and one": 16 * 1024 + 1,
    "nested/deep/block but one": 16 * 1024 - 1,
    "nested/odd.bin": 70_001,
    "pieces.bin": 9 * _PIECE_LENGTH + 12_345,
    "tail.bin": 3,
    "\u00fcn\u00efc\u00f6d\u00e9 \u9df9.bin": 1_000_003,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A torrent and the folder that holds its data.

    Attributes:
        name: what the torrent calls its file or folder.
        torrent: the .torrent file.
        data_dir: the folder in which ``name`` lies.
        info_hash: SHA-1 of the info dictionary; of a v2 torrent its SHA-256, cut to 20 bytes.
        files: path below ``data_dir`` and length of every file, in the torrent's order.
    """

    name: str
    torrent: Path
    data_dir: Path
    info_hash: bytes
    files: tuple[tuple[Path, int], ...]
    topics: tuple[str, ...] = ()
    """What a magnet link names; empty for the info hash of v1."""
    pads: tuple[tuple[Path, int], ...] = ()
    """Padding of a hybrid (BEP 47), as ``files``; who knows no padding makes files of it."""

    @property
    def total_length(self) -> int:
        """Bytes of all files."""
        return sum(length for _, length in self.files)

    def announced_at(self, announce: str | None, scratch: Path) -> Sample:
        """
        Return the same torrent with one tracker instead of those it names.

        Args:
            announce: the announce URL, or None for no tracker at all.
            scratch: where the new .torrent file and a private copy of the data are put, since
                some clients open what they seed for writing.
        """
        metainfo = bdecode(self.torrent.read_bytes())
        for key in (b"announce", b"announce-list", b"url-list", b"nodes"):
            metainfo.pop(key, None)
        if announce is not None:
            metainfo[b"announce"] = announce.encode()
        data_dir = scratch / "data"
        source = self.data_dir / self.name
        if source.is_dir():
            shutil.copytree(source, data_dir / self.name)
        else:
            data_dir.mkdir(parents=True)
            shutil.copy(source, data_dir / self.name)
        torrent = scratch / f"{self.torrent.stem}.torrent"
        torrent.write_bytes(bencode(metainfo))
        return replace(self, torrent=torrent, data_dir=data_dir)

    def write_pads(self) -> None:
        """Put the padding into files, for a seed that looks for them."""
        for path, length in self.pads:
            (self.data_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (self.data_dir / path).write_bytes(bytes(length))

    def magnet(self, announce: str | None) -> str:
        """Return a magnet link that names one tracker, or none."""
        trackers = [] if announce is None else [("tr", announce)]
        rest = urlencode([("dn", self.name), *trackers])
        topics = self.topics or (f"urn:btih:{self.info_hash.hex()}",)
        return "magnet:?" + "&".join([*(f"xt={topic}" for topic in topics), rest])

    def differences(self, download_dir: Path, *, ignore_empty: bool = False) -> list[str]:
        """
        Compare every byte of a download.

        Args:
            download_dir: the folder that got the torrent's name.
            ignore_empty: files of length 0 need not be there.

        Returns:
            A line for each thing that is wrong, a file that does not belong there included.
        """
        found = []
        for path, length in self.files:
            copy = download_dir / path
            if not copy.is_file():
                if ignore_empty and length == 0:
                    continue
                found.append(f"{path}: missing")
            elif (copy_bytes := copy.read_bytes()) != (
                original := (self.data_dir / path).read_bytes()
            ):
                found.append(f"{path}: {_first_difference(original, copy_bytes)}")
        expected = {path for path, _ in (*self.files, *self.pads)}
        present = {path.relative_to(download_dir) for path in _files_below(download_dir, self.name)}
        found.extend(f"{path}: not in the torrent" for path in sorted(present - expected))
        return found


def make_sample(directory: Path, *, large_length: int = 0) -> Sample:
    """
    Make a v1 directory torrent of odd-sized files, always with the same bytes.

    Args:
        directory: an empty or absent folder that gets the data and the .torrent file.
        large_length: length of one more file, for a longer transfer; 0 leaves it out.
    """
    name = "interop sample"
    dice = random.Random("interop")
    lengths = dict(sorted({**_FILES, **({"large": large_length} if large_length else {})}.items()))
    for path, length in lengths.items():
        target = directory / "data" / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(dice.randbytes(length))
    data_dir = directory / "data"
    files = tuple((Path(name, path), length) for path, length in lengths.items())
    info = {
        "files": [
            {"length": length, "path": list(path.relative_to(name).parts)} for path, length in files
        ],
        "name": name,
        "piece length": _PIECE_LENGTH,
        "pieces": b"".join(_piece_hashes((data_dir / path for path, _ in files), _PIECE_LENGTH)),
    }
    torrent = directory / "sample.torrent"
    torrent.write_bytes(bencode({"info": info}))
    return Sample(name, torrent, data_dir, _info_hash(torrent), files)


def make_v2_sample(
    directory: Path,
    *,
    is_hybrid: bool,
    single_length: int | None = None,
    piece_length: int = _PIECE_LENGTH,
) -> Sample:
    """
    Make a v2 or hybrid torrent with libtorrent, the one other program here that can.

    Args:
        directory: an empty or absent folder that gets the data and the .torrent file.
        is_hybrid: with the hashes of v1 as well.
        single_length: of one file instead of the folder of ``make_sample``.
        piece_length: a power of two, 16 KiB at least.
    """
    name = "interop sample"
    dice = random.Random("interop")
    data_dir = directory / "data"
    lengths = _FILES if single_length is None else {"": single_length}
    for path, length in lengths.items():
        target = data_dir / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(dice.randbytes(length))
    flags = 0 if is_hybrid else lt.create_torrent.v2_only
    entries = lt.list_files(str(data_dir / name), lambda _: True, flags)
    entries.sort(key=lambda entry: os.fsencode(entry.filename).split(b"/"))
    made = lt.create_torrent(entries, piece_length, flags)
    lt.set_piece_hashes(made, str(data_dir))
    torrent = directory / "sample.torrent"
    torrent.write_bytes(lt.bencode(made.generate()))
    info = bdecode(torrent.read_bytes())[b"info"]
    raw = bencode(info)
    v1, v2 = hashlib.sha1(raw), hashlib.sha256(raw)
    pads = tuple(
        (Path(name, *(part.decode() for part in entry[b"path"])), int(entry[b"length"]))
        for entry in info.get(b"files", [])
        if b"p" in entry.get(b"attr", b"")
    )
    files = tuple((Path(name, path), length) for path, length in lengths.items())
    topics = [f"urn:btih:{v1.hexdigest()}"] * is_hybrid + [f"urn:btmh:1220{v2.hexdigest()}"]
    info_hash = v1.digest() if is_hybrid else v2.digest()[:20]
    return Sample(name, torrent, data_dir, info_hash, files, tuple(topics), pads)


def load_fixture(stem: str) -> Sample:
    """
    Return one torrent of webtorrent-fixtures and its data.

    Args:
        stem: a key of ``FIXTURE_NAMES``.

    Raises:
        FileNotFoundError: the npm package is not installed.
        ValueError: the data does not match the hashes.
    """
    if not FIXTURES.is_dir():
        raise FileNotFoundError(
            f"webtorrent-fixtures is not in {FIXTURES.parents[1]}; {SETUP_HINT}"
        )
    name = FIXTURE_NAMES[stem]
    torrent = FIXTURES / f"{stem}.torrent"
    info = bdecode(torrent.read_bytes())[b"info"]
    if b"files" in info:
        files = tuple(
            (Path(name, *(part.decode() for part in entry[b"path"])), int(entry[b"length"]))
            for entry in info[b"files"]
        )
    else:
        files = ((Path(name), int(info[b"length"])),)
    hashes = _piece_hashes((FIXTURES / path for path, _ in files), info[b"piece length"])
    if b"".join(hashes) != info[b"pieces"] or info[b"name"].decode() != name:
        raise ValueError(f"{torrent} does not describe {name}")
    return Sample(name, torrent, FIXTURES, _info_hash(torrent), files)


def _info_hash(torrent: Path) -> bytes:
    # bencode2 accepts canonical input only, so encoding again gives the bytes that were hashed.
    return hashlib.sha1(bencode(bdecode(torrent.read_bytes())[b"info"])).digest()


def _piece_hashes(paths: Iterable[Path], piece_length: int) -> Iterator[bytes]:
    content = b"".join(path.read_bytes() for path in paths)
    for begin in range(0, len(content), piece_length):
        yield hashlib.sha1(content[begin : begin + piece_length]).digest()


def _files_below(directory: Path, name: str) -> Iterator[Path]:
    return (path for path in (directory / name).rglob("*") if path.is_file())


def _first_difference(original: bytes, copy: bytes) -> str:
    if len(original) != len(copy):
        return f"{len(copy)} bytes instead of {len(original)}"
    offset = next(
        i for i, pair in enumerate(zip(original, copy, strict=True)) if pair[0] != pair[1]
    )
    return f"differs from byte {offset} on"
