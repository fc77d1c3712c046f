"""
What a person may name as a torrent: a file, a magnet link, an info hash, a URL.

Files are read here, with a limit, and errors about their content name the file.
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.core.errors import InputError

if TYPE_CHECKING:
    from bittern.codec.magnet import Magnet
    from bittern.codec.metainfo import Metainfo

MAX_TORRENT_LENGTH = 64 << 20
"""Limit: P6. Bytes of a .torrent file; more is not even read."""

STDIN = "/dev/stdin"
"""Names standard input, on every system; a person writes "-"."""


class SourceKind(enum.Enum):
    """What a source is."""

    FILE = "file"
    MAGNET = "magnet"
    INFO_HASH = "info hash"
    URL = "http(s) URL"


def is_magnet(source: str) -> bool:
    """Tell whether a text means to be a magnet link."""
    return source[:7].lower() == "magnet:"


def kind_of(source: str) -> SourceKind:
    """
    Tell what a source is; a file that exists wins over everything it may look like.

    Raises:
        CommandFailed: it is none of these, so most likely a file that is not there.
    """
    import os

    if source in ("-", STDIN) or os.path.lexists(source):
        return SourceKind.FILE
    if is_magnet(source):
        return SourceKind.MAGNET
    if source[:8].lower().startswith(("http://", "https://")):
        return SourceKind.URL
    from bittern.codec.magnet import magnet_of_hash

    if magnet_of_hash(source) is not None:
        return SourceKind.INFO_HASH
    raise CommandFailed(f"{source or repr(source)}: no such file", ExitCode.NOT_FOUND)


def read_torrent(path: str) -> bytes:
    """
    Read a .torrent file, or standard input for ``-``.

    Raises:
        CommandFailed: it is a folder, or too large.
        OSError: it cannot be read.
    """
    if path in ("-", STDIN):
        data = sys.stdin.buffer.read(MAX_TORRENT_LENGTH + 1)
    else:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes 6 ms to import
                data = file.read(MAX_TORRENT_LENGTH + 1)
        except IsADirectoryError:
            raise CommandFailed(f"{path}: a folder, not a .torrent file") from None
    if len(data) > MAX_TORRENT_LENGTH:
        raise CommandFailed(f"{path}: larger than {MAX_TORRENT_LENGTH} bytes, not a .torrent file")
    return data


def load_metainfo(path: str) -> Metainfo:
    """
    Read and decode a .torrent file.

    Raises:
        CommandFailed: it is unusable; the text says what and where.
        OSError: it cannot be read.
    """
    from bittern.codec.metainfo import decode_metainfo

    data = read_torrent(path)
    try:
        return decode_metainfo(data)
    except InputError as error:
        raise CommandFailed(f"{path}: {error}") from error


def load_magnet(link: str) -> Magnet:
    """
    Decode a magnet link.

    Raises:
        CommandFailed: it is unusable.
    """
    from bittern.codec.magnet import parse_magnet

    try:
        return parse_magnet(link)
    except InputError as error:
        raise CommandFailed(str(error)) from error


def load_info_hash(text: str) -> Magnet:
    """
    Return the link that a bare info hash stands for: v1 in hexadecimal or base32, or v2.

    Raises:
        CommandFailed: it is no info hash.
    """
    from bittern.codec.magnet import magnet_of_hash

    magnet = magnet_of_hash(text)
    if magnet is None:
        raise CommandFailed(f"{text}: not an info hash", ExitCode.USAGE)
    return magnet
