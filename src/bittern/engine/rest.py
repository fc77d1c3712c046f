"""
When a torrent goes to rest, and what keeps it awake.

One that has everything and nobody to talk to needs neither swarm nor metainfo in memory: only its
announces go on. It rests after a while of that; one that starts complete and knows nobody at
once. Without a journal it never does, since it would have to hash everything to wake up.
"""

from __future__ import annotations

import math

from bittern.engine.services import Services


class IdleClock:
    """
    For how long a torrent has had nobody to talk to.

    Args:
        services: of the session; tell the time, and how long is long enough.
        can_rest: the session has a journal.
    """

    __slots__ = ("_can_rest", "_idle_since", "_services")

    def __init__(self, services: Services, *, can_rest: bool) -> None:
        self._services = services
        self._can_rest = can_rest
        self._idle_since = math.inf

    def start(self, *, knows_nobody: bool = False) -> None:
        """
        Hear of somebody, or that the torrent has woken up.

        Args:
            knows_nobody: there is nobody to wait for; it may rest at once.
        """
        self._idle_since = -math.inf if knows_nobody else self._services.loop.time()

    def is_due(self, *, is_idle: bool, now: float) -> bool:
        """
        Tell, once, that it is time to rest; asked about once a second.

        Args:
            is_idle: the torrent has everything and no connection.
            now: monotonic seconds.
        """
        if not is_idle or not self._can_rest:
            self._idle_since = now
        elif now - self._idle_since >= self._services.config.rest_after:
            self._idle_since = math.inf
            return True
        return False
