"""
A torrent's content: where its bytes lie and what they must hash to.

Made from metainfo and settings when a torrent wakes up, dropped when it rests.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.codec.info import Info
from bittern.codec.metainfo import Metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import ConfigError, MetainfoError
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.storage.file_paths import Folding, paths_of
from bittern.storage.files import FileStorage
from bittern.storage.handles import HandleCache
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.system import OsCalls


@dataclass(slots=True)
class Content:
    """Layout, storage and hashes of one torrent."""

    layout: Layout
    storage: FileStorage
    hashes: PieceHashes
    paths: list[tuple[str, ...]]
    """Paths of the files below the output folder, by index; () for a pad."""

    @property
    def is_started(self) -> bool:
        """True when there is something on disk that may be data of this torrent."""
        for index, entry in enumerate(self.layout.files):
            if entry.length and not entry.is_pad:
                stamp = self.storage.stat_file(index)
                if stamp is not None and stamp.length:
                    return True
        return False

    def has_more_layers(self, metainfo: Metainfo) -> bool:
        """Tell whether all piece layers are known now, and the metainfo lacks some."""
        is_whole = not self.hashes.missing_layers()
        return is_whole and len(self.hashes.piece_layers) > len(metainfo.piece_layers)


def open_content(
    metainfo: Metainfo,
    config: TorrentConfig,
    session_config: SessionConfig,
    handles: HandleCache,
    *,
    folding: Folding,
    os_calls: OsCalls | None = None,
) -> Content:
    """
    Work out where a torrent's files are; touches no file.

    Args:
        metainfo: of the torrent.
        config: says the output folder, or exactly the file or folder.
        session_config: says how files are made.
        handles: the session's open files.
        folding: which names the volume takes for the same (P10).
        os_calls: the operating system under the files.

    Raises:
        UnsafePath: a path cannot be made safe.
        MetainfoError: a v2 torrent lacks the hashes of its pieces.
    """
    info = metainfo.info
    hashes = PieceHashes(info, metainfo.piece_layers)
    if not info.has_v1 and hashes.missing_layers():
        raise MetainfoError("the piece hashes of this v2 torrent are not known; use its .torrent")
    layout = Layout(info.files, info.geometry)
    paths = paths_of(info, folding)
    root = config.output
    if config.data_path is not None:
        data_path = config.data_path.absolute()
        root = data_path.parent
        paths = [(data_path.name, *path[1:]) if path else () for path in paths]
    storage = FileStorage(
        layout,
        root,
        paths,
        part_suffix=session_config.part_suffix,
        preallocate=session_config.preallocate,
        handles=handles,
        os_calls=os_calls,
    )
    return Content(layout, storage, hashes, paths)


def wanted_priorities(layout: Layout, num_pieces: int, files: frozenset[int] | None) -> list[int]:
    """Return the priority of each piece: 4 where it holds a wanted byte, else 0."""
    if files is None:
        return [4] * num_pieces
    priorities = [0] * num_pieces
    for number in files:
        for index in layout.pieces_of_file(number):
            priorities[index] = 4
    return priorities


def check_files(files: frozenset[int] | None, info: Info) -> frozenset[int] | None:
    """Return a choice of files, None for all, if the torrent has them; else ConfigError."""
    num_files = len(info.files)
    for index in files or ():
        if not 0 <= index < num_files:
            raise ConfigError(f"there is no file {index}: the torrent has {num_files}")
    return files


def bits_of_files(info: Info, files: frozenset[int] | None) -> int:
    """Return the pieces of wanted files as bits of a ``Bitfield``; None is for all files."""
    num_pieces = info.geometry.num_pieces
    priorities = wanted_priorities(Layout(info.files, info.geometry), num_pieces, files)
    return Bitfield.of(num_pieces, (i for i, level in enumerate(priorities) if level)).bits
