"""
A line of fixed rate that serves many flows in turn.

One pipe stands for one direction of a host's access line. Each flow in turn
passes one quantum, which takes ``bytes / rate`` seconds; flows that have
nothing to send, or may not send, drop out and their share goes to the others.
That is a fair share up to one quantum, and the rate is exact.

The quantum shrinks as flows become more, so that a small message waits about a
tenth of a second for its turn on a busy line and bulk still moves in large
pieces. No byte is touched here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from bittern.core.errors import MisuseError
from bittern.testing.loop import VirtualLoop

MAX_QUANTUM = 65_536
MIN_QUANTUM = 4_096
_TURN_TIME = 0.1


class Flow(Protocol):
    """What a pipe serves."""

    def take(self, quantum: int) -> bytearray | None:
        """Give up to ``quantum`` bytes, at least one, or None: then ``Pipe.wake`` comes later."""

    def passed(self, data: bytearray) -> None:
        """Hear that ``data`` has reached the other end of the pipe. Must not raise."""


class Pipe:
    """
    The line.

    Args:
        loop: whose time it keeps.
        rate: bytes per second, above 0; None for no limit.

    Invariant: a flow stands in line at most once.
    """

    def __init__(self, loop: VirtualLoop, rate: float | None) -> None:
        self._loop = loop
        self._line: OrderedDict[Flow, None] = OrderedDict()
        self._is_busy = False
        self.total: int = 0
        """Bytes passed so far."""
        self.rate = rate

    @property
    def rate(self) -> float | None:
        """Bytes per second; a change counts from the next quantum."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        if rate is not None and not rate > 0:
            raise MisuseError(f"a pipe needs a rate above 0, not {rate}")
        self._rate = rate

    @property
    def num_waiting(self) -> int:
        """How many flows stand in line."""
        return len(self._line)

    def wake(self, flow: Flow) -> None:
        """Put ``flow`` in line; it has something to send now."""
        self._line[flow] = None
        if not self._is_busy:
            self._serve()

    def _serve(self) -> None:
        line = self._line
        self._is_busy = True
        while line:
            flow, _ = line.popitem(last=False)
            rate = self._rate
            if rate is None:
                quantum = MAX_QUANTUM
            else:
                fair = int(rate * _TURN_TIME / (len(line) + 1))
                quantum = max(MIN_QUANTUM, min(MAX_QUANTUM, fair))
            data = flow.take(quantum)
            if data is None:
                continue
            if rate is not None:
                self._loop.call_background(
                    self._loop.time() + len(data) / rate, self._finish, flow, data
                )
                return
            self._pass(flow, data)
        self._is_busy = False

    def _finish(self, flow: Flow, data: bytearray) -> None:
        self._pass(flow, data)
        self._serve()

    def _pass(self, flow: Flow, data: bytearray) -> None:
        self.total += len(data)
        flow.passed(data)
        self._line[flow] = None
