"""
TCP streams on non-blocking sockets, without asyncio's streams.

All streams of one ``TcpNetwork`` read into one buffer, since one callback runs
at a time: an idle connection owns no buffer, and nothing is copied or
allocated per read. Works with every event loop that has ``add_reader``.

Limit: F13 (descriptors).
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import socket
import sys
from collections.abc import Callable, Sequence

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, PeerTimeout
from bittern.net.stream import Buffer, Stream, StreamHandler

ACCEPTS_PER_WAKEUP = 64
"""Connections accepted before other callbacks get their turn."""
ACCEPT_PAUSE = 1.0
"""Limit: F13. Seconds without accepting after an error, such as no descriptor being left."""
LISTEN_BACKLOG = 256


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """
    Refuse an event loop that cannot watch sockets.

    Raises:
        ConfigError: it is the usual one of Windows, with the name of the one to take.
    """
    if type(loop).add_reader is asyncio.AbstractEventLoop.add_reader:
        raise ConfigError(
            f"{type(loop).__name__} cannot watch sockets (add_reader); on Windows run with "
            "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
        )


def _endpoint(address: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return Endpoint.make(address[0], address[1])


class TcpStream:
    """One TCP connection; see ``net.stream.Stream``."""

    __slots__ = (
        "_buffer",
        "_handler",
        "_has_reader",
        "_has_writer",
        "_loop",
        "_sock",
        "_wants_room",
        "remote",
    )

    def __init__(
        self,
        sock: socket.socket,
        remote: Endpoint,
        buffer: memoryview,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._sock: socket.socket | None = sock
        self._loop = loop
        self._buffer = buffer
        self._handler: StreamHandler | None = None
        self._has_reader = False
        self._has_writer = False
        self._wants_room = False
        self.remote: Endpoint = remote

    @property
    def local(self) -> Endpoint:
        """Our own address of this connection."""
        if self._sock is None:
            return Endpoint("0.0.0.0", 0)  # noqa: S104  # unspecified, not bound
        return _endpoint(self._sock.getsockname())

    def start(self, handler: StreamHandler) -> None:
        """Begin to deliver to ``handler``, or go on with another one."""
        self._handler = handler
        self.resume_reading()
        self._watch_for_room()

    def resume_reading(self) -> None:
        """Deliver again; idempotent. Before ``start`` there is nobody to deliver to."""
        if not self._has_reader and self._handler is not None and self._sock is not None:
            self._has_reader = True
            self._loop.add_reader(self._sock.fileno(), self._read)

    def pause_reading(self) -> None:
        """Stop delivering; idempotent."""
        if self._has_reader and self._sock is not None:
            self._has_reader = False
            self._loop.remove_reader(self._sock.fileno())

    def _read(self) -> None:
        sock, handler = self._sock, self._handler
        assert sock is not None
        assert handler is not None
        try:
            length = sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if length:
            handler.data_received(self._buffer[:length])
        else:
            self._lose(None)

    def send(self, data: Buffer) -> int:
        """Send what there is room for; see ``net.stream.Stream.send``."""
        sock = self._sock
        if sock is None:
            return len(data)
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._loop.call_soon(self._lose, error)
            return len(data)
        if sent < len(data):
            self._wants_room = True
            self._watch_for_room()
        return sent

    def _watch_for_room(self) -> None:
        is_needed = self._wants_room and not self._has_writer and self._handler is not None
        if is_needed and self._sock is not None:
            self._has_writer = True
            self._loop.add_writer(self._sock.fileno(), self._write)

    def _write(self) -> None:
        handler = self._handler
        assert handler is not None
        self._wants_room = False
        try:
            handler.writable()
        finally:
            # A handler that fills the socket again at once costs no change of what is watched.
            if not self._wants_room and self._sock is not None:
                self._has_writer = False
                self._loop.remove_writer(self._sock.fileno())

    def _lose(self, error: Exception | None) -> None:
        handler = self._handler
        if handler is not None:
            # Without a handler the end waits in the socket, to be found after ``start``.
            self.close()
            handler.connection_lost(error)

    def close(self) -> None:
        """Close at once; idempotent, and never leads to ``connection_lost``."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._handler = None
        if self._has_reader:
            self._loop.remove_reader(sock.fileno())
        if self._has_writer:
            self._loop.remove_writer(sock.fileno())
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        sock.close()


