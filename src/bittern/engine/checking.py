"""
Finding out which pieces are on disk, over all cores.

Sources: engine.md section 2 (rechecks run in the worker); BEP 3.
"""

from __future__ import annotations

from collections.abc import Callable

from bittern.core.geometry import Geometry
from bittern.engine.content import Content
from bittern.engine.services import Services
from bittern.storage.checker import check_pieces


async def find_pieces(
    services: Services,
    content: Content,
    geometry: Geometry,
    *,
    progress: Callable[[int], None],
    is_stopped: Callable[[], bool],
) -> int:
    """
    Hash what is on disk.

    Args:
        services: of the session.
        content: of the torrent.
        geometry: of the torrent.
        progress: told on the loop how many pieces have been looked at.
        is_stopped: asked now and then, from threads; True ends the check early.

    Returns:
        The good pieces, as bits of a ``Bitfield``.

    Raises:
        StorageError: a file is there but cannot be read.
        Inconsistent: the halves of a hybrid want different bytes.
    """
    loop = services.loop

    def progressed(num_checked: int) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(progress, num_checked)

    def check() -> int:
        if not content.is_started:
            return 0
        return check_pieces(
            content.storage,
            content.layout,
            geometry,
            content.hashes,
            num_threads=services.config.hashing_threads,
            progress=progressed,
            is_stopped=is_stopped,
        ).have.bits

    return await services.disk.run(check)
