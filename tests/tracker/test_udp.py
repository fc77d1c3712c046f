"""tracker.udp: connection ids, answers, and what gets none (N1, T1, T3)."""

import random
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.udp_tracker import (
    AnnounceReply,
    ConnectReply,
    ErrorReply,
    Reply,
    ScrapeReply,
    decode_reply,
    encode_announce,
    encode_connect,
    encode_scrape,
)
from bittern.core.announce import AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId
from bittern.tracker.desk import Desk
from bittern.tracker.udp import LENIENT_SLOTS, STRICT_SLOTS, ConnectionIds, UdpTracker

HASH, OTHER = InfoHash(b"h" * 20), InfoHash(b"o" * 20)
ONE, TWO = Endpoint("8.0.0.1", 4001), Endpoint("8.0.0.2", 4002)
SIX = Endpoint("2001:db8::6", 4006)


class Scene:
    """A listener, its clock, and what it sent."""

    def __init__(
        self, *, ipv6: bool = False, num_slots: int = STRICT_SLOTS, rate: int = 20_000
    ) -> None:
        self.endpoint = Endpoint("::" if ipv6 else "0.0.0.0", 6969)
        self.now = 1000.0
        self.sent: list[tuple[bytes, Endpoint]] = []
        self.desk = Desk(random.Random(1), max_source_rate=rate)
        ids = ConnectionIds(b"s" * 16, num_slots=num_slots)
        self.tracker = UdpTracker(self, self.desk, ids, lambda: self.now)

    def send(self, data: bytes, target: Endpoint) -> None:
        self.sent.append((data, target))

    def ask(self, data: bytes, source: Endpoint = ONE) -> bytes | None:
        """Return the answer to one datagram, None if there was none."""
        self.tracker.receive(memoryview(data), source)
        if not self.sent:
            return None
        [(answer, target)] = self.sent
        self.sent.clear()
        assert target == source
        return answer

    def reply(self, data: bytes, source: Endpoint = ONE) -> Reply:
        answer = self.ask(data, source)
        assert answer is not None
        return decode_reply(answer, ipv6=source.is_ipv6)

    def connect(self, source: Endpoint = ONE) -> int:
        reply = self.reply(encode_connect(7), source)
        assert isinstance(reply, ConnectReply)
        assert reply.transaction_id == 7
        return reply.connection_id

    def announce(self, source: Endpoint = ONE, **fields: object) -> Reply:
        return self.reply(encode_announce(self.connect(source), 9, request(**fields)), source)


def request(**fields: object) -> AnnounceRequest:
    values: dict[str, object] = {
        "info_hash": HASH,
        "peer_id": PeerId(b"p" * 20),
        "port": 6881,
        "left": 1,
        **fields,
    }
    return AnnounceRequest(**values)  # type: ignore[arg-type]


def test_peers_find_each_other() -> None:
    scene = Scene()
    first = scene.announce(ONE, event=Event.STARTED)
    assert isinstance(first, AnnounceReply)
    assert first.transaction_id == 9
    assert first.answer.interval == 1800
    assert first.answer.peers == ()
    second = scene.announce(TWO, port=99, left=0)
    assert isinstance(second, AnnounceReply)
    assert second.answer.peers == (Endpoint("8.0.0.1", 6881),)
    assert (second.answer.num_seeds, second.answer.num_leechers) == (1, 1)
    again = scene.announce(ONE)
    assert isinstance(again, AnnounceReply)
    assert again.answer.peers == (Endpoint("8.0.0.2", 99),)
    scene.announce(TWO, port=99, event=Event.STOPPED)
    alone = scene.announce(ONE)
    assert isinstance(alone, AnnounceReply)
    assert alone.answer.peers == ()


def test_peers_over_ipv6() -> None:
    scene = Scene(ipv6=True)
    scene.announce(SIX)
    reply = scene.announce(Endpoint("2001:db8::7", 1))
    assert isinstance(reply, AnnounceReply)
    assert reply.answer.peers == (Endpoint("2001:db8::6", 6881),)


def test_scrape() -> None:
    scene = Scene()
    scene.announce(ONE)
    scene.announce(ONE, left=0, event=Event.COMPLETED)
    connection_id = scene.connect(TWO)
    packet = encode_scrape(connection_id, 5, [HASH, OTHER])
    expected = ScrapeReply(5, (ScrapeEntry(1, 1, 0), ScrapeEntry(0, 0, 0)))
    assert scene.reply(packet, TWO) == expected
    assert scene.reply(packet + b"more", TWO) == expected
    many = scene.reply(encode_scrape(connection_id, 5, [HASH] * 74) + HASH, TWO)
    assert isinstance(many, ScrapeReply)
    assert len(many.entries) == 74


@pytest.mark.parametrize(
    ("fields", "given_peers"),
    [({}, 50), ({"numwant": 0}, 0), ({"numwant": 120}, 120), ({"numwant": 2000}, 200)],
)
def test_numwant(fields: dict[str, object], given_peers: int) -> None:
    """Limit: T3."""
    scene = Scene()
    for number in range(300):
        scene.announce(Endpoint(f"8.0.{number // 250}.{number % 250}", 1), numwant=0)
    reply = scene.announce(Endpoint("8.9.9.9", 1), **fields)
    assert isinstance(reply, AnnounceReply)
    assert len(reply.answer.peers) == given_peers


