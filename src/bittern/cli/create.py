"""``bittern create``: make a .torrent from a file or folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bittern import __version__
from bittern.cli.display import Display, Meter, make_display
from bittern.cli.exits import CommandFailed, ExitCode, describe
from bittern.cli.info import metainfo_json
from bittern.cli.magnet import magnet_of
from bittern.cli.oddities import warn_of_oddities
from bittern.cli.options import Addresses, Size, Urls
from bittern.cli.output import complain, print_json, print_line, print_table, write_bytes
from bittern.cli.saving import write_atomically
from bittern.cli.source import STDIN as STANDARD
from bittern.cli.values import format_size
from bittern.codec.magnet import format_magnet
from bittern.codec.metainfo import Metainfo, Version, decode_metainfo
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.file_paths import current_os
from bittern.storage.names import MAX_NAME_LENGTH, sanitise

TRACKER_SCHEMES = ("http://", "https://", "udp://", "ws://", "wss://")
MAX_DATE_DIGITS = 18
"""Digits of a date in seconds that a torrent can hold."""
WEB_SEED_SCHEMES = ("http://", "https://", "ftp://")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContentOptions:
    """What is to be in the torrent."""

    tracker: Urls = ()
    """Announce URL; repeatable. Each is a tier of its own, a comma puts several into one."""
    web_seed: Urls = ()
    """URL of an HTTP server with the same data; repeatable."""
    node: Addresses = ()
    """DHT node to name in a torrent without trackers; repeatable."""
    private: bool = False
    """Peers may come from the trackers only."""
    comment: Annotated[str | None, Parameter(metavar="TEXT")] = None
    """Any text."""
    source: Annotated[str | None, Parameter(metavar="TEXT")] = None
    """A mark that makes the info hash another one, as private trackers want."""
    name: Annotated[str | None, Parameter(metavar="TEXT")] = None
    """Name of the file or folder in the torrent. Default: that on disk."""
    piece_length: Size = None
    """Bytes of a piece, such as 256Ki. Default: chosen by the total size."""
    v1: bool = False
    """Make a v1 torrent, for the oldest clients."""
    v2: bool = False
    """Make a v2 torrent, for new clients only."""
    hybrid: bool = False
    """Make a torrent for both, the default."""
    keep_symlinks: bool = False
    """Put links into the torrent as links instead of following them."""
    date: Annotated[bool | None, Parameter(negative="--no-date")] = None
    """Write the date into it. Default: leave it out, so that the same data gives the same bytes."""


def create(
    path: Annotated[Path, Parameter(metavar="PATH")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), metavar="FILE")] = None,
    content: ContentOptions = ContentOptions(),
    json: bool = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
) -> int:
    """
    Make a .torrent from a file, or from a folder with all that is in it.

    Args:
        path: The file or folder.
        output: The .torrent to write, a folder to write it to, or "-" for standard
            output. Default: the name of PATH with .torrent, in the current folder.
        content: What is to be in the torrent.
        json: Write what "info --json" shows, the path and the magnet link to stdout.
        quiet: Show no progress.
    """
    options = create_options(content)
    if content.private and not content.tracker:
        complain("warning: a private torrent without a tracker finds no peers")
    to_stdout = output is not None and output.as_posix() in ("-", STANDARD)
    if to_stdout and json:
        raise CommandFailed("--json and --output - both want stdout", ExitCode.USAGE)
    target = None if to_stdout else _choose_target(path, output, content.name)
    is_piped = json or to_stdout
    display = make_display(sys.stderr if is_piped else sys.stdout, quiet=quiet, plain=not is_piped)
    try:
        data = create_torrent(path, options=options, progress=_progress(display, path))
    finally:
        display.close()
    metainfo = decode_metainfo(data)
    warn_of_oddities(path, metainfo.info, keeps_links=content.keep_symlinks)
    if target is None:
        write_bytes(data)
        return ExitCode.DONE
    try:
        write_atomically(target, data)
    except OSError as error:
        raise CommandFailed(describe(error), ExitCode.DISK) from error
    _tell(metainfo, target, json=json, quiet=quiet)
    return ExitCode.DONE


def create_options(content: ContentOptions) -> CreateOptions:
    """
    Return the creator's options.

    Raises:
        CommandFailed: a URL is none.
    """
    return CreateOptions(
        version=_choose_version(v1=content.v1, v2=content.v2, hybrid=content.hybrid),
        piece_length=content.piece_length,
        trackers=_read_tiers(content.tracker),
        web_seeds=tuple(_check_url(url, WEB_SEED_SCHEMES, "web seed") for url in content.web_seed),
        nodes=tuple((host, port) for host, port in content.node),
        is_private=content.private,
        comment=content.comment,
        source=content.source,
        created_by=f"bittern/{__version__}",
        creation_date=_date(content.date),
        name=content.name,
        keep_symlinks=content.keep_symlinks,
    )


def _choose_version(*, v1: bool, v2: bool, hybrid: bool) -> Version:
    """Return the version asked for; ``--v1 --v2`` is one for both."""
    if hybrid or v1 == v2:
        return Version.HYBRID
    return Version.V1 if v1 else Version.V2


def _read_tiers(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(_check_url(url.strip(), TRACKER_SCHEMES, "tracker") for url in value.split(","))
        for value in values
    )


def _check_url(url: str, schemes: tuple[str, ...], what: str) -> str:
    if not url.lower().startswith(schemes) or not url.isprintable() or " " in url:
        known = ", ".join(scheme.partition(":")[0] for scheme in schemes)
        raise CommandFailed(f"{url!r} is no {what} URL ({known})", ExitCode.USAGE)
    return url


def _date(is_wanted: bool | None) -> int | None:
    """Return the date to write; packagers give and fix it with SOURCE_DATE_EPOCH."""
    if is_wanted is False:
        return None
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    if fixed.isascii() and fixed.isdigit():
        if len(fixed) > MAX_DATE_DIGITS:
            raise CommandFailed(f"SOURCE_DATE_EPOCH: {fixed} is no date", ExitCode.USAGE)
        return int(fixed)
    return int(time.time()) if is_wanted else None


def _choose_target(path: Path, output: Path | None, name: str | None) -> Path:
    """
    Return the file to write, and refuse before hours of hashing what cannot be written.

    Raises:
        CommandFailed: no such folder, not writable, or something that is no .torrent
            would be overwritten.
    """
    # As the torrent is called: of a link it is the link's name, of ".." that of the folder.
    whole = os.path.abspath(path)  # noqa: PTH100
    file_name = f"{name or os.path.basename(whole)}.torrent".replace(os.sep, "_")  # noqa: PTH119
    if len(os.fsencode(file_name)) > MAX_NAME_LENGTH:
        file_name = sanitise(file_name, current_os())
    if output is None:
        output = Path(file_name)
    elif output.is_dir():
        output = output / file_name
    folder = output.absolute().parent
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: no such folder", ExitCode.NOT_FOUND)
    if not os.access(folder, os.W_OK):
        raise CommandFailed(f"{folder}: not writable", ExitCode.DISK)
    if output.exists() and output.suffix.lower() != ".torrent":
        raise CommandFailed(f"{output}: exists and is no .torrent", ExitCode.NOT_ALLOWED)
    return output


def _progress(display: Display, path: Path) -> Callable[[int, int], None]:
    meter: Meter | None = None

    def report(done: int, total: int) -> None:
        nonlocal meter
        if meter is None:
            meter = Meter(display, path.name or str(path), "hashing", total)
        meter.count(done)

    return report


def _tell(metainfo: Metainfo, target: Path, *, json: bool, quiet: bool) -> None:
    link = format_magnet(magnet_of(metainfo))
    if json:
        print_json({"path": str(target), "magnet": link, **metainfo_json(metainfo)})
        return
    if quiet:
        return
    info = metainfo.info
    geometry = info.geometry
    print_line(
        f"wrote {target}: {geometry.num_pieces} pieces of {format_size(info.piece_length)}, "
        f"{format_size(geometry.total_length)}"
    )
    print_table(
        [
            ("info hash", str(info.info_hash or "")),
            ("info hash v2", str(info.info_hash_v2 or "")),
            ("magnet", link),
        ]
    )
