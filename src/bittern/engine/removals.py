"""
Removals of torrents from their session that are under way, and what they must not meet.

The same torrent may be added again at once. It begins when its removal is over, since its files
may be deleted until then, and what the state folder knows of it dropped, or kept; and whoever
still has the one that was removed does not delete what the new one works on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable

from bittern.core.errors import ConfigError
from bittern.core.ids import InfoHash
from bittern.engine.moving import MovedTorrent
from bittern.engine.undisturbed import undisturbed


class Removals:
    """
    Those of one session.

    Attributes:
        at_end: torrents that the end of the session has stopped, or is about to.
        are_over: the session has ended, and nothing can be removed from it any more.
    """

    def __init__(self) -> None:
        self.at_end: list[MovedTorrent] = []
        self.are_over: bool = False
        self._under_way: dict[asyncio.Task[None], MovedTorrent] = {}

    async def carry_out(self, torrent: MovedTorrent, job: Coroutine[object, object, None]) -> None:
        """Remove a torrent, also when this is cancelled, which counts once it is done."""
        task = asyncio.get_running_loop().create_task(job)
        self._under_way[task] = torrent
        task.add_done_callback(self._under_way.pop)
        await undisturbed(task)

    async def wait_for(self, hashes: Iterable[InfoHash]) -> None:
        """Wait until no torrent with one of these hashes is being removed."""
        names = set(hashes)
        while tasks := [
            task
            for task, torrent in self._under_way.items()
            if not names.isdisjoint(torrent.shelf.all_hashes)
        ]:
            await asyncio.wait(tasks)

    async def end(self) -> None:
        """Wait for all that is under way, and take no more."""
        while self._under_way:
            await asyncio.wait(self._under_way)  # somebody else hears what came of these
        self.are_over = True

    def check_unused(self, torrent: MovedTorrent, others: Iterable[MovedTorrent]) -> None:
        """Refuse to delete what the same torrent, added later, has in the same place."""
        for other in (*others, *self.at_end):
            ours, theirs = torrent.config, other.config
            if (
                torrent is not other
                and not set(torrent.shelf.all_hashes).isdisjoint(other.shelf.all_hashes)
                and ours.output.absolute() == theirs.output.absolute()
                and ours.data_path == theirs.data_path
            ):
                name = torrent.shelf.name
                raise ConfigError(f"the files of {name!r} are in use: it was added again")
