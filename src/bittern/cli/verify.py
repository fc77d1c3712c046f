"""``bittern verify``: hash what is on disk, over all cores, and compare it with a .torrent."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bittern.cli.data import DataPlace, find_data
from bittern.cli.display import Meter, make_display
from bittern.cli.exits import ExitCode
from bittern.cli.output import print_json, print_line
from bittern.cli.source import load_metainfo
from bittern.cli.values import format_size
from bittern.codec.metainfo import Metainfo
from bittern.core.bitfield import Bitfield
from bittern.storage.checker import check_pieces
from bittern.storage.file_paths import paths_of
from bittern.storage.files import FileStorage
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LISTED = 20
"""Missing files that a person is told by name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What was found on disk.

    Args:
        num_pieces: of the torrent.
        bad_pieces: indices that do not match, absent ones too.
        missing_files: paths below the output folder.
        short_files: paths of files that end too early.
    """

    num_pieces: int
    bad_pieces: tuple[int, ...]
    missing_files: tuple[str, ...]
    short_files: tuple[str, ...]

    @property
    def num_good(self) -> int:
        """Pieces that match."""
        return self.num_pieces - len(self.bad_pieces)

    @property
    def is_complete(self) -> bool:
        """True when every file is there with the right content."""
        return not (self.bad_pieces or self.missing_files or self.short_files)


def verify(
    torrent: str,
    /,
    *,
    data: Annotated[Path, Parameter(metavar="PATH")],
    json: bool = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
) -> int:
    """
    Hash the data of a torrent and compare it; exit code 6 if it is not complete.

    Args:
        torrent: A .torrent file, "-" for standard input.
        data: The folder that holds the torrent's file or folder, or that itself.
        json: Write one JSON object to stdout.
        quiet: Show no progress.
    """
    metainfo = load_metainfo(torrent)
    place = find_data(metainfo.info, data)
    display = make_display(sys.stderr if json else sys.stdout, quiet=quiet, plain=not json)
    total_length = metainfo.info.geometry.total_length
    meter = Meter(display, metainfo.name, "verifying", total_length)
    try:
        verdict = examine(metainfo, place, meter.count)
    finally:
        display.close()
    if json:
        print_json(
            {
                "num_pieces": verdict.num_pieces,
                "num_good": verdict.num_good,
                "bad_pieces": list(verdict.bad_pieces),
                "missing_files": list(verdict.missing_files),
            }
        )
    elif not quiet:
        _print_verdict(verdict, metainfo)
    return ExitCode.DONE if verdict.is_complete else ExitCode.MISMATCH


def examine(
    metainfo: Metainfo, place: DataPlace, progress: Callable[[int], None] = lambda _: None
) -> Verdict:
    """
    Hash all pieces of a torrent where they lie; writes nothing.

    Args:
        metainfo: of the torrent.
        place: where its data is.
        progress: told how many bytes are judged, from any thread.

    Raises:
        StorageError: a file is there but cannot be read.
        Inconsistent: the halves of a hybrid want different bytes.
    """
    info = metainfo.info
    geometry = info.geometry
    layout = Layout(info.files, geometry)
    paths = paths_of(info, place.folding)
    shown = ["/".join(path) for path in paths]
    root = place.output
    if place.data_path is not None:
        root = place.data_path.parent
        paths = [(place.data_path.name, *path[1:]) if path else () for path in paths]
    storage = FileStorage(layout, root, paths)
    try:
        result = check_pieces(
            storage,
            layout,
            geometry,
            PieceHashes(info, metainfo.piece_layers),
            progress=lambda num_checked: progress(
                min(num_checked * geometry.piece_length, geometry.total_length)
            ),
        )
        missing = [index for index in result.missing_files if storage.stat_file(index) is None]
        short = [index for index in result.missing_files if index not in set(missing)]
    finally:
        storage.close()
    bad = Bitfield.full(geometry.num_pieces).bits & ~result.have.bits
    return Verdict(
        geometry.num_pieces,
        tuple(Bitfield(geometry.num_pieces, bad)),
        tuple(shown[index] for index in missing),
        tuple(shown[index] for index in short),
    )


def _print_verdict(verdict: Verdict, metainfo: Metainfo) -> None:
    name = metainfo.name
    for kind, paths in (("missing", verdict.missing_files), ("too short", verdict.short_files)):
        for path in paths[:MAX_LISTED]:
            print_line(f"{kind}: {path}")
        if len(paths) > MAX_LISTED:
            print_line(f"{kind}: {len(paths) - MAX_LISTED} more files")
    if verdict.is_complete:
        size = format_size(metainfo.info.geometry.total_length)
        print_line(f"{name}: complete, {verdict.num_pieces} pieces, {size}")
    else:
        print_line(
            f"{name}: not complete, {verdict.num_good} of {verdict.num_pieces} pieces are good"
        )
