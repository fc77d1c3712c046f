"""
A torrent's content: where its bytes lie and what they must hash to.

Made from metainfo and settings when a torrent wakes up, dropped when it rests.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.codec.file_list import last_index
from bittern.codec.info import Info
from bittern.codec.metainfo import Metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import ConfigError, MetainfoError
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.policy.picker import DEFAULT_PRIORITY, DO_NOT_WANT
from bittern.storage.file_paths import Folding, paths_of
from bittern.storage.files import FileStorage
from bittern.storage.handles import HandleCache
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.renaming import renamed_paths
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
        ConfigError: a name that a person has chosen is taken.
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
    paths = renamed_paths(paths, config.renames, folding)
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


def wanted_priorities(layout: Layout, num_pieces: int, config: TorrentConfig) -> list[int]:
    """Return the priority of each piece: the highest of its wanted files, 0 without any."""
    files, chosen = config.files, config.priorities
    if not chosen and files is None:
        return [DEFAULT_PRIORITY] * num_pieces
    priorities = [DO_NOT_WANT] * num_pieces
    for number in range(len(layout.files)) if files is None else files:
        if not layout.is_stored(number):
            continue  # Padding is nobody's wish; it shares a piece with the file before it.
        level = chosen.get(number, DEFAULT_PRIORITY)
        for index in layout.pieces_of_file(number):
            priorities[index] = max(level, priorities[index])
    return priorities


def check_choice(config: TorrentConfig, info: Info) -> TorrentConfig:
    """Return settings whose files the torrent has; else ConfigError."""
    for index in (*(config.files or ()), *config.priorities, *config.renames):
        if not 0 <= index < len(info.files):
            raise ConfigError(f"there is no file {index}: the last one is {last_index(info.files)}")
    if config.files and all(info.files[index].is_pad for index in config.files):
        raise ConfigError(f"file {min(config.files)} is padding")
    return config


def wanted_bits(info: Info, config: TorrentConfig) -> int:
    """Return the pieces of wanted files as bits of a ``Bitfield``."""
    num_pieces = info.geometry.num_pieces
    priorities = wanted_priorities(Layout(info.files, info.geometry), num_pieces, config)
    return Bitfield.of(num_pieces, (i for i, level in enumerate(priorities) if level)).bits
