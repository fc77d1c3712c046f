"""
Simulated streams: ``net.stream.Stream`` between two hosts in virtual time.

Bytes go the way they go in TCP: a bounded send buffer, the sender's upload
pipe, the link's delay (in order, whatever the jitter), the receiver's download
pipe, an inbox while the receiver does not read. What is on the way and not yet
read is bounded by a window, so a receiver that stops reading stops its sender.
The window follows the receiver's rate, as a good congestion control's would;
there is no slow start and no header overhead.

``data_received`` gets a view that is overwritten as soon as the call returns,
so code that keeps it is found out.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bittern.core.endpoint import Endpoint
from bittern.net.stream import Buffer, StreamHandler

if TYPE_CHECKING:
    from bittern.testing.host import SimHost, SimListener

SEND_BUFFER_LENGTH = 262_144
"""Bytes that ``send`` takes beyond what has left the host."""
MAX_WINDOW = 1_048_576
"""Bytes on the way of one stream, not yet read."""
_MIN_WINDOW = 16_384
_QUEUE_TIME = 0.2
"""Seconds of the receiver's rate that may queue before its line."""

_SCRIBBLE = bytes([0xDD]) * 65_536


class End:
    """What follows the last byte of one direction; with a reason, it is a reset."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def error(self) -> Exception | None:
        """Return what ``connection_lost`` is told."""
        return None if self.reason is None else ConnectionResetError(self.reason)


class Upload:
    """The sending half: send buffer, window, flight. A flow of the host's upload pipe."""

    def __init__(self, stream: SimStream) -> None:
        self.stream = stream
        self.buffer: bytearray = bytearray()
        self.num_unread: int = 0
        """Bytes that left the buffer and were not handed to the receiver yet."""
        self.wants_room = False
        self.end: End | None = None
        self._num_passing = 0
        self._flying: deque[bytearray | End | SimListener] = deque()
        self._last_arrival_at = 0.0

    def take(self, quantum: int) -> bytearray | None:
        """Cut the next run of bytes, as much as the window allows."""
        buffer, stream = self.buffer, self.stream
        if not buffer:
            return None
        size = min(quantum, len(buffer), self._window() - self.num_unread)
        if size <= 0:
            return None
        data = buffer[:size]
        del buffer[:size]
        self.num_unread += size
        self._num_passing += 1
        if self.wants_room and self.has_room:
            stream.loop.call_soon(stream.tell_writable)
        return data

    @property
    def has_room(self) -> bool:
        """True when somebody waits for room and half of the buffer is free."""
        limit = self.stream.host.network.send_buffer_length
        return self.wants_room and 2 * len(self.buffer) <= limit

    def passed(self, data: bytearray) -> None:
        """Put what left the host on the link."""
        self._num_passing -= 1
        self.fly(data)
        self.end_if_empty()

    def end_if_empty(self) -> None:
        """Send the end of the stream, if it is to end and all bytes have left."""
        if self.end is not None and not self.buffer and not self._num_passing:
            end, self.end = self.end, None
            self.fly(end)

    def _window(self) -> int:
        partner = self.stream.partner
        rate = partner.host.download.rate
        if rate is None:
            return MAX_WINDOW
        delay = self.stream.host.network.link(self.stream.host, partner.host).delay
        share = rate / (1 + partner.host.download.num_waiting)
        return max(_MIN_WINDOW, min(MAX_WINDOW, int(share * (delay + _QUEUE_TIME))))

    def fly(self, what: bytearray | End | SimListener) -> None:
        """Send ``what`` over the link; things arrive in the order in which they left."""
        stream = self.stream
        delay = stream.host.network.draw_delay(stream.host, stream.partner.host)
        self._last_arrival_at = max(self._last_arrival_at, stream.loop.time() + delay)
        self._flying.append(what)
        stream.loop.call_background(self._last_arrival_at, self.arrive)

    def arrive(self) -> None:
        """Hand over the next thing under way, unless the link is cut: then ``heal`` calls again."""
        stream = self.stream
        source, target = stream.host, stream.partner.host
        if source.network.is_cut(source, target):
            source.network.held_up.append(self)
            return
        what = self._flying.popleft()
        if not target.is_gone:
            stream.partner.arrived(what)

    @property
    def hosts(self) -> set[SimHost]:
        """The two machines."""
        return {self.stream.host, self.stream.partner.host}


class Download:
    """The receiving half up to the inbox. A flow of the host's download pipe."""

    def __init__(self, stream: SimStream) -> None:
        self.stream = stream
        self.queue: bytearray = bytearray()
        self.inbox: deque[bytearray] = deque()
        self.end: End | None = None
        self._num_passing = 0

    def take(self, quantum: int) -> bytearray | None:
        """Cut the next run of bytes that wait before the host's line."""
        if not self.queue:
            return None
        data = self.queue[:quantum]
        del self.queue[:quantum]
        self._num_passing += 1
        return data

    def passed(self, data: bytearray) -> None:
        """Put what came through the line into the inbox."""
        self._num_passing -= 1
        self.inbox.append(data)
        self.stream.deliver_soon()

    @property
    def is_idle(self) -> bool:
        """True when nothing waits before the line or is on it."""
        return not (self.queue or self._num_passing)

    @property
    def has_ended(self) -> bool:
        """True when nothing but the end is left to deliver."""
        return self.end is not None and self.is_idle and not self.inbox


