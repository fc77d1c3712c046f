"""``bittern magnet``: the magnet link of a .torrent file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from bittern.cli.exits import ExitCode
from bittern.cli.options import Addresses, FileList
from bittern.cli.output import print_json, print_line
from bittern.cli.source import load_metainfo
from bittern.codec.file_list import FileEntry, last_index
from bittern.codec.magnet import Magnet, format_magnet
from bittern.codec.metainfo import Metainfo
from bittern.core.errors import ConfigError


def magnet(
    torrent: str,
    /,
    *,
    files: FileList = None,
    peer: Addresses = (),
    no_tracker: Annotated[bool, Parameter(name=("--no-tracker", "--no-trackers"))] = False,
    json: bool = False,
) -> int:
    """
    Print the magnet link of a .torrent file.

    Args:
        torrent: A .torrent file, "-" for standard input.
        files: Ask only for these files, by index, such as 0,2-5.
        peer: Name this peer in the link; repeatable.
        no_tracker: Leave the trackers out.
        json: Write a JSON object with "magnet" and the hashes to stdout.
    """
    metainfo = load_metainfo(torrent)
    _check_files(files, metainfo.info.files)
    link = format_magnet(magnet_of(metainfo, files=files, peers=peer, with_trackers=not no_tracker))
    if json:
        info = metainfo.info
        print_json(
            {
                "magnet": link,
                "name": info.name,
                "info_hash": str(info.info_hash) if info.info_hash else None,
                "info_hash_v2": str(info.info_hash_v2) if info.info_hash_v2 else None,
            }
        )
    else:
        print_line(link)
    return ExitCode.DONE


def _check_files(files: frozenset[int] | None, entries: Sequence[FileEntry]) -> None:
    """Refuse files that the torrent does not have."""
    if files and max(files) >= len(entries):
        raise ConfigError(f"there is no file {max(files)}: the last one is {last_index(entries)}")


def magnet_of(
    metainfo: Metainfo,
    *,
    files: frozenset[int] | None = None,
    peers: tuple[tuple[str, int], ...] = (),
    with_trackers: bool = True,
) -> Magnet:
    """Return what a magnet link for a torrent says."""
    info = metainfo.info
    trackers = [url for tier in metainfo.trackers for url in tier] if with_trackers else []
    return Magnet(
        info_hash=info.info_hash,
        info_hash_v2=info.info_hash_v2,
        name=info.name,
        trackers=tuple(trackers),
        web_seeds=metainfo.web_seeds,
        peers=tuple((host, port) for host, port in peers),
        select_only=ranges_of(files or ()),
        exact_length=info.geometry.total_length,
    )


def ranges_of(indices: frozenset[int] | tuple[()]) -> tuple[tuple[int, int], ...]:
    """Return indices as inclusive ranges, rising and apart."""
    ranges: list[tuple[int, int]] = []
    for index in sorted(indices):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return tuple(ranges)
