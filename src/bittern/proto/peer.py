"""
One peer connection as a machine without I/O: framing, flags, dispatch.

``receive_data`` takes whatever arrived and queues events; verbs such as
``request_runs`` queue messages, which ``data_to_send`` hands out. Blocks travel
in batches: all block payloads of one call become one ``BlocksReceived``, at the
place of the first of them. Its memoryviews lie in the caller's buffer and are
valid until that is used again, so events must be drained before.

Theory of operation. A connection is in HANDSHAKE until 68 good bytes came,
then OPEN, and CLOSED after the first violation or ``close``. What the handshakes
agree on is in ``proto.handshakes``, our requests are in ``proto.outgoing``, the
peer's in ``proto.incoming``, what it has in ``proto.remote_pieces``, its
extensions in ``proto.extended``.

Invariant: a block, a reject or a drop takes a request out of ``outstanding``,
and nothing else; the owner hears of each, also when the peer then breaks the
protocol, so no block stays asked for with nobody to send it.

Limits: H1 message lengths, H2 messages the peer does not read; others are in the
modules named.

Sources: BEP 3, BEP 5 (port), BEP 6, BEP 10, BEP 52 (hash messages), BEP 54.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from bittern.codec import extension, wire
from bittern.codec.extension import ExtendedHandshake
from bittern.codec.wire import MessageId, Reserved
from bittern.core.bitfield import Bitfield
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, PeerId
from bittern.proto import peer_events
from bittern.proto.extended import LT_DONT_HAVE, NAMES, UPLOAD_ONLY, RemoteExtensions
from bittern.proto.handshakes import Handshakes
from bittern.proto.incoming import IncomingRequests
from bittern.proto.outgoing import OutgoingRequests
from bittern.proto.peer_events import PeerEvent, ReceivedBlock, Request
from bittern.proto.remote_pieces import RemotePieces

MAX_ALLOWED_FAST = 100
"""Limit: H9. Pieces of a peer's allowed fast set that we remember; BEP 6 speaks of ten."""
MAX_UNREAD_MESSAGES = 10_000
"""Limit: H2. Our messages that may wait while the peer sends and does not read."""
MAX_UNREAD_LENGTH = 1_048_576
"""Limit: H2, H7, H10. Bytes of extension and hash messages that may wait: 64 pieces of metadata."""
BATCH_FROM = 24 * wire.BLOCK_MESSAGE_LENGTH
"""Bytes from which blocks are looked at together; up to some 18 blocks cost less one by one."""

_OF_PIECES = (MessageId.BITFIELD, MessageId.HAVE_ALL, MessageId.HAVE_NONE)
_BEFORE_BITFIELD = frozenset((MessageId.PORT, MessageId.EXTENDED, *_OF_PIECES))
"""Interop: some clients send the extended handshake or their DHT port before the bitfield,
so those two do not end the time in which a first one may come."""


