"""
Descriptors: as many as the system gives, and who may have how many.

Sockets and files share one number. Where it is small, both get a part of it
that keeps the other alive, and a rest is left for the journal, for trackers and
for whatever else the program opens; so a torrent of very many files completes
with very few descriptors. Where it is large, the settings stay as they are.

Limit: F13.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bittern.engine.config import SessionConfig

RESERVE = 32
"""Limit: F13. Descriptors for all but peers and the files of torrents."""
SOCKET_SHARE = 0.7
"""Limit: F13. Part of the others that peers may have."""
SHARE_OF_COMING = 8
"""At most one socket in so many is of a connection that comes, and as many of one that goes."""
MIN_SOCKETS = 8
"""Sockets and files with which one can still go on, whatever the system says."""
MIN_FILES = 4

_WANTED = 10_240
"""Where the system names no hard limit: macOS, for one, then refuses more than this."""
_WATCHED_ON_WINDOWS = 512
"""
Sockets that Python's ``select`` takes there; with one more it fails, and the event loop with it.
Files do not count, but how both are divided leaves room for the sockets that are no peers.
"""


def raise_descriptor_limit() -> int | None:
    """Raise the soft limit to the hard one; return it, None where there is none."""
    if sys.platform == "win32":
        return _WATCHED_ON_WINDOWS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    target = max(soft, _WANTED) if hard == resource.RLIM_INFINITY else hard
    if soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):  # a sandbox, or a system that has a limit of its own
            return soft
    return target


def divide_descriptors(config: SessionConfig, limit: int | None) -> SessionConfig:
    """
    Return the settings with no more files and connections than there are descriptors for.

    Args:
        config: what was asked for.
        limit: descriptors of this process; None for no limit.
    """
    if limit is None:
        return config
    room = limit - RESERVE
    sockets = max(MIN_SOCKETS, int(room * SOCKET_SHARE))
    files = max(MIN_FILES, room - sockets)
    num_files = min(config.max_open_files, files)
    wanted = config.max_connections + config.max_pending_handshakes + config.max_half_open
    if wanted <= sockets:
        return replace(config, max_open_files=num_files)
    coming = sockets // SHARE_OF_COMING
    pending = min(config.max_pending_handshakes, coming)
    half_open = min(config.max_half_open, coming)
    return replace(
        config,
        max_open_files=num_files,
        max_pending_handshakes=pending,
        max_half_open=half_open,
        max_connections=min(config.max_connections, sockets - pending - half_open),
    )
