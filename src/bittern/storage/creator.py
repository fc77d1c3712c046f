"""
Making .torrent files: find the files, choose a piece length, hash, write.

The same input and options give the same bytes, on every machine: nothing
depends on the clock, on the order of a folder or on the number of threads.

Source: BEP 3, BEP 12, BEP 19, BEP 27, BEP 47, BEP 52.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from bittern.codec.file_list import MAX_TOTAL_LENGTH, FileEntry
from bittern.codec.info import MAX_PIECE_LENGTH, MAX_PIECES, Version
from bittern.codec.info_builder import arrange_files, encode_info
from bittern.codec.merkle import HASH_LENGTH, piece_level, root_of
from bittern.codec.metainfo import encode_metainfo
from bittern.codec.url import check_tiers, check_urls
from bittern.core.errors import ConfigError, StorageError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.kinds import check_kinds
from bittern.storage.piece_hashing import Hashing, Progress
from bittern.storage.scan import Content, SourceFile, scan
from bittern.storage.system import num_processors

MAX_AUTOMATIC_PIECE_LENGTH = 16 << 20
"""Bytes; above it only where there would be too many pieces otherwise."""


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """
    What is to be in a new torrent.

    Args:
        version: v1, v2 or hybrid.
        piece_length: bytes; None chooses by the total length. A power of two of 16 KiB or more
            for v2 and hybrid.
        trackers: tiers of announce URLs (BEP 12).
        web_seeds: URLs of BEP 19.
        nodes: DHT nodes as (host, port), for torrents without trackers (BEP 5).
        is_private: peers come from the trackers only (BEP 27).
        comment: any text.
        source: a mark in the hashed part that makes the info hash another.
        created_by: program that makes the torrent.
        creation_date: seconds since 1970; None leaves it out.
        name: of the file or folder; None takes that on disk.
        keep_symlinks: keep links as links instead of following them.

    Raises:
        ConfigError: a value is of another kind, or cannot be; the text names it.
    """

    version: Version = Version.HYBRID
    piece_length: int | None = None
    trackers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()
    nodes: tuple[tuple[str, int], ...] = ()
    is_private: bool = False
    comment: str | None = None
    source: str | None = None
    created_by: str | None = None
    creation_date: int | None = None
    name: str | None = None
    keep_symlinks: bool = False

    def __post_init__(self) -> None:
        check_tiers("trackers", self.trackers)
        check_urls("web_seeds", self.web_seeds)
        check_kinds(self, CreateOptions)
        if self.name is not None and (self.name in ("", ".", "..") or set(self.name) & {"/", "\0"}):
            raise ConfigError(f"name must be that of a file or folder, not {self.name!r}")
        if self.creation_date is not None and self.creation_date < 0:
            raise ConfigError(f"creation_date must be at least 0, not {self.creation_date}")


def choose_piece_length(total_length: int) -> int:
    """
    Return the piece length for so many bytes: 16 KiB to 16 MiB, a power of two.

    The smallest that is not below ``10 * sqrt(total_length)``, so that hashes and pieces grow
    alike: 1 MiB at 10 GB with some 10,000 pieces. The same as libtorrent's, which stops at 16 MiB;
    ours goes on where there would be more pieces than clients accept.
    """
    length = BLOCK_LENGTH
    while length < MAX_AUTOMATIC_PIECE_LENGTH and round((length / 10) ** 2) < total_length:
        length *= 2
    while length < MAX_PIECE_LENGTH and total_length > length * MAX_PIECES:
        length *= 2
    return length


def create_torrent(
    path: str | os.PathLike[str],
    *,
    options: CreateOptions | None = None,
    progress: Progress | None = None,
    num_threads: int | None = None,
) -> bytes:
    """
    Make a .torrent of a file or of a folder with all that is in it.

    Blocks until everything is hashed. To cancel, raise from ``progress``: the threads stop after
    the two mebibytes at hand, four of long content, and the exception is passed on.

    Args:
        path: the file or folder.
        options: what to put in; default a hybrid without trackers.
        progress: called in the calling thread with bytes done and bytes in all, about
            once per 2 MiB, 4 MiB of long content, and once at the end.
        num_threads: that hash, the calling one included; default one per processor.

    Returns:
        The bytes of the .torrent.

    Raises:
        ConfigError: the piece length cannot be, or leads to too many pieces.
        StorageError: no files or no data there, something cannot be read, or a file changed or
            vanished on the way.

    Source: BEP 3, BEP 52.
    """
    options = options or CreateOptions()
    content = scan(path, keep_symlinks=options.keep_symlinks)
    if options.name is not None:
        content = replace(content, name=options.name)
    if not content.total_length:
        raise StorageError("all files are empty", path=os.fspath(path))
    piece_length = _check_piece_length(options, content.total_length)
    return _create(content, options, piece_length, progress, num_threads or num_processors())


def _check_piece_length(options: CreateOptions, total_length: int) -> int:
    if total_length > MAX_TOTAL_LENGTH:
        raise ConfigError(f"{total_length} bytes, more than a torrent can hold")
    length = options.piece_length
    if length is None:
        return choose_piece_length(total_length)
    if not 1 <= length <= MAX_PIECE_LENGTH:
        raise ConfigError(f"piece length {length} is not 1 to {MAX_PIECE_LENGTH}")
    if options.version is not Version.V1 and (length < BLOCK_LENGTH or length & (length - 1)):
        raise ConfigError(f"piece length {length} is no power of two of 16 KiB or more (BEP 52)")
    return length


def _create(
    content: Content,
    options: CreateOptions,
    piece_length: int,
    progress: Progress | None,
    num_threads: int,
) -> bytes:
    version = options.version
    entries, sources = _arrange(content, version, piece_length)
    digests = Hashing(
        sources,
        version=version,
        piece_length=piece_length,
        has_tail_pad=version is Version.HYBRID and len(sources) > 1,
    ).run(num_threads, progress)
    layers: dict[bytes, bytes] = {}
    if version is not Version.V1:
        entries, layers = _with_roots(entries, digests.layers, piece_level(piece_length))
    info = encode_info(
        entries,
        name=content.name,
        version=version,
        piece_length=piece_length,
        is_single_file=content.is_single_file,
        pieces=digests.pieces,
        is_private=options.is_private,
        source=options.source,
    )
    return encode_metainfo(
        info,
        trackers=options.trackers,
        web_seeds=options.web_seeds,
        nodes=options.nodes,
        comment=options.comment,
        created_by=options.created_by,
        creation_date=options.creation_date,
        piece_layers=None if version is Version.V1 else layers,
    )


def _arrange(
    content: Content, version: Version, piece_length: int
) -> tuple[tuple[FileEntry, ...], list[SourceFile]]:
    """Return what the torrent lists, and the files on disk with their places in it."""
    given = [file.entry for file in content.files]
    if content.is_single_file:
        given = [replace(given[0], path=(content.name,))]
    entries = arrange_files(given, version=version, piece_length=piece_length)
    num_pieces = -(-(entries[-1].offset + entries[-1].length) // piece_length)
    if num_pieces > MAX_PIECES:
        raise ConfigError(
            f"{num_pieces} pieces, more than {MAX_PIECES}: choose a greater piece length"
        )
    real = [entry for entry in entries if not entry.is_pad]
    sources = [
        SourceFile(entry, file.os_path, file.modified_ns)
        for entry, file in zip(real, content.files, strict=True)
    ]
    return entries, sources


def _with_roots(
    entries: tuple[FileEntry, ...], layers: tuple[bytes, ...], level: int
) -> tuple[tuple[FileEntry, ...], dict[bytes, bytes]]:
    """Return the files with their roots, and the piece layers of those of several pieces."""
    rooted: list[FileEntry] = []
    by_root: dict[bytes, bytes] = {}
    remaining = iter(layers)
    for entry in entries:
        layer = b"" if entry.is_pad else next(remaining)
        if not layer:
            rooted.append(entry)
            continue
        root = root_of(layer, level)
        rooted.append(entry.placed(entry.offset, root))
        if len(layer) > HASH_LENGTH:
            by_root[root] = layer
    return tuple(rooted), by_root
