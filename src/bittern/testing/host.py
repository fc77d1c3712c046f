"""
A machine of the simulated network: what ``net.stream.Network`` is to its program.

It has addresses, an access line with a rate each way, ports, and a state: a
firewall that answers nothing, a crash that resets all its streams, or gone
without a word.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerTimeout
from bittern.net.stream import Stream
from bittern.net.udp import ReceiveDatagram
from bittern.testing.datagrams import SimDatagrams
from bittern.testing.pipe import Pipe
from bittern.testing.stream import SimStream

if TYPE_CHECKING:
    from bittern.testing.network import SimNetwork

_FIRST_FREE_PORT = 49_152


class SimHost:
    """
    One machine: the ``Network`` of the program that runs on it.

    Attributes:
        upload, download: its access line; ``rate`` may change at any time.
        is_reachable: False makes it ignore connections and unasked-for datagrams.
        is_gone: it has vanished or crashed.
        streams: those that are open.
    """

    def __init__(self, network: SimNetwork, addresses: tuple[str, ...]) -> None:
        self.network = network
        self.addresses = addresses
        self.upload: Pipe = Pipe(network.loop, None)
        self.download: Pipe = Pipe(network.loop, None)
        self.is_reachable = True
        self.is_gone: bool = False
        self.streams: dict[SimStream, None] = {}
        self._listeners: dict[Endpoint, SimListener] = {}
        self._sockets: dict[Endpoint, SimDatagrams] = {}
        self._next_port = _FIRST_FREE_PORT

    def __str__(self) -> str:
        return self.addresses[0]

    # --- net.stream.Network ------------------------------------------------------------------

    async def connect(self, endpoint: Endpoint, *, timeout: float) -> Stream:
        """
        Connect; takes two delays of the link.

        Raises:
            ConnectionRefusedError: nobody listens there.
            PeerTimeout: no answer: no such machine, a cut link, a firewall.
            OSError: this machine has no address of that family.
        """
        network = self.network
        network.attempts[endpoint] += 1
        local = Endpoint(self.address_towards(endpoint.host), self.take_port())
        network.record("connect", local, endpoint)
        future: asyncio.Future[SimStream] = network.loop.create_future()
        dial = _Dial(self, local, endpoint, future)
        dial.start()
        is_taken = False
        try:
            async with asyncio.timeout(timeout):
                connected = await future
            is_taken = True
            return connected
        except TimeoutError:
            raise PeerTimeout(f"no answer from {endpoint} in {timeout:g} s") from None
        finally:
            # Cancelled at the very moment of success: nobody else could close the stream.
            if not is_taken and _has_succeeded(future):
                future.result().reset()

    def listen(self, host: str, port: int, accept: Callable[[Stream], None]) -> SimListener:
        """Listen on an address of this machine, or on ``0.0.0.0`` or ``::`` for all of a family."""
        keys = self._claim(host, port, self._listeners)
        listener = SimListener(self, Endpoint(host, keys[0].port), accept)
        self._listeners.update(dict.fromkeys(keys, listener))
        return listener

    # --- datagrams ---------------------------------------------------------------------------

    def open_datagrams(
        self, host: str, port: int, receive: ReceiveDatagram, *, queue_length: int = 262_144
    ) -> SimDatagrams:
        """
        Open a datagram socket.

        Args:
            host: as for ``listen``.
            port: 0 for any free one.
            receive: called as ``receive(data, source)``; the data is valid until it returns.
            queue_length: bytes that may wait before this machine's line, each way;
                more are dropped.
        """
        keys = self._claim(host, port, self._sockets)
        made = SimDatagrams(self, Endpoint(host, keys[0].port), receive, queue_length)
        self._sockets.update(dict.fromkeys(keys, made))
        return made

    # --- faults ------------------------------------------------------------------------------

    def crash(self) -> None:
        """End the program on this machine: listeners close, peers get a reset."""
        self._end(SimStream.reset)

    def vanish(self) -> None:
        """Take the machine off the network without a word; its peers hear nothing more."""
        self.is_gone = True
        self._end(SimStream.forget)

    def _end(self, end_stream: Callable[[SimStream], None]) -> None:
        self.network.record("vanish" if self.is_gone else "crash", self)
        for stream in list(self.streams):
            end_stream(stream)
        for listener in list(self._listeners.values()):
            listener.close()
        for socket in list(self._sockets.values()):
            socket.close()

    # --- for the network ---------------------------------------------------------------------

    def address_towards(self, address: str) -> str:
        """Return our address of the same family as ``address``; OSError if there is none."""
        for ours in self.addresses:
            if (":" in ours) == (":" in address):
                return ours
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH), address)

    def take_port(self) -> int:
        """Return a port that was not given out before."""
        port, self._next_port = self._next_port, self._next_port + 1
        return port

    def listener_at(self, endpoint: Endpoint) -> SimListener | None:
        """Return who listens at one of our addresses."""
        return self._listeners.get(endpoint)

    def datagrams_at(self, endpoint: Endpoint) -> SimDatagrams | None:
        """Return the datagram socket at one of our addresses."""
        return self._sockets.get(endpoint)

    def release(self, thing: SimListener | SimDatagrams) -> None:
        """Free the port of what was closed."""
        self._listeners = {k: v for k, v in self._listeners.items() if v is not thing}
        self._sockets = {k: v for k, v in self._sockets.items() if v is not thing}

    def open_things(self) -> list[object]:
        """Return streams, listeners and datagram sockets that are open."""
        things = [*self.streams, *self._listeners.values(), *self._sockets.values()]
        return list(dict.fromkeys(things))

    def _claim(self, host: str, port: int, taken: Mapping[Endpoint, object]) -> list[Endpoint]:
        if host in ("0.0.0.0", "::"):  # noqa: S104  # names of this simulation's addresses
            addresses = [ours for ours in self.addresses if (":" in ours) == (host == "::")]
        else:
            addresses = [ours for ours in self.addresses if ours == host]
        if not addresses:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL), host)
        port = port or self.take_port()
        keys = [Endpoint(address, port) for address in addresses]
        if any(key in taken for key in keys):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), f"{host}:{port}")
        return keys


class SimListener:
    """A listening port; made by ``SimHost.listen``."""

    def __init__(self, host: SimHost, endpoint: Endpoint, accept: Callable[[Stream], None]) -> None:
        self.accept = accept
        self.is_open: bool = True
        self._host = host
        self._endpoint = endpoint

    @property
    def endpoint(self) -> Endpoint:
        """The address listened on, with the real port."""
        return self._endpoint

    def close(self) -> None:
        """Refuse connections from now on."""
        if self.is_open:
            self.is_open = False
            self._host.release(self)

    def __repr__(self) -> str:
        return f"<SimListener {self._endpoint} of {self._host}>"


def _has_succeeded(future: asyncio.Future[SimStream]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


class _Dial:
    """One connection attempt: there, and back again."""

    def __init__(
        self,
        client: SimHost,
        local: Endpoint,
        remote: Endpoint,
        answer: asyncio.Future[SimStream],
    ) -> None:
        self._client = client
        self._local = local
        self._remote = remote
        self._answer = answer
        self._network = client.network

    def start(self) -> None:
        """Send the request, if there is a machine that could get it."""
        server = self._network.host_of(self._remote.host)
        if server is not None:
            self._later(server, self._reach)

    def _later(self, server: SimHost, step: Callable[[SimHost], None]) -> None:
        delay = self._network.draw_delay(self._client, server)
        loop = self._network.loop
        loop.call_background(loop.time() + delay, self._step, server, step)

    def _step(self, server: SimHost, step: Callable[[SimHost], None]) -> None:
        is_lost = self._network.is_cut(self._client, server) or server.is_gone
        if not (is_lost or self._client.is_gone or self._answer.done()):
            step(server)

    def _reach(self, server: SimHost) -> None:
        if server.is_reachable:
            is_open = server.listener_at(self._remote) is not None
            self._later(server, self._succeed if is_open else self._fail)

    def _fail(self, _server: SimHost) -> None:
        self._network.record("refused", self._local, self._remote)
        text = f"nobody listens at {self._remote}"
        self._answer.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, text))

    def _succeed(self, server: SimHost) -> None:
        listener = server.listener_at(self._remote)
        if listener is None:
            self._fail(server)
            return
        ours, _ = SimStream.make_pair(self._client, self._local, server, self._remote)
        ours.upload.fly(listener)
        self._answer.set_result(ours)