class TcpListener:
    """A listening TCP socket that hands every new stream to ``accept``."""

    def __init__(
        self,
        sock: socket.socket,
        buffer: memoryview,
        accept: Callable[[Stream], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._sock: socket.socket | None = sock
        self._buffer = buffer
        self._accept = accept
        self._loop = loop
        self._pause: asyncio.TimerHandle | None = None
        self.endpoint: Endpoint = _endpoint(sock.getsockname())
        self._resume()

    def _resume(self) -> None:
        assert self._sock is not None
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._ready)

    def _ready(self) -> None:
        for _ in range(ACCEPTS_PER_WAKEUP):
            if self._sock is None:
                return
            try:
                sock, address = self._sock.accept()
            except (ConnectionAbortedError, ConnectionResetError):  # as Windows calls the same
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The connection is still there and would wake us at once, again and again.
                self._loop.remove_reader(self._sock.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE, self._resume)
                return
            _prepare(sock)
            self._accept(TcpStream(sock, _endpoint(address), self._buffer, self._loop))

    def close(self) -> None:
        """Stop listening; idempotent."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._pause is None:
            self._loop.remove_reader(sock.fileno())
        else:
            self._pause.cancel()
        sock.close()


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        # Requests are small and must not wait for the acknowledgement of the last ones.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _source_for(endpoint: Endpoint, hosts: Sequence[str]) -> str:
    """Return the one of several addresses that the way to an endpoint begins at, else the first."""
    if len(hosts) == 1:
        return hosts[0]
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(tuple(endpoint))  # sends nothing
        host = str(probe.getsockname()[0])
        if host in hosts:
            return host
    return hosts[0]


class TcpNetwork:
    """
    Where TCP streams come from.

    Args:
        receive_buffer_length: bytes of the one buffer that all streams read into;
            also the most that one wake-up of a stream delivers.
        source_hosts: addresses to connect from; of a family without any, or with one that
            stands for all, the system chooses.
    """

    def __init__(
        self, *, receive_buffer_length: int = 1 << 20, source_hosts: Sequence[str] = ()
    ) -> None:
        self._buffer = memoryview(mmap.mmap(-1, receive_buffer_length))
        self._source_hosts = {
            is_ipv6: tuple(host for host in source_hosts if (":" in host) is is_ipv6)
            for is_ipv6 in (False, True)
        }

    async def connect(self, endpoint: Endpoint, *, timeout: float) -> TcpStream:
        """
        Connect to a peer.

        Raises:
            PeerTimeout: not within ``timeout`` seconds.
            OSError: refused, unreachable, or out of descriptors.
        """
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _prepare(sock)
            if hosts := self._source_hosts[endpoint.is_ipv6]:
                sock.bind((_source_for(endpoint, hosts), 0))
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, tuple(endpoint))
        except TimeoutError:
            sock.close()
            raise PeerTimeout(f"no connection to {endpoint} within {timeout:g} s") from None
        except BaseException:
            sock.close()
            raise
        return TcpStream(sock, endpoint, self._buffer, loop)

    def listen(self, host: str, port: int, accept: Callable[[Stream], None]) -> TcpListener:
        """
        Listen; every new stream goes to ``accept``, not yet started.

        Raises:
            OSError: the address is taken or not ours.
        """
        is_ipv6 = ":" in host
        sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":
                # On Windows this option would let two programs listen on one port.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind((host, port))
            sock.listen(LISTEN_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return TcpListener(sock, self._buffer, accept, asyncio.get_running_loop())
