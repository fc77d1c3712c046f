"""
One peer connection as a machine without I/O: framing, flags, requests.

``receive_data`` takes whatever arrived and queues events; verbs such as
``request_run`` queue messages, which ``data_to_send`` hands out. Blocks travel
in batches: all block payloads between two other messages become one
``BlocksReceived`` whose memoryviews lie in the caller's buffer and are valid
until the caller's buffer is used again, so events must be drained before that.

Theory of operation. A connection is in HANDSHAKE until 68 good bytes came,
then OPEN, and CLOSED after the first violation or ``close``. Requests that we
sent stand in ``outstanding`` until the block, a reject or a drop; a dropped one
stays in ``_late`` for a while, because its block may already be on the way.
Requests that the peer sent stand in ``incoming`` in order of arrival until they
are taken to be served, cancelled or, when we choke, rejected.

Limits: H1 message lengths, H6 bitfield and have abuse, H14 repeated extended
handshakes; those of the peer's requests are in ``proto.incoming``.

Sources: BEP 3, BEP 5 (port), BEP 6, BEP 10, BEP 52 (hash messages), BEP 54.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from bittern.codec import extension, wire
from bittern.codec.extension import ExtendedHandshake
from bittern.codec.wire import Handshake, MessageId, Reserved
from bittern.core.bitfield import Bitfield
from bittern.core.errors import MisuseError, PeerViolation, WireDecodeError
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, PeerId
from bittern.proto import peer_events
from bittern.proto.incoming import IncomingRequests, WindowCounter
from bittern.proto.peer_events import PeerEvent, ReceivedBlock, Request

MAX_REDUNDANT_HAVES = 10_000
"""Limit: H6. Repeated have messages within a minute before the connection is closed."""
MAX_EXTENDED_HANDSHAKES = 10
"""Limit: H14."""
MAX_LATE_REQUESTS = 4_000
"""Dropped requests whose blocks are still taken when they arrive."""
MAX_UNEXPECTED_BLOCKS = 500
"""Blocks never asked for before the connection is closed."""
UT_METADATA = "ut_metadata"
UT_PEX = "ut_pex"
LT_DONT_HAVE = "lt_donthave"
LOCAL_EXTENSIONS: Mapping[str, int] = {UT_PEX: 1, UT_METADATA: 2, LT_DONT_HAVE: 7}
"""Ids under which we want to receive extended messages (BEP 10)."""
_BEFORE_BITFIELD = {
    MessageId.PORT,
    MessageId.EXTENDED,
    MessageId.BITFIELD,
    MessageId.HAVE_ALL,
    MessageId.HAVE_NONE,
}
_EXTENSION_NAMES = {number: name for name, number in LOCAL_EXTENSIONS.items()}


class PeerState(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


class PeerProtocol:
    """
    The machine described in the module's text.

    Args:
        info_hashes: the 20-byte hashes under which the torrent is known; the
            first is the one that we send.
        peer_id: our own.
        reserved: what we announce in the handshake.
        geometry: None while the metadata is unknown.

    The handshake is queued at once. ``geometry`` is set later with
    ``learn_geometry``.
    """

    __slots__ = (
        "_bitfield_possible",
        "_events",
        "_geometry",
        "_have_windows",
        "_late",
        "_num_extended_handshakes",
        "_num_unexpected",
        "_out",
        "_pending_bitfield",
        "_pending_haves",
        "_tail",
        "am_choking",
        "am_interested",
        "incoming",
        "info_hashes",
        "outstanding",
        "peer_choking",
        "peer_id",
        "peer_interested",
        "remote",
        "remote_allowed_fast",
        "remote_extensions",
        "remote_handshake",
        "state",
    )

    def __init__(
        self,
        *,
        info_hashes: tuple[InfoHash, ...],
        peer_id: PeerId,
        reserved: Reserved,
        geometry: Geometry | None,
    ) -> None:
        self.info_hashes = info_hashes
        self.peer_id = peer_id
        self.state = PeerState.HANDSHAKE
        self.am_choking = True
        self.am_interested = False
        self.peer_choking = True
        self.peer_interested = False
        self.remote: Bitfield | None = None
        """What the peer has; None while the metadata is unknown."""
        self.remote_handshake: Handshake | None = None
        self.remote_extensions: Mapping[str, int] = {}
        self.remote_allowed_fast: dict[int, None] = {}
        """Pieces we may ask for while choked."""
        self.outstanding: dict[int, int] = {}
        """Our requests: ``index << 32 | begin`` to length, oldest first."""
        self.incoming = IncomingRequests()
        """The peer's requests."""
        self._geometry = geometry
        self._out: list[bytes] = [wire.encode_handshake(info_hashes[0], peer_id, reserved)]
        self._events: list[PeerEvent] = []
        self._tail = bytearray()
        self._late: dict[int, int] = {}
        self._bitfield_possible = True
        self._pending_bitfield: bytes | None = None
        self._pending_haves: set[int] = set()
        self._num_extended_handshakes = 0
        self._num_unexpected = 0
        self._have_windows = WindowCounter()
        if geometry is not None:
            self.remote = Bitfield(geometry.num_pieces)

    # --- in ------------------------------------------------------------------------------

    def receive_data(self, data: memoryview, *, now: float) -> None:
        """
        Take bytes that arrived and queue the events they make.

        Args:
            data: any number of bytes; block payloads in events point into it.
            now: monotonic seconds.

        Raises:
            PeerViolation: the peer broke the protocol. Events from before the
                violation can still be drained; later bytes are ignored.
        """
        if self.state is PeerState.CLOSED:
            return
        try:
            if self._tail:
                data = self._complete_tail(data, now)
            end = len(data)
            if end:
                used = self._parse(data, end, now)
                if used < end:
                    self._tail = bytearray(data[used:])
        except WireDecodeError as error:
            self.state = PeerState.CLOSED
            raise PeerViolation(str(error)) from error
        except PeerViolation:
            self.state = PeerState.CLOSED
            raise

    def _complete_tail(self, data: memoryview, now: float) -> memoryview:
        """Add to the incomplete message only what it lacks, and return the rest of ``data``."""
        while self._tail and data:
            tail = self._tail
            if self.state is PeerState.HANDSHAKE:
                lacking = wire.HANDSHAKE_LENGTH - len(tail)
            elif len(tail) < 5:
                lacking = (4 if len(tail) < 4 else 5) - len(tail)
            else:
                lacking = 4 + wire.LENGTH_PREFIX.unpack_from(tail)[0] - len(tail)
            tail += data[:lacking]
            data = data[lacking:]
            used = self._parse(memoryview(tail), len(tail), now)
            if used:
                # A new object: events hold views into the old one.
                self._tail = bytearray()
        return data

    def _parse(self, view: memoryview, end: int, now: float) -> int:
        """Walk over all whole messages in ``view`` and return the offset behind the last."""
        position = 0
        if self.state is PeerState.HANDSHAKE:
            if end < wire.HANDSHAKE_LENGTH:
                wire.check_handshake_start(view[:end])
                return 0
            self._accept_handshake(view)
            position = wire.HANDSHAKE_LENGTH
        unpack, unpack_short = wire.PIECE_HEADER.unpack_from, wire.LENGTH_AND_ID.unpack_from
        pop_outstanding = self.outstanding.pop
        blocks: list[ReceivedBlock] = []
        while end - position >= 4:
            if end - position >= 13:
                length, kind, index, begin = unpack(view, position)
            elif end - position >= 5:
                length, kind = unpack_short(view, position)
            else:
                (length,) = wire.LENGTH_PREFIX.unpack_from(view, position)
                if length:
                    break
            if not length:
                position += 4
                continue
            after = position + 4 + length
            if after > end:
                self._check_length(kind, length)
                break
            if kind == 7 and length > 9:
                asked = pop_outstanding(index << 32 | begin, 0)
                if asked == length - 9 or self._is_late(index, begin, length - 9, asked):
                    blocks.append((index, begin, view[position + 13 : after]))
            else:
                if blocks:
                    self._events.append(peer_events.BlocksReceived(blocks))
                    blocks = []
                self._check_length(kind, length)
                self._handle(kind, view[position + 5 : after], now)
            position = after
        if blocks:
            self._bitfield_possible = False
            self._events.append(peer_events.BlocksReceived(blocks))
        return position

    def _check_length(self, kind: int, length: int) -> None:
        wire.check_length(
            kind, length, num_pieces=None if self._geometry is None else self._geometry.num_pieces
        )

    def _accept_handshake(self, view: memoryview) -> None:
        handshake = wire.decode_handshake(view)
        if handshake.info_hash not in self.info_hashes:
            raise PeerViolation("handshake names another torrent")
        if handshake.peer_id == self.peer_id:
            raise PeerViolation("connected to ourselves")
        self.remote_handshake = handshake
        self.state = PeerState.OPEN
        self._events.append(peer_events.HandshakeReceived(handshake))

    def _is_late(self, index: int, begin: int, length: int, asked: int) -> bool:
        """Tell whether a block that is not outstanding was asked for earlier."""
        if asked:
            raise PeerViolation(f"sends {length} bytes for a block of {asked}")
        if self._late.pop(index << 32 | begin, 0) == length:
            return True
        wire.check_length(MessageId.PIECE, length + 9, num_pieces=None)
        self._num_unexpected += 1
        if self._num_unexpected > MAX_UNEXPECTED_BLOCKS:
            raise PeerViolation("sends blocks that nobody asked for")
        self._events.append(peer_events.UnexpectedBlockReceived(length))
        return False

    def _handle(self, kind: int, payload: memoryview, now: float) -> None:
        """Act on one whole message that is no block; its length has been checked."""
        if kind not in _BEFORE_BITFIELD:
            self._bitfield_possible = False
        match kind:
            case MessageId.REQUEST:
                self._handle_request(wire.THREE_NUMBERS.unpack(payload), now)
            case MessageId.HAVE:
                self._handle_have(int.from_bytes(payload, "big"), now)
            case MessageId.CHOKE:
                self._handle_choke()
            case MessageId.UNCHOKE:
                if self.peer_choking:
                    self.peer_choking = False
                    self._events.append(peer_events.Unchoked())
            case MessageId.INTERESTED | MessageId.NOT_INTERESTED:
                is_interested = kind == MessageId.INTERESTED
                if self.peer_interested is not is_interested:
                    self.peer_interested = is_interested
                    self._events.append(peer_events.InterestChanged(is_interested))
            case MessageId.CANCEL:
                request = wire.THREE_NUMBERS.unpack(payload)
                if self.incoming.cancel(request):
                    self.reject(request)
            case MessageId.BITFIELD | MessageId.HAVE_ALL | MessageId.HAVE_NONE:
                self._handle_bitfield(kind, payload, now)
            case MessageId.EXTENDED:
                self._handle_extended(payload)
            case MessageId.PORT:
                self._events.append(peer_events.PortReceived(int.from_bytes(payload, "big")))
            case MessageId.REJECT_REQUEST | MessageId.SUGGEST_PIECE | MessageId.ALLOWED_FAST:
                self._handle_fast(kind, payload)
            case MessageId.HASH_REQUEST:
                self._events.append(peer_events.HashesRequested(wire.decode_hash_range(payload)))
            case MessageId.HASHES:
                what = wire.decode_hash_range(payload)
                self._events.append(peer_events.HashesReceived(what, bytes(payload[48:])))
            case MessageId.HASH_REJECT:
                self._events.append(peer_events.HashesRejected(wire.decode_hash_range(payload)))
            case _:
                pass  # BEP 3 says nothing about unknown ids; every client ignores them.

    def _handle_choke(self) -> None:
        if self.peer_choking:
            return
        self.peer_choking = True
        # BEP 6: with the fast extension each request is rejected by itself.
        dropped = [] if self.has_fast else self.drop_outstanding()
        self._events.append(peer_events.Choked(dropped))

    def _handle_request(self, request: Request, now: float) -> None:
        if self._geometry is None or not self._geometry.is_valid_request(*request):
            raise PeerViolation("requests what does not exist: {}:{}+{}".format(*request))
        was_idle = not self.incoming
        if not self.incoming.admit(request, is_choked=self.am_choking, now=now):
            self.reject(request)
        elif was_idle:
            self._events.append(peer_events.RequestsReceived())

    def _handle_have(self, index: int, now: float) -> None:
        if self.remote is None:
            if index >= (wire.MAX_BITFIELD_LENGTH - 1) * 8:
                raise PeerViolation(f"has piece {index}")
            self._pending_haves.add(index)
            return
        if index >= self.remote.num_pieces:
            raise PeerViolation(f"has piece {index} of {self.remote.num_pieces}")
        if index in self.remote:
            if self._have_windows.add(now=now) > MAX_REDUNDANT_HAVES:
                raise PeerViolation("repeats have messages")
            return
        self.remote.add(index)
        self._events.append(peer_events.HaveReceived(index))

    def _handle_bitfield(self, kind: int, payload: memoryview, now: float) -> None:
        # Interop: some clients send the extended handshake or their DHT port first,
        # so those two do not end the time in which a bitfield may come.
        if not self._bitfield_possible:
            if kind == MessageId.BITFIELD and self.remote is not None:
                self._handle_late_bitfield(self.remote, payload, now)
                return
            raise PeerViolation("bitfield is not the first message")
        self._bitfield_possible = False
        if kind != MessageId.BITFIELD:
            self._require_fast(kind)
        if self._geometry is None:
            self._pending_bitfield = {
                MessageId.HAVE_ALL: b"all",
                MessageId.HAVE_NONE: b"none",
            }.get(MessageId(kind)) or b"=" + bytes(payload)
            return
        self._set_remote(kind, payload)

    def _handle_late_bitfield(self, remote: Bitfield, payload: memoryview, now: float) -> None:
        # Interop: aria2 sends a bitfield anew instead of many have messages.
        if self._have_windows.add(now=now) > MAX_REDUNDANT_HAVES:
            raise PeerViolation("repeats bitfields")
        for index in remote.missing_from(Bitfield.from_wire(payload, remote.num_pieces)):
            remote.add(index)
            self._events.append(peer_events.HaveReceived(index))

    def _set_remote(self, kind: int, payload: bytes | memoryview) -> None:
        assert self._geometry is not None
        num_pieces = self._geometry.num_pieces
        if kind == MessageId.HAVE_ALL:
            self.remote = Bitfield.full(num_pieces)
        elif kind == MessageId.HAVE_NONE:
            self.remote = Bitfield(num_pieces)
        else:
            self.remote = Bitfield.from_wire(payload, num_pieces)
        self._events.append(peer_events.BitfieldReceived(self.remote))

    def _require_fast(self, kind: int) -> None:
        if not self.has_fast:
            raise PeerViolation(f"{MessageId(kind).name.lower()} without the fast extension")

    def _handle_fast(self, kind: int, payload: memoryview) -> None:
        self._require_fast(kind)
        if kind == MessageId.REJECT_REQUEST:
            request = wire.THREE_NUMBERS.unpack(payload)
            key = request[0] << 32 | request[1]
            if self.outstanding.get(key) == request[2]:
                del self.outstanding[key]
                self._events.append(peer_events.RequestRejected(request))
            else:
                self._late.pop(key, None)
            return
        index = int.from_bytes(payload, "big")
        if self._geometry is None:
            return
        if index >= self._geometry.num_pieces:
            # Interop: libtorrent ignores these too; old clients count past a short torrent.
            return
        if kind == MessageId.SUGGEST_PIECE:
            self._events.append(peer_events.PieceSuggested(index))
        elif len(self.remote_allowed_fast) < 100:
            self.remote_allowed_fast[index] = None
            self._events.append(peer_events.FastAllowed(index))

    def _handle_extended(self, payload: memoryview) -> None:
        extension_id = payload[0]
        if extension_id == 0:
            self._num_extended_handshakes += 1
            if self._num_extended_handshakes > MAX_EXTENDED_HANDSHAKES:
                raise PeerViolation("repeats the extended handshake")
            handshake = extension.decode_extended_handshake(payload[1:])
            merged = {**self.remote_extensions, **handshake.extensions}
            self.remote_extensions = {name: number for name, number in merged.items() if number}
            self._events.append(peer_events.ExtendedHandshakeReceived(handshake))
            return
        name = _EXTENSION_NAMES.get(extension_id)
        if name == LT_DONT_HAVE:
            self._handle_dont_have(extension.decode_dont_have(payload[1:]))
        elif name is not None:
            self._events.append(peer_events.ExtensionReceived(name, bytes(payload[1:])))

    def _handle_dont_have(self, index: int) -> None:
        if self.remote is not None and index in self.remote:
            self.remote.discard(index)
            self._events.append(peer_events.DontHaveReceived(index))

    # --- state ---------------------------------------------------------------------------

    @property
    def has_fast(self) -> bool:
        """True when both sides speak the fast extension (BEP 6)."""
        return self.remote_handshake is not None and self.remote_handshake.reserved.has_fast

    @property
    def has_extensions(self) -> bool:
        """True when the peer speaks the extension protocol (BEP 10)."""
        return self.remote_handshake is not None and self.remote_handshake.reserved.has_extensions

    def learn_geometry(self, geometry: Geometry) -> None:
        """
        Tell the sizes of the torrent once the metadata is there.

        Raises:
            PeerViolation: what the peer said earlier does not fit it.
        """
        self._geometry = geometry
        self.remote = Bitfield(geometry.num_pieces)
        pending, self._pending_bitfield = self._pending_bitfield, None
        try:
            if pending == b"all":
                self._set_remote(MessageId.HAVE_ALL, b"")
            elif pending is not None and pending != b"none":
                self._set_remote(MessageId.BITFIELD, pending[1:])
        except WireDecodeError as error:
            self.state = PeerState.CLOSED
            raise PeerViolation(str(error)) from error
        haves, self._pending_haves = self._pending_haves, set()
        for index in sorted(haves):
            self._handle_have(index, 0.0)

    def events(self) -> list[PeerEvent]:
        """Return and forget the queued events, oldest first."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Return and forget the queued messages."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    @property
    def has_data_to_send(self) -> bool:
        """True when ``data_to_send`` would return something."""
        return bool(self._out)

    def close(self) -> None:
        """Ignore all further bytes."""
        self.state = PeerState.CLOSED

    # --- verbs ---------------------------------------------------------------------------

    def request_run(self, index: int, begin: int, end: int) -> None:
        """
        Ask for adjacent blocks of one piece.

        Args:
            index: of the piece.
            begin: where the first block starts, a multiple of 16 KiB.
            end: where the last block ends; at most the length of the piece.
        """
        pack, append, outstanding = wire.REQUEST_MESSAGE.pack, self._out.append, self.outstanding
        key = index << 32
        for at in range(begin, end, BLOCK_LENGTH):
            length = min(BLOCK_LENGTH, end - at)
            outstanding[key | at] = length
            append(pack(13, 6, index, at, length))

    def cancel(self, index: int, begin: int) -> None:
        """Take back a request; its block is still accepted should it come anyway."""
        key = index << 32 | begin
        length = self.outstanding.pop(key, 0)
        if length:
            self._remember_late(key, length)
            self._out.append(wire.encode_cancel(index, begin, length))

    def drop_outstanding(self) -> list[Request]:
        """Give up all our requests without a message and return them."""
        dropped = [
            (key >> 32, key & 0xFFFFFFFF, length) for key, length in self.outstanding.items()
        ]
        for key, length in self.outstanding.items():
            self._remember_late(key, length)
        self.outstanding.clear()
        return dropped

    def _remember_late(self, key: int, length: int) -> None:
        self._late[key] = length
        if len(self._late) > MAX_LATE_REQUESTS:
            del self._late[next(iter(self._late))]

    def set_interested(self, is_interested: bool) -> None:
        """Tell the peer whether we want something of it, if that has changed."""
        if is_interested is not self.am_interested:
            self.am_interested = is_interested
            self._out.append(wire.INTERESTED if is_interested else wire.NOT_INTERESTED)

    def choke(self, *, now: float) -> None:
        """Stop serving the peer; with the fast extension each waiting request is rejected."""
        if self.am_choking:
            return
        self.am_choking = True
        self._out.append(wire.CHOKE)
        for request in self.incoming.choke(now=now):
            self.reject(request)

    def unchoke(self) -> None:
        """Start serving the peer."""
        if self.am_choking:
            self.am_choking = False
            self._out.append(wire.UNCHOKE)

    def reject(self, request: Request) -> None:
        """Refuse a request of the peer; without the fast extension silently (BEP 6)."""
        if self.has_fast:
            self._out.append(wire.encode_reject(*request))

    def send_bitfield(self, have: Bitfield) -> None:
        """
        Tell what we have; the first message after the handshake.

        Must be called after the peer's handshake came when have all and have
        none are to be used (BEP 6).
        """
        if self.has_fast and have.is_full:
            self._out.append(wire.HAVE_ALL)
        elif self.has_fast and not have:
            self._out.append(wire.HAVE_NONE)
        elif have:
            self._out.append(wire.encode_bitfield(have.to_wire()))

    def send_have(self, index: int) -> None:
        """Tell that we have one more piece."""
        self._out.append(wire.encode_have(index))

    def send_dont_have(self, index: int) -> None:
        """Tell that we lost a piece, to peers that understand it (BEP 54)."""
        self.send_extension(LT_DONT_HAVE, extension.encode_dont_have(index))

    def send_allowed_fast(self, indices: Iterable[int]) -> None:
        """Grant pieces to be requested while choked (BEP 6)."""
        if not self.has_fast:
            return
        granted = frozenset(indices)
        self.incoming.allow_fast(granted, self._geometry)
        self._out.extend(
            wire.encode_index(MessageId.ALLOWED_FAST, index) for index in sorted(granted)
        )

    def send_extended_handshake(self, handshake: ExtendedHandshake) -> None:
        """Tell our extensions, to peers that speak BEP 10; may be repeated."""
        if self.has_extensions:
            payload = extension.encode_extended_handshake(handshake)
            self._out.append(wire.encode_extended(0, payload))

    def send_extension(self, name: str, payload: bytes) -> bool:
        """Send a message of an extension; False when the peer does not speak it."""
        number = self.remote_extensions.get(name)
        if number is None:
            return False
        self._out.append(wire.encode_extended(number, payload))
        return True

    def send_message(self, message: bytes) -> None:
        """Queue a message that was encoded elsewhere: port, keep-alive, hash messages."""
        if self.state is PeerState.CLOSED:
            raise MisuseError("message for a closed connection")
        self._out.append(message)

    def __repr__(self) -> str:
        flags = self.am_choking, self.am_interested, self.peer_choking, self.peer_interested
        shown = "".join(c.upper() if flag else c for c, flag in zip("cici", flags, strict=True))
        return f"<PeerProtocol {self.state.value} {shown} {len(self.outstanding)} outstanding>"