@pytest.mark.parametrize(("ipv6", "most"), [(False, 1400), (True, 1400)])
def test_answers_fit_one_packet(ipv6: bool, most: int) -> None:
    """Limit: T3."""
    scene = Scene(ipv6=ipv6)
    for number in range(300):
        source = Endpoint(
            f"2001:db8::1:{number:x}" if ipv6 else f"8.0.1.{number % 250}", number + 1
        )
        scene.announce(source, port=number + 1, numwant=0)
    source = SIX if ipv6 else ONE
    answer = scene.ask(encode_announce(scene.connect(source), 1, request(numwant=2000)), source)
    assert answer is not None
    assert most - 200 < len(answer) <= most


def test_unknown_events_are_regular_ones() -> None:
    scene = Scene()
    packet = bytearray(encode_announce(scene.connect(), 9, request()))
    packet[80:84] = b"\0\0\0\x63"
    assert isinstance(scene.reply(bytes(packet)), AnnounceReply)


def test_options_are_read_over() -> None:
    """BEP 41."""
    scene = Scene()
    packet = encode_announce(scene.connect(), 9, request(), url_data=b"/x?key=1")
    assert isinstance(scene.reply(packet), AnnounceReply)
    assert isinstance(scene.reply(packet[:98] + b"\x02\xff"), AnnounceReply)


def test_refusals_are_never_longer_than_the_request() -> None:
    """Limit: N1."""
    scene = Scene()
    connection_id = scene.connect()
    packet = encode_announce(connection_id, 9, request(port=0))
    reply = scene.reply(packet)
    assert reply == ErrorReply(9, "port must be in 1..65535")
    scene = Scene(rate=0)
    short = encode_scrape(scene.connect(), 5, [HASH])
    answer = scene.ask(short)
    assert answer is not None
    assert len(answer) <= len(short)
    assert answer[:8] == b"\0\0\0\3\0\0\0\5"


# --- connection ids (T1) ------------------------------------------------------------------


def test_ids_are_good_for_two_minutes_at_least_and_four_at_most() -> None:
    scene = Scene()
    for start in range(0, 240, 7):
        scene.now = 10_000.0 + start
        packet = encode_announce(scene.connect(), 9, request())
        begun = scene.now
        scene.now = begun + 120
        assert scene.ask(packet) is not None
        scene.now = begun + 240
        assert scene.ask(packet) is None


def test_lenient_ids_are_good_for_ten_minutes() -> None:
    scene = Scene(num_slots=LENIENT_SLOTS)
    packet = encode_announce(scene.connect(), 9, request())
    scene.now += 600
    assert scene.ask(packet) is not None
    scene.now += 120
    assert scene.ask(packet) is None


def test_ids_belong_to_an_address() -> None:
    scene = Scene()
    packet = encode_announce(scene.connect(ONE), 9, request())
    assert scene.ask(packet, TWO) is None
    # A translator may have changed the port between the two packets.
    assert scene.ask(packet, Endpoint(ONE.host, 9)) is not None
    assert scene.tracker.num_dropped == 1


def test_ids_cannot_be_guessed(rng: random.Random) -> None:
    scene = Scene()
    near = scene.connect()
    guesses = [rng.getrandbits(64) for _ in range(2000)] + [near + d for d in range(-50, 50) if d]
    for guess in [*guesses, 0, 2**64 - 1, 0x41727101980]:
        assert scene.ask(encode_announce(guess % 2**64, 9, request())) is None
    assert scene.desk.num_announces == 0


def test_ids_depend_on_the_secret() -> None:
    one, two = (ConnectionIds(secrets.token_bytes(32)) for _ in range(2))
    address = b"\x08\0\0\1"
    number = one.give(address, now=5)
    assert one.accepts(number, address, now=5)
    assert not two.accepts(number, address, now=5)
    with pytest.raises(ValueError, match="too short"):
        ConnectionIds(b"short")


@pytest.mark.parametrize("now", [0.0, 119.9, 1e9])
def test_ids_work_at_any_time(now: float) -> None:
    ids = ConnectionIds(b"s" * 16)
    assert ids.accepts(ids.give(bytes(16), now=now), bytes(16), now=now)


# --- what gets no answer ------------------------------------------------------------------


def test_the_unproven_get_no_more_than_they_sent() -> None:
    """Limit: N1."""
    scene = Scene()
    for extra in (0, 1, 100):
        packet = encode_connect(7) + bytes(extra)
        answer = scene.ask(packet)
        assert answer is not None
        assert len(answer) == 16 <= len(packet)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        encode_connect(7)[:15],
        b"\0" * 16,
        encode_connect(7)[:8] + b"\0\0\0\3" + b"\0" * 20,
        b"d1:ad2:id20:" + b"x" * 20 + b"e1:q4:ping1:t2:aa1:y1:qe",
    ],
)
def test_nonsense_is_dropped(data: bytes) -> None:
    scene = Scene()
    assert scene.ask(data) is None
    assert scene.tracker.num_dropped == 1


@pytest.mark.parametrize("action", [1, 2, 3, 99])
def test_incomplete_requests_are_dropped(action: int) -> None:
    scene = Scene()
    head = scene.connect().to_bytes(8, "big") + action.to_bytes(4, "big") + b"\0\0\0\1"
    for length in (0, 1, 19) if action == 2 else (0, 1, 81):
        assert scene.ask(head + bytes(length)) is None


@given(st.binary(max_size=150), st.booleans())
def test_any_datagram_is_survived(data: bytes, is_proven: bool) -> None:
    scene = Scene()
    if is_proven:
        data = scene.connect().to_bytes(8, "big") + b"\0\0\0" + data
    answer = scene.ask(data)
    assert answer is None or len(answer) <= 1400
