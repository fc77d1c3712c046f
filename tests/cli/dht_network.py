"""DHT nodes of this machine, for tests whose command lines run in the main thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from bittern.core.endpoint import Endpoint
from bittern.dht.limits import DhtConfig
from bittern.net.dht import Dht
from bittern.net.dht_host import open_dht

HOST = "127.0.0.1"
DEADLINE = 20.0

T = TypeVar("T")


class DhtNetwork:
    """
    A few nodes that know each other, in a thread and an event loop of their own.

    Args:
        num_nodes: how many.
    """

    def __init__(self, num_nodes: int = 4) -> None:
        self._num_nodes = num_nodes
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.nodes: list[Dht] = []

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main())

    def __enter__(self) -> DhtNetwork:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    @property
    def endpoint(self) -> Endpoint:
        """Of the node that all others know."""
        return self.nodes[0].stats()[0].endpoint

    @property
    def options(self) -> tuple[str, ...]:
        """What a command line needs to get into this network and no other."""
        return ("--bind", HOST, "--bootstrap", str(self.endpoint), "--timeout", "20")

    def run(self, ask: Callable[[Dht], Awaitable[T]]) -> T:
        """Let the first node do something and return the result."""

        async def work() -> T:
            return await ask(self.nodes[0])

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(DEADLINE)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            for _ in range(self._num_nodes):
                first = [(HOST, node.stats()[0].endpoint.port) for node in self.nodes[:1]]
                context = open_dht(
                    hosts=(HOST,), bootstrap=first, config=DhtConfig(max_upload_rate=1e6)
                )
                node = await stack.enter_async_context(context)
                await node.bootstrap()
                self.nodes.append(node)
            until = self._loop.time() + DEADLINE
            while self.nodes[0].num_nodes < self._num_nodes - 1:
                assert self._loop.time() < until, [node.num_nodes for node in self.nodes]
                await asyncio.sleep(0.02)
            self._ready.set()
            await self._stop.wait()
