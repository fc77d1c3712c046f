"""
``bittern info``: what is inside a .torrent file or a magnet link, without network.

Nothing heavy is imported here: scripts call this once per file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.output import print_json, print_line, print_table
from bittern.cli.source import SourceKind, kind_of, load_magnet, load_metainfo
from bittern.cli.values import HostPort, format_size

if TYPE_CHECKING:
    from bittern.cli.output import Json
    from bittern.codec.magnet import Magnet
    from bittern.codec.metainfo import FileEntry, Metainfo


def info(source: str, /, *, json: bool = False) -> int:
    """
    Show what is inside a .torrent file or a magnet link, without any network.

    Args:
        source: A .torrent file, "-" for standard input, or a magnet link.
        json: Write one JSON object to stdout.
    """
    match kind_of(source):
        case SourceKind.FILE:
            metainfo = load_metainfo(source)
            if json:
                print_json(metainfo_json(metainfo))
            else:
                _print_metainfo(metainfo)
        case SourceKind.MAGNET:
            magnet = load_magnet(source)
            if json:
                print_json(magnet_json(magnet))
            else:
                _print_magnet(magnet)
        case kind:
            raise CommandFailed(
                f"{source}: nothing can be shown of an {kind.value} without a network; "
                "bittern get downloads it",
                ExitCode.USAGE,
            )
    return ExitCode.DONE


def metainfo_json(metainfo: Metainfo) -> dict[str, Json]:
    """
    Return a .torrent file as the JSON object of ``info --json``.

    ``name`` is the torrent's own; each ``path`` is where that file is stored below
    the output folder. Padding is left out, so use ``index`` to name files.
    """
    from bittern.storage.file_paths import paths_of

    info = metainfo.info
    return {
        "name": info.name,
        "version": info.version.value,
        "info_hash": str(info.info_hash) if info.info_hash else None,
        "info_hash_v2": str(info.info_hash_v2) if info.info_hash_v2 else None,
        "piece_length": info.piece_length,
        "num_pieces": info.geometry.num_pieces,
        "total_length": info.geometry.total_length,
        "private": info.is_private,
        "source": info.source,
        "trackers": [list(tier) for tier in metainfo.trackers],
        "web_seeds": list(metainfo.web_seeds),
        "http_seeds": list(metainfo.http_seeds),
        "nodes": [str(HostPort(*node)) for node in metainfo.nodes],
        "comment": metainfo.comment,
        "created_by": metainfo.created_by,
        "creation_date": metainfo.creation_date,
        "files": [
            _file_json(index, entry, path)
            for index, (entry, path) in enumerate(zip(info.files, paths_of(info), strict=True))
            if path
        ],
    }


def _file_json(index: int, entry: FileEntry, path: tuple[str, ...]) -> dict[str, Json]:
    value: dict[str, Json] = {"path": "/".join(path), "length": entry.length, "index": index}
    if entry.pieces_root is not None:
        value["pieces_root"] = entry.pieces_root.hex()
    if entry.is_executable:
        value["executable"] = True
    if entry.is_hidden:
        value["hidden"] = True
    if entry.symlink_target is not None:
        value["symlink_target"] = "/".join(entry.symlink_target)
    return value


def magnet_json(magnet: Magnet) -> dict[str, Json]:
    """Return a magnet link as the JSON object of ``info --json``; unknown values are null."""
    info_hash = str(magnet.info_hash) if magnet.info_hash else None
    info_hash_v2 = str(magnet.info_hash_v2) if magnet.info_hash_v2 else None
    return {
        "name": magnet.name,
        "version": _version_of(magnet),
        "info_hash": info_hash,
        "info_hash_v2": info_hash_v2,
        "piece_length": None,
        "num_pieces": None,
        "total_length": magnet.exact_length,
        "private": None,
        "source": None,
        "trackers": [[url] for url in magnet.trackers],
        "web_seeds": list(magnet.web_seeds),
        "http_seeds": [],
        "nodes": [],
        "peers": [str(HostPort(*peer)) for peer in magnet.peers],
        "public_key": magnet.public_key.hex() if magnet.public_key else None,
        "salt": magnet.salt.hex() if magnet.public_key else None,
        "comment": None,
        "created_by": None,
        "creation_date": None,
        "files": [],
    }


def _version_of(magnet: Magnet) -> str | None:
    """Return what the hashes say; None for a link to a key whose torrent may change (BEP 46)."""
    if magnet.info_hash and magnet.info_hash_v2:
        return "hybrid"
    if magnet.info_hash_v2:
        return "2"
    return "1" if magnet.info_hash else None


def _print_metainfo(metainfo: Metainfo) -> None:
    info = metainfo.info
    geometry = info.geometry
    rows = [
        ("name", info.name),
        ("version", info.version.value),
        ("info hash", str(info.info_hash or "")),
        ("info hash v2", str(info.info_hash_v2 or "")),
        ("size", _exact_size(geometry.total_length)),
        ("pieces", f"{geometry.num_pieces} of {_exact_size(info.piece_length)}"),
        ("private", "yes" if info.is_private else ""),
        ("source", info.source or ""),
        ("comment", metainfo.comment or ""),
        ("created by", metainfo.created_by or ""),
        ("created at", _date_text(metainfo.creation_date)),
    ]
    rows += _url_rows(metainfo.trackers, metainfo.web_seeds + metainfo.http_seeds)
    rows += [("DHT node", str(HostPort(*node))) for node in metainfo.nodes]
    print_table(rows)
    _print_files(metainfo)


def _print_magnet(magnet: Magnet) -> None:
    print_table(
        [
            ("name", magnet.name or ""),
            ("version", _version_of(magnet) or ""),
            ("info hash", str(magnet.info_hash or "")),
            ("info hash v2", str(magnet.info_hash_v2 or "")),
            ("public key", magnet.public_key.hex() if magnet.public_key else ""),
            ("salt", magnet.salt.hex()),
            ("size", "" if magnet.exact_length is None else _exact_size(magnet.exact_length)),
            *_url_rows((magnet.trackers,), magnet.web_seeds),
            *(("peer", str(HostPort(*peer))) for peer in magnet.peers),
        ]
    )


def _url_rows(
    trackers: tuple[tuple[str, ...], ...], web_seeds: tuple[str, ...]
) -> list[tuple[str, str]]:
    rows = [
        ("tracker" if len(trackers) == 1 else f"tracker tier {number}", url)
        for number, tier in enumerate(trackers, 1)
        for url in tier
    ]
    return rows + [("web seed", url) for url in web_seeds]


def _print_files(metainfo: Metainfo) -> None:
    from bittern.storage.file_paths import paths_of

    entries = [
        (index, entry, "/".join(path))
        for index, (entry, path) in enumerate(
            zip(metainfo.info.files, paths_of(metainfo.info), strict=True)
        )
        if path
    ]
    print_line("")
    print_line(f"{len(entries)} {'file' if len(entries) == 1 else 'files'}")
    width = len(str(len(metainfo.info.files) - 1))
    for index, entry, path in entries:
        link = "" if entry.symlink_target is None else " -> " + "/".join(entry.symlink_target)
        print_line(f"{index:>{width}}  {format_size(entry.length):>10}  {path}{link}")


def _exact_size(length: int) -> str:
    return f"{length} bytes" if length < 1024 else f"{length} bytes ({format_size(length)})"


def _date_text(seconds: int | None) -> str:
    """Return a date in UTC; a number that is none stays a number."""
    if seconds is None:
        return ""
    # Not by gmtime: where the system counts seconds in 32 bits it ends in 2038.
    from datetime import datetime, timedelta

    try:
        date = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    except OverflowError:
        return str(seconds)
    return f"{date.isoformat(sep=' ')} UTC"
