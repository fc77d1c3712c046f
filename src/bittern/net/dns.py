"""
Host names to addresses, off the loop, within bounds.

The system's resolver blocks, and one that hangs may do so for a minute. So each
lookup runs in a thread of its own that nobody waits for longer than ``timeout``:
not a caller, and not the end of the program (the threads are daemons; asyncio's
own pool would be joined). The number of threads is bounded; while all of them
hang, further lookups fail when their time is up. Equal lookups at the same time
share one thread. Answers are kept for a while, failures too.

The addresses of a name are what the system says: whether they may be connected to
is decided where that happens (``net.http``).

Limit: F11.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ResolveError

LOOKUP_TIMEOUT = 10.0
"""Limit: F11. Seconds that a caller waits."""
POSITIVE_LIFETIME = 60.0
"""Seconds for which an answer is kept; the system does not tell the name's own."""
NEGATIVE_LIFETIME = 60.0
"""Limit: F11. Seconds for which a failure is kept."""
MAX_THREADS = 16
"""Lookups under way at once, those that nobody waits for any more included."""
MAX_ENTRIES = 1_024
"""Names kept; the oldest go first."""
MAX_ADDRESSES = 16
"""Addresses taken of one name."""

Lookup = Callable[[str], Awaitable[list[str]]]
"""Asks for the addresses of a name; OSError when there are none."""


class HostResolver(Protocol):
    """What is asked for addresses; real or simulated."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of ``host``, at least one; ResolveError otherwise."""


def literal_address(host: str) -> str | None:
    """
    Return the address that ``host`` writes out, in canonical form, or None for a name.

    What looks like a number and is no plain address (``127.1``, ``0x7f000001``,
    ``2130706433``) is a name here, and as such never resolves: see ``Resolver``.
    """
    try:
        return Endpoint.make(host.strip("[]"), 0).host
    except ValueError:
        return None


class Resolver:
    """
    The resolver described in the module's text; belongs to one event loop.

    Args:
        lookup: asks the system; the default uses threads.
        timeout: seconds a caller waits.
    """

    def __init__(self, *, lookup: Lookup | None = None, timeout: float = LOOKUP_TIMEOUT) -> None:
        self._lookup = ThreadedLookup().lookup if lookup is None else lookup
        self._timeout = timeout
        self._kept: dict[str, tuple[float, tuple[str, ...], str]] = {}
        self._under_way: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def resolve(self, host: str) -> tuple[str, ...]:
        """
        Return the addresses of ``host`` in the order the system prefers.

        Raises:
            ResolveError: it has none, or nobody answered in time.
        """
        address = literal_address(host)
        if address is not None:
            return (address,)
        name = host.rstrip(".").lower()
        kept = self._kept.get(name)
        if kept is not None and kept[0] > asyncio.get_running_loop().time():
            return self._unpack(name, kept)
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.ensure_future(self._ask(name))
            self._under_way[name] = task
            task.add_done_callback(lambda ended: self._ended(name, ended))
        # A caller that is cancelled leaves the lookup to the others; it ends by itself in time.
        await asyncio.wait([task])
        if task.cancelled():
            raise ResolveError(host, "resolver closed")
        return task.result()

    def _ended(self, name: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        self._under_way.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen, even if every caller went away meanwhile

    async def _ask(self, name: str) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        reason = ""
        try:
            _check_name(name)
            async with asyncio.timeout(self._timeout):
                listed = await self._lookup(name)
            found = tuple(dict.fromkeys(_canonical(listed)))[:MAX_ADDRESSES]
        except TimeoutError:
            reason = f"no answer in {self._timeout:g} s"
        except OSError as error:
            reason = error.strerror or str(error)
        lifetime = POSITIVE_LIFETIME if found else NEGATIVE_LIFETIME
        kept = (asyncio.get_running_loop().time() + lifetime, found, reason or "no address")
        self._kept.pop(name, None)
        self._kept[name] = kept
        while len(self._kept) > MAX_ENTRIES:
            del self._kept[next(iter(self._kept))]
        return self._unpack(name, kept)

    @staticmethod
    def _unpack(name: str, kept: tuple[float, tuple[str, ...], str]) -> tuple[str, ...]:
        _, found, reason = kept
        if not found:
            raise ResolveError(name, reason)
        return found

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_name(name: str) -> None:
    """Refuse what the system's resolver would read as an old spelling of an IPv4 address."""
    last = name.rpartition(".")[2]
    # Limit: N6. No top-level domain starts with a digit; 0x7f.1 and 2130706433 do. What stands
    # behind a NUL, with some systems behind a space, is not read: "127.1\0.example.org".
    is_cut = not name.isprintable() or " " in name
    if not name or len(name) > 253 or last[:1].isdigit() or is_cut:
        raise OSError("not a host name")


def _canonical(addresses: list[str]) -> list[str]:
    return [found for address in addresses if (found := literal_address(address)) is not None]


class ThreadedLookup:
    """
    ``socket.getaddrinfo`` in threads of which there are never more than so many.

    By itself it takes every name that the system takes, and waits as long; who gives up waiting,
    or ends the program, leaves the thread behind.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_THREADS)

    async def lookup(self, name: str) -> list[str]:
        """Return the addresses of a name, maybe more than once; OSError when there are none."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[str]] = loop.create_future()

        def settle(result: list[str] | OSError) -> None:
            self._slots.release()
            if done.cancelled():
                return
            if isinstance(result, OSError):
                done.set_exception(result)
            else:
                done.set_result(result)

        def work() -> None:
            result: list[str] | OSError
            try:
                infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                result = [str(info[4][0]) for info in infos]
            except OSError as error:
                result = error
            except UnicodeError:  # a label that is empty, too long or in no alphabet
                result = OSError("not a host name")
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:  # the loop was closed meanwhile: nobody wants to know
                return

        try:
            threading.Thread(target=work, name=f"dns {name}", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._slots.release()
            raise OSError(str(error)) from None
        return await done