class PeerState(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


class PeerProtocol:
    """
    The machine described in the module's text.

    Args:
        info_hashes, peer_id, reserved: see ``Handshakes``.
        geometry: None while the metadata is unknown.

    The handshake is queued at once. ``geometry`` is set later with
    ``learn_geometry``.
    """

    __slots__ = (
        "_events",
        "_extensions",
        "_geometry",
        "_out",
        "_remote",
        "_tail",
        "_unread_length",
        "am_choking",
        "am_interested",
        "handshakes",
        "incoming",
        "outgoing",
        "outstanding",
        "peer_choking",
        "peer_interested",
        "remote_allowed_fast",
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
        self.state: PeerState = PeerState.HANDSHAKE
        self.am_choking: bool = True
        self.am_interested: bool = False
        self.peer_choking: bool = True
        self.peer_interested: bool = False
        self.handshakes: Handshakes = Handshakes(info_hashes, peer_id, reserved)
        self.remote_allowed_fast: dict[int, None] = {}
        """Pieces we may ask for while choked."""
        self.outgoing: OutgoingRequests = OutgoingRequests()
        self.outstanding: dict[int, int] = self.outgoing.waiting
        """Our requests: ``index << 32 | begin`` to length, oldest first."""
        self.incoming: IncomingRequests = IncomingRequests()
        """The peer's requests."""
        self._geometry = geometry
        self._out: list[bytes] = [self.handshakes.encode()]
        self._unread_length = 0
        self._events: list[PeerEvent] = []
        self._tail = bytearray()
        self._extensions = RemoteExtensions()
        self._remote = RemotePieces(None if geometry is None else geometry.num_pieces)

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
        blocks: list[ReceivedBlock] = []
        try:
            if len(self._out) > MAX_UNREAD_MESSAGES:
                raise PeerViolation("sends and does not read")
            if self._tail:
                data = self._complete_tail(data, blocks, now)
            end = len(data)
            if end:
                used = self._parse(data, end, blocks, now)
                if used < end:
                    self._tail = bytearray(data[used:])
        except WireDecodeError as error:
            self.state = PeerState.CLOSED
            raise PeerViolation(str(error)) from error
        except PeerViolation:
            self.state = PeerState.CLOSED
            raise

    def _complete_tail(
        self, data: memoryview, blocks: list[ReceivedBlock], now: float
    ) -> memoryview:
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
            if self._parse(memoryview(tail), len(tail), blocks, now):
                # A new object: events hold views into the old one.
                self._tail = bytearray()
        return data

    def _parse(self, view: memoryview, end: int, blocks: list[ReceivedBlock], now: float) -> int:
        """Walk over all whole messages in ``view`` and return the offset behind the last."""
        position = 0
        if self.state is PeerState.HANDSHAKE and not (position := self._parse_handshake(view)):
            return 0
        unpack, unpack_short = wire.PIECE_HEADER.unpack_from, wire.LENGTH_AND_ID.unpack_from
        pop_outstanding = self.outstanding.pop
        single_until = 0
        while (left := end - position) >= 4:
            if left >= 13:
                length, kind, index, begin = unpack(view, position)
            elif left >= 5:
                length, kind = unpack_short(view, position)
            else:
                (length,) = wire.LENGTH_PREFIX.unpack_from(view, position)
                if length:
                    wire.check_length_prefix(length)
                    break
            if not length:
                position += 4
                continue
            after = position + 4 + length
            if after > end:
                self._check_length(kind, length)
                break
            if kind == 7 and length > 9:
                is_batch = left >= BATCH_FROM and position >= single_until
                if is_batch and (batch := self.outgoing.take_batch(view, position)):
                    self._deliver(batch, blocks)
                    after = position + wire.BLOCK_MESSAGE_LENGTH * len(batch)
                else:
                    # A few go by themselves now, or each odd one would cost a look at all the rest.
                    single_until = position + BATCH_FROM if is_batch else single_until
                    asked = pop_outstanding(index << 32 | begin, 0)
                    if asked == length - 9 or self._accept_late(index, begin, length - 9, asked):
                        self._deliver([(index, begin, view[position + 13 : after])], blocks)
            elif kind == 6 and length == 13:
                if (unusual := self._admit_usual(view, position)) > position:
                    after = unusual
                else:
                    self._handle_request(wire.THREE_NUMBERS.unpack_from(view, position + 5), now)
            elif kind == 4 and length == 5:
                num_pieces = 0 if self._geometry is None else self._geometry.num_pieces
                haves = wire.decode_haves(view, position, num_pieces=num_pieces)
                self._events += self._remote.receive_haves(haves, now=now)
                after = position + wire.HAVE_LENGTH * len(haves)
            else:
                self._check_length(kind, length)
                self._handle(kind, view[position + 5 : after], now)
            position = after
        return position

    def _deliver(self, new: list[ReceivedBlock], blocks: list[ReceivedBlock]) -> None:
        """Add to ``blocks``, those of one call; told at once, as the next message may be bad."""
        if not blocks:
            self._events.append(peer_events.BlocksReceived(blocks))
        blocks += new

    def _check_length(self, kind: int, length: int) -> None:
        wire.check_length(
            kind, length, num_pieces=None if self._geometry is None else self._geometry.num_pieces
        )

    def _parse_handshake(self, view: memoryview) -> int:
        """Accept the handshake and return where it ends; 0 while it is incomplete."""
        handshake = self.handshakes.receive(view)
        if handshake is None:
            return 0
        self.state = PeerState.OPEN
        self._events.append(peer_events.HandshakeReceived(handshake))
        return wire.HANDSHAKE_LENGTH

    def _accept_late(self, index: int, begin: int, length: int, asked: int) -> bool:
        """Judge a block that does not simply answer a request; False to throw it away."""
        if self.outgoing.accept(index, begin, length, asked):
            return True
        self._events.append(peer_events.UnexpectedBlockReceived(length))
        return False

    def _handle(self, kind: int, payload: memoryview, now: float) -> None:
        """Act on one whole message that is no block; its length has been checked."""
        if kind not in _BEFORE_BITFIELD:
            self._remote.end_start()
        match kind:
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
            case MessageId.BITFIELD:
                self._events += self._remote.receive_bitfield(payload, now=now)
            case MessageId.HAVE_ALL | MessageId.HAVE_NONE:
                self._require_fast(kind)
                is_all, remote = kind == MessageId.HAVE_ALL, self._remote
                self._events += remote.receive_all(now=now) if is_all else remote.receive_none()
            case MessageId.EXTENDED:
                self._handle_extended(payload, now)
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
        dropped = [] if self.handshakes.has_fast else self.drop_outstanding()
        self._events.append(peer_events.Choked(dropped))

    def _admit_usual(self, view: memoryview, position: int) -> int:
        """Admit requests while they are usual; return where the first other message starts."""
        if self._geometry is None or self.am_choking:
            return position
        was_idle = not self.incoming.waiting
        end = self.incoming.admit_usual(view, position, self._geometry)
        if end > position:
            self._remote.end_start()
            if was_idle:
                self._events.append(peer_events.RequestsReceived())
        return end

    def _handle_request(self, request: Request, now: float) -> None:
        if self._geometry is None or not self._geometry.is_valid_request(*request):
            raise PeerViolation("requests what does not exist: {}:{}+{}".format(*request))
        self._remote.end_start()
        was_idle = not self.incoming.waiting
        if not self.incoming.admit(request, is_choked=self.am_choking, now=now):
            self.reject(request)
        elif was_idle:
            self._events.append(peer_events.RequestsReceived())

    def _require_fast(self, kind: int) -> None:
        if not self.handshakes.has_fast:
            raise PeerViolation(f"{MessageId(kind).name.lower()} without the fast extension")

    def _handle_fast(self, kind: int, payload: memoryview) -> None:
        self._require_fast(kind)
        if kind == MessageId.REJECT_REQUEST:
            request = wire.THREE_NUMBERS.unpack(payload)
            if self.outgoing.reject(request):
                self._events.append(peer_events.RequestRejected(request))
            return
        # A suggestion is taken note of by nobody: the rarest pieces serve us and the swarm better.
        index = int.from_bytes(payload, "big")
        # Interop: old clients count past a short torrent; libtorrent ignores it too.
        exists = self._geometry is None or index < self._geometry.num_pieces
        has_room = len(self.remote_allowed_fast) < MAX_ALLOWED_FAST
        if kind == MessageId.ALLOWED_FAST and exists and has_room:
            self.remote_allowed_fast[index] = None

    def _handle_extended(self, payload: memoryview, now: float) -> None:
        if payload[0] == 0:
            handshake = self._extensions.receive_handshake(payload[1:])
            self._events.append(peer_events.ExtendedHandshakeReceived(handshake))
            return
        name = NAMES.get(payload[0])
        if name == UPLOAD_ONLY:
            handshake = self._extensions.receive_upload_only(payload[1:])
            self._events.append(peer_events.ExtendedHandshakeReceived(handshake))
        elif name == LT_DONT_HAVE:
            self._handle_dont_have(extension.decode_dont_have(payload[1:]), now)
        elif name is not None:
            self._events.append(peer_events.ExtensionReceived(name, bytes(payload[1:])))

    def _handle_dont_have(self, index: int, now: float) -> None:
        if self._remote.receive_lost(index, now=now):
            if not self.handshakes.has_fast:
                # BEP 54: without the fast extension our requests for it are dropped silently.
                for request in self.outgoing.give_up_piece(index):
                    self._events.append(peer_events.RequestRejected(request))
            self._events.append(peer_events.DontHaveReceived(index))

    # --- state ---------------------------------------------------------------------------

    @property
    def remote(self) -> Bitfield | None:
        """What the peer has; None while the metadata is unknown."""
        return self._remote.bitfield

    @property
    def remote_extensions(self) -> Mapping[str, int]:
        """The extensions that the peer speaks, by name, with its numbers for them (BEP 10)."""
        return self._extensions.numbers

    def learn_geometry(self, geometry: Geometry) -> None:
        """
        Tell the sizes of the torrent once the metadata is there; queues what the peer has.

        Raises:
            PeerViolation: what the peer said earlier does not fit it.
        """
        try:
            self._events += self._remote.learn_num_pieces(geometry.num_pieces)
        except WireDecodeError as error:
            self.state = PeerState.CLOSED
            raise PeerViolation(str(error)) from error
        self._geometry = geometry
        for index in [i for i in self.remote_allowed_fast if i >= geometry.num_pieces]:
            del self.remote_allowed_fast[index]

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
        self._unread_length = 0
        return data

    @property
    def has_data_to_send(self) -> bool:
        """True when ``data_to_send`` would return something."""
        return bool(self._out)

    def close(self) -> None:
        """Ignore all further bytes."""
        self.state = PeerState.CLOSED

    # --- verbs ---------------------------------------------------------------------------

    def request_runs(self, runs: Iterable[tuple[int, int, int]]) -> None:
        """
        Ask for runs of adjacent blocks, each of one piece.

        Args:
            runs: index of the piece; where the first block starts, a multiple of 16 KiB; where
                the last block ends, at most the length of the piece.
        """
        keys: list[int] = []
        shorter: dict[int, int] = {}
        for index, begin, end in runs:
            key = index << 32
            keys += range(key | begin, key | end, BLOCK_LENGTH)
            if tail := (end - begin) % BLOCK_LENGTH:
                shorter[keys[-1]] = tail
            self._out.append(wire.encode_requests(index, begin, end))
        self.outstanding.update(dict.fromkeys(keys, BLOCK_LENGTH))
        self.outstanding.update(shorter)

    def cancel(self, index: int, begin: int) -> None:
        """Take back a request; its block is still accepted should it come anyway."""
        length = self.outgoing.give_up(index, begin)
        if length:
            self._out.append(wire.encode_cancel(index, begin, length))

    def drop_outstanding(self) -> list[Request]:
        """Give up all our requests without a message and return them."""
        return self.outgoing.give_up_all()

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
        if self.handshakes.has_fast:
            self._out.append(wire.encode_reject(*request))

    def send_bitfield(self, have: Bitfield) -> None:
        """
        Tell what we have; the first message after the handshake.

        Must be called after the peer's handshake came when have all and have
        none are to be used (BEP 6).
        """
        if self.handshakes.has_fast and have.is_full:
            self._out.append(wire.HAVE_ALL)
        elif self.handshakes.has_fast and not have:
            self._out.append(wire.HAVE_NONE)
        else:
            # Interop: to rtorrent the handshake lasts until a bitfield, or a message in its place.
            self._out.append(wire.encode_bitfield(have.to_wire()) if have else wire.KEEP_ALIVE)

    def send_have(self, index: int) -> None:
        """Tell that we have one more piece."""
        self._out.append(wire.encode_have(index))

    def send_dont_have(self, index: int) -> None:
        """Tell that we lost a piece, to peers that understand it (BEP 54)."""
        self.send_extension(LT_DONT_HAVE, extension.encode_dont_have(index))

    def send_allowed_fast(self, indices: Iterable[int]) -> None:
        """Grant pieces to be requested while choked (BEP 6); only the first call counts (H9)."""
        if not self.handshakes.has_fast or self.incoming.has_allowed_fast:
            return
        granted = frozenset(indices)
        self.incoming.allow_fast(granted, self._geometry)
        self._out.extend(
            wire.encode_index(MessageId.ALLOWED_FAST, index) for index in sorted(granted)
        )

    def send_extended_handshake(self, handshake: ExtendedHandshake) -> None:
        """Tell our extensions, to peers that speak BEP 10; may be repeated."""
        if self.handshakes.has_extensions:
            payload = extension.encode_extended_handshake(handshake)
            self._out.append(wire.encode_extended(0, payload))

    def send_extension(self, name: str, payload: bytes) -> bool:
        """Send a message; False when the peer does not speak the extension, or does not read."""
        message = self._extensions.encode(name, payload)
        if message is None or self._unread_length + len(payload) > MAX_UNREAD_LENGTH:
            return False
        self._unread_length += len(payload)
        self._out.append(message)
        return True

    def send_message(self, message: bytes) -> None:
        """
        Queue a message that was encoded elsewhere: port, keep-alive, hash messages.

        Dropped once the connection is closed: the owner may be acting on an event from before.
        """
        if self.state is not PeerState.CLOSED:
            self._unread_length += len(message)
            self._out.append(message)

    @property
    def has_room(self) -> bool:
        """False while so much waits for the peer to read that long answers are to be refused."""
        return self._unread_length < MAX_UNREAD_LENGTH

    def __repr__(self) -> str:
        flags = self.am_choking, self.am_interested, self.peer_choking, self.peer_interested
        shown = "".join(c.upper() if flag else c for c, flag in zip("cici", flags, strict=True))
        return f"<PeerProtocol {self.state.value} {shown} {len(self.outstanding)} outstanding>"