class SimStream:
    """One side of a simulated connection; made by ``SimHost.connect`` and by listeners."""

    def __init__(self, host: SimHost, local: Endpoint, remote: Endpoint) -> None:
        self.host = host
        self.loop = host.network.loop
        self.partner: SimStream = self
        self.upload: Upload = Upload(self)
        self.is_over: bool = False
        """Closed by us, or reported lost."""
        self._local = local
        self._remote = remote
        self._download = Download(self)
        self._handler: StreamHandler | None = None
        self._is_paused = False
        self._is_delivery_due = False

    @classmethod
    def make_pair(
        cls, client: SimHost, local: Endpoint, server: SimHost, remote: Endpoint
    ) -> tuple[SimStream, SimStream]:
        """
        Return the client's and the server's side of a new connection.

        The server's is open from when it is accepted on: before that nobody there knows it.
        """
        ours, theirs = cls(client, local, remote), cls(server, remote, local)
        ours.partner, theirs.partner = theirs, ours
        client.streams[ours] = None
        return ours, theirs

    # --- net.stream.Stream -------------------------------------------------------------------

    @property
    def remote(self) -> Endpoint:
        """The other side's address."""
        return self._remote

    @property
    def local(self) -> Endpoint:
        """Our own address of this connection."""
        return self._local

    def start(self, handler: StreamHandler) -> None:
        """Begin to deliver to ``handler``, in a later step of the loop; ends a pause."""
        self._handler = handler
        self.resume_reading()
        if self.upload.has_room:
            self.loop.call_soon(self.tell_writable)

    def send(self, data: Buffer) -> int:
        """Take what fits into the send buffer; on a stream that is over, take and drop all."""
        if self.is_over:
            return len(data)
        upload = self.upload
        room = self.host.network.send_buffer_length - len(upload.buffer)
        if room < len(data):
            upload.wants_room = True
            data = memoryview(data)[: max(room, 0)]
        if not data:
            return 0
        upload.buffer += data
        self.host.upload.wake(upload)
        return len(data)

    def pause_reading(self) -> None:
        """Stop delivering; the window fills and the sender stops."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Deliver again, in a later step of the loop."""
        self._is_paused = False
        self.deliver_soon()

    def close(self) -> None:
        """End in order: the other side gets everything taken, then the end."""
        if not self.is_over:
            self._finish("close")
            self.upload.end = End(None)
            self.upload.end_if_empty()

    # --- for tests and the network -----------------------------------------------------------

    def reset(self, reason: str = "connection reset by peer") -> None:
        """End abruptly: nothing that waits here is sent, the other side gets an error."""
        if not self.is_over:
            self._finish("reset")
            self.upload.buffer.clear()
            self.upload.fly(End(reason))

    def forget(self) -> None:
        """End without a word to anybody, as a machine that loses its power."""
        if not self.is_over:
            self._finish("forget")
            self.upload.buffer.clear()

    def _finish(self, how: str) -> None:
        self.is_over = True
        self._handler = None
        self.host.streams.pop(self, None)
        self.host.network.record(how, self._local, self._remote)

    def tell_writable(self) -> None:
        """Call the handler's ``writable``, unless the stream ended meanwhile."""
        if self._handler is not None and self.upload.has_room:
            self.upload.wants_room = False
            self._handler.writable()

    def arrived(self, what: bytearray | End | SimListener) -> None:
        """Take what came over the link: bytes, the end, or the start of an accepted stream."""
        if isinstance(what, bytearray):
            # Bytes for a stream that is over go nowhere, and the sender's window stays shut.
            if self.is_over:
                return
            download, line = self._download, self.host.download
            if line.rate is None and download.is_idle:
                # A line without a limit is no line: half of the cost of a small message.
                line.total += len(what)
                download.inbox.append(what)
                self.deliver_soon()
            else:
                download.queue += what
                line.wake(download)
        elif isinstance(what, End):
            self._download.end = what
            if what.reason is not None:
                self._download.queue.clear()
                self._download.inbox.clear()
            self.deliver_soon()
        elif what.is_open:
            self.host.streams[self] = None
            self.host.network.record("accept", self._local, self._remote)
            what.accept(self)
        else:
            self.reset("connection refused")

    def deliver_soon(self) -> None:
        """Have the inbox delivered in the next step of the loop."""
        if not self._is_delivery_due:
            self._is_delivery_due = True
            self.loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_delivery_due = False
        download, sender = self._download, self.partner.upload
        while download.inbox and self._handler is not None and not self._is_paused:
            data = download.inbox.popleft()
            self.host.network.record_data(data, self._remote, self._local)
            sender.num_unread -= len(data)
            if sender.buffer:
                self.partner.host.upload.wake(sender)
            try:
                self._handler.data_received(memoryview(data))
            finally:
                data[:] = _SCRIBBLE[: len(data)]
        if download.has_ended and self._handler is not None and not self._is_paused:
            handler, end = self._handler, download.end
            assert end is not None
            self._finish("lost")
            self.upload.buffer.clear()
            handler.connection_lost(end.error())

    def __repr__(self) -> str:
        return f"<SimStream {self._local} to {self._remote}{' over' if self.is_over else ''}>"
