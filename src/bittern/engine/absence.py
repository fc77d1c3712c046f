"""
Going on after the machine slept, or has come into another network.

Timers do not count what a machine sleeps, nor does anybody tell of a network that has
changed: announces would wait for hours, and connections that are dead for two minutes more.
So once a second the clock of the event loop is compared with one that goes on in sleep, and
now and then the addresses that we reach others from are looked at. The wall clock plays no
part: it may be set at any time.

Then connections are tested: what was silent for too long, sleep included, has a few seconds
more to prove that it is alive. A little later, when the network is there again, all sources
of peers are asked, as soon as their rules allow, and not over and over while an address goes
to and fro. A process that was stopped for a while is in the same position.

Source: threats.md F12.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from bittern.engine.peers.connection import PeerConnection

log: logging.Logger = logging.getLogger(__name__)

MIN_ABSENCE: Final = 60.0
"""Seconds between two ticks from which on we were away; nobody misses us for less."""
LOOK_INTERVAL: Final = 30.0
"""Seconds between two looks at our addresses."""
TEST_TIME: Final = 20.0
"""Seconds for one that was silent too long, sleep included, to show that it is there."""
SETTLE_TIME: Final = (5.0, 15.0)
"""Seconds until others are asked, at random: a network takes a while to be there again."""
MAX_ASKS: Final = 3
"""Times that others are asked in ``ASK_PERIOD``: an address may change for ever, as where two ways
lead out of a network, and not every tracker names an interval that it insists on."""
ASK_PERIOD: Final = 1800.0
"""Seconds, sleep included."""


class Machine(Protocol):
    """What is asked of the system; ``net.machine.LocalMachine``."""

    def time(self) -> float:
        """Return seconds that go on while the machine sleeps."""

    def hosts(self) -> frozenset[str]:
        """Return the addresses that we reach others from; none while there is no network."""


class Unmoved:
    """
    A machine that never sleeps and stays where it is.

    Args:
        loop: whose time is the only one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time: Callable[[], float] = loop.time

    def hosts(self) -> frozenset[str]:
        """Return nothing."""
        return frozenset()


class Asking(Protocol):
    """Who asks others for peers, at times of its own."""

    def missed(self, seconds: float) -> None:
        """Ask soon, as the rules allow, after time that the loop has not counted."""


class Absence:
    """
    What is described in the module's text; belongs to one session.

    Args:
        machine: tells what time it is and where we are.
        rng: for the moment at which others are asked.
        now: loop time.
        peers: returns the connections of all torrents.
        idle_timeout: tells for how long one may be silent.
        sources: returns what is to be asked again.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        rng: random.Random,
        now: float,
        peers: Callable[[], Iterable[PeerConnection]],
        idle_timeout: Callable[[], float],
        sources: Callable[[], Iterable[Asking]],
    ) -> None:
        self._machine = machine
        self._rng = rng
        self._peers = peers
        self._idle_timeout = idle_timeout
        self._sources = sources
        self._seen_at = now
        self._time = machine.time()
        self._missed = 0.0
        """Seconds that timers have not counted, and nobody was told of yet."""
        self._hosts: frozenset[str] | None = None
        self._look_at = now
        self._ask_at = math.inf
        self._asked_at = deque([-math.inf] * MAX_ASKS, MAX_ASKS)
        """When others were asked, of late."""

    def tick(self, *, now: float) -> None:
        """Find out whether we were away; called about once a second."""
        time = self._machine.time()
        passed, counted = time - self._time, now - self._seen_at
        self._time, self._seen_at = time, now
        if passed >= MIN_ABSENCE:
            log.info("we were away for %.0f s", passed)
            self._return(max(passed - counted, 0.0), now)
        elif now >= self._look_at:
            self._look_at = now + LOOK_INTERVAL
            self._look(now)
        if now >= self._ask_at:
            missed, self._missed, self._ask_at = self._missed, 0.0, math.inf
            self._asked_at.append(now)
            for source in self._sources():
                source.missed(missed)

    def _look(self, now: float) -> None:
        before, self._hosts = self._hosts, self._machine.hosts()
        if before is not None and self._hosts - before:
            log.info("we are at %s now", ", ".join(sorted(self._hosts)))
            self._return(0.0, now)

    def _return(self, missed: float, now: float) -> None:
        self._missed += missed
        self._asked_at.extend([at - missed for at in self._asked_at])
        soon = now + self._rng.uniform(*SETTLE_TIME)
        self._ask_at = max(soon, self._asked_at[0] + ASK_PERIOD)
        least = now - max(self._idle_timeout() - TEST_TIME, 0.0)
        for peer in [each for each in self._peers() if each.is_open]:
            peer.last_received_at = max(peer.last_received_at - missed, least)
            peer.keep_alive()  # the system of one that is gone may say so
