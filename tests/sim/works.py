"""A few small torrents, of each version, whose bytes are known."""

from __future__ import annotations

import functools
import random
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bittern.codec.info import Version
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.engine.config import TorrentConfig
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.layout import NOT_STORED, Layout

PIECE_LENGTH = 32_768
SUFFIX = ".part"
"""Of files that are not complete, where a session uses one."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A torrent that everybody knows, with its bytes."""

    name: str
    metainfo: Metainfo
    raw: bytes
    files: tuple[bytes, ...]
    """By index; zeros for a pad."""

    @property
    def links(self) -> list[str]:
        """Magnet links with one or all of its hashes."""
        info = self.metainfo.info
        topics = [f"xt=urn:btih:{info.info_hash}"] if info.info_hash else []
        topics += [f"xt=urn:btmh:1220{info.info_hash_v2}"] if info.info_hash_v2 else []
        return [f"magnet:?{topic}" for topic in dict.fromkeys([*topics, "&".join(topics)])]

    def on_web(self, base: str) -> dict[str, bytes]:
        """Return its files by their URLs below that of a web seed."""
        info = self.metainfo.info
        top = () if info.is_single_file else (self.name,)
        return {
            base + "/".join((*top, *entry.path)): data
            for entry, data in zip(info.files, self.files, strict=True)
            if not entry.is_pad
        }

    def paths(self, config: TorrentConfig) -> list[Path | None]:
        """Return where its files are by a torrent's settings; None for a pad."""
        entries = self.metainfo.info.files
        top = () if self.metainfo.info.is_single_file else (self.name,)
        return [
            None
            if entry.is_pad
            else config.output / config.renames.get(index, "/".join((*top, *entry.path)))
            for index, entry in enumerate(entries)
        ]

    def right_pieces(self, config: TorrentConfig) -> int:
        """Return, as bits, the pieces that are on disk byte for byte."""
        info = self.metainfo.info
        found = [
            right if path is None else content_of(path)
            for path, right in zip(self.paths(config), self.files, strict=True)
        ]
        layout = Layout(info.files, info.geometry)
        return Bitfield.of(
            info.geometry.num_pieces,
            (
                index
                for index in range(info.geometry.num_pieces)
                if all(
                    span.file_index == NOT_STORED
                    or found[span.file_index][span.file_offset :][: span.length]
                    == self.files[span.file_index][span.file_offset :][: span.length]
                    for span in layout.spans(index * PIECE_LENGTH, PIECE_LENGTH)
                )
            ),
        ).bits

    def write(self, folder: Path) -> None:
        """Put its files below a folder."""
        for path, data in zip(self.paths(TorrentConfig(output=folder)), self.files, strict=True):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def content_of(path: Path) -> bytes:
    for name in (path, Path(f"{path}{SUFFIX}")):
        with suppress(FileNotFoundError):
            return name.read_bytes()
    return b""


_SHARED = random.Random(7).randbytes(70_000)


@functools.cache
def all_works() -> tuple[Work, ...]:
    """Make the torrents: of each version, of one file and of several, two with one file alike."""
    return (
        _work("solo", {"": 5 * PIECE_LENGTH + 100}, Version.V1),
        _work("many", dict.fromkeys(("a", "b", "c/d", "c/e", "f"), 25_000), Version.V1),
        _work("pair", {"same": -1, "sub/b": 40_000, "void": 0}, Version.V2),
        _work("both", {"same": -1, "b": 66_000}, Version.HYBRID),
    )


def _work(name: str, lengths: dict[str, int], version: Version) -> Work:
    rng = random.Random(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / name
        content = {}
        for path, length in lengths.items():
            file = root / path if path else root
            file.parent.mkdir(parents=True, exist_ok=True)
            content[tuple(path.split("/")) if path else (name,)] = data = (
                _SHARED if length < 0 else rng.randbytes(length)
            )
            file.write_bytes(data)
        options = CreateOptions(piece_length=PIECE_LENGTH, version=version)
        raw = create_torrent(root, options=options, num_threads=1)
    metainfo = decode_metainfo(raw)
    files = tuple(
        bytes(entry.length) if entry.is_pad else content[entry.path]
        for entry in metainfo.info.files
    )
    return Work(name, metainfo, raw, files)
