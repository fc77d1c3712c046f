"""
Hostile peers, one function for each kind: what it does on one connection (threats.md 2.2).

Each gets a ``Visit``, whose handshake it may or may not make, and ends when it has done its worst.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bittern.codec import wire
from bittern.codec.bencode import encode
from bittern.codec.wire import MessageId, Reserved
from bittern.testing.peer import ScriptedPeer
from tests.engine.scene import PIECE_LENGTH
from tests.sim.place import Place

FAST = Reserved(has_fast=True, has_extensions=True)
BLOCK = 16_384


@dataclass
class Visit:
    """One connection of a hostile peer with its victim."""

    place: Place
    peer: ScriptedPeer
    number: int
    chance: random.Random

    @property
    def num_pieces(self) -> int:
        return -(-len(self.place.data) // PIECE_LENGTH)

    async def greet(self, *, peer_id: bytes | None = None) -> None:
        """Exchange handshakes as an honest peer does."""
        mine = peer_id or b"-EV0000-%04d" % self.number + self.chance.randbytes(8)
        self.peer.send_handshake(self.place.info_hash, mine, FAST)
        await self.peer.expect_handshake()

    async def pose(self) -> None:
        """Appear as a seed that is glad to serve."""
        await self.greet()
        self.peer.send(wire.HAVE_ALL + wire.UNCHOKE)

    def block(self, index: int, begin: int, length: int) -> bytes:
        """Return the right bytes."""
        at = index * PIECE_LENGTH + begin
        return self.place.data[at : at + length]

    def extended(self, number: int, payload: bytes) -> None:
        """Send an extended message."""
        self.peer.send_message(MessageId.EXTENDED, bytes([number]) + payload)

    async def linger(self, seconds: float = 60.0) -> None:
        """Stay, and read what comes."""
        await self.peer.expect_closed(timeout=seconds)


Attack = Callable[[Visit], Awaitable[None]]


# --- before and in the handshake -------------------------------------------------------------


async def says_nothing(visit: Visit) -> None:
    await visit.linger()


async def drips_its_handshake(visit: Visit) -> None:
    for byte in wire.encode_handshake(visit.place.info_hash, bytes(20), Reserved()):
        visit.peer.send(bytes([byte]))
        await asyncio.sleep(0.5)


async def speaks_another_protocol(visit: Visit) -> None:
    visit.peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + visit.chance.randbytes(500))
    await visit.linger()


async def wants_another_torrent(visit: Visit) -> None:
    visit.peer.send_handshake(visit.chance.randbytes(20))
    await visit.linger()


async def mirrors_the_victim(visit: Visit) -> None:
    if visit.number % 2:
        visit.peer.send_handshake(visit.place.info_hash, bytes(20))
    raw = await visit.peer.expect_handshake()
    visit.peer.send_handshake(visit.place.info_hash, bytes(raw.peer_id))
    await visit.linger()


async def leaves_after_the_handshake(visit: Visit) -> None:
    await visit.greet()


async def claims_an_id_that_others_have(visit: Visit) -> None:
    await visit.greet(peer_id=b"-EV0000-all the same")
    await visit.linger(20)


# --- framing ---------------------------------------------------------------------------------


async def announces_four_gigabytes(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(b"\xff\xff\xff\xff" + bytes(10))
    await visit.linger()


async def sends_false_lengths(visit: Visit) -> None:
    await visit.greet()
    kind = visit.chance.choice([0, 1, 2, 3, 4, 6, 8, 9, 13, 14, 15, 16, 17])
    visit.peer.send_message(kind, bytes(visit.chance.choice([0, 2, 7, 40])), length=None)
    visit.peer.send_message(kind, b"", length=visit.chance.choice([1 << 20, 1 << 31, 9_999]))
    await visit.linger(20)


async def sends_noise(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(visit.chance.randbytes(50_000))
    await visit.linger()


async def sends_unknown_messages(visit: Visit) -> None:
    await visit.greet()
    for _ in range(500):
        visit.peer.send_message(visit.chance.randrange(30, 256), bytes(50))
    await visit.linger(20)


async def sends_keep_alives_without_end(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.KEEP_ALIVE * 10_000)
    await visit.linger(20)


# --- what it has -----------------------------------------------------------------------------


async def has_pieces_that_do_not_exist(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE + wire.encode_have(visit.num_pieces + 5))
    await visit.linger()


async def sends_a_false_bitfield(visit: Visit) -> None:
    await visit.greet()
    length = -(-visit.num_pieces // 8)
    visit.peer.send(wire.encode_bitfield(b"\xff" * visit.chance.choice([0, 1, length + 1, 5_000])))
    await visit.linger()


async def says_again_and_again_what_it_has(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE + wire.encode_have(1) * 12_000)
    await visit.linger(20)


async def changes_its_mind_about_what_it_has(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_ALL + wire.HAVE_NONE + wire.HAVE_ALL)
    await visit.linger()


# --- requests --------------------------------------------------------------------------------


async def requests_and_never_reads(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE + wire.INTERESTED)
    visit.peer.stream.pause_reading()
    for number in range(1_500):
        visit.peer.send(wire.encode_request(number % visit.num_pieces, 0, BLOCK))
    await asyncio.sleep(30)


async def requests_while_choked(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE)
    for number in range(2_000):
        visit.peer.send(wire.encode_request(number % visit.num_pieces, 0, BLOCK))
    await visit.linger(20)


async def requests_what_does_not_exist(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE + wire.INTERESTED)
    visit.peer.send(
        wire.encode_request(*visit.chance.choice([(9_999, 0, BLOCK), (0, PIECE_LENGTH, BLOCK),
                                                  (0, 0, 0), (0, 0, 1 << 30), (0, 1 << 31, 1)]))
    )  # fmt: skip
    await visit.linger(20)


async def cancels_without_end(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.encode_cancel(0, 0, BLOCK) * 4_000)
    await visit.linger(20)


async def flaps_its_interest(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE + (wire.INTERESTED + wire.NOT_INTERESTED) * 1_000)
    await visit.linger(20)


# --- blocks ----------------------------------------------------------------------------------


async def serves_garbage(visit: Visit) -> None:
    await visit.pose()
    await visit.peer.serve(lambda _index, _begin, length: bytes(length))


async def serves_one_bad_block_in_ten(visit: Visit) -> None:
    await visit.pose()

    def read(index: int, begin: int, length: int) -> bytes:
        good = visit.block(index, begin, length)
        return good if visit.chance.random() > 0.1 else bytes([good[0] ^ 1]) + good[1:]

    await visit.peer.serve(read)


async def promises_and_never_serves(visit: Visit) -> None:
    await visit.pose()
    await visit.peer.serve(lambda *_: None)


async def serves_a_block_now_and_then(visit: Visit) -> None:
    await visit.pose()
    while (message := await visit.peer.receive(timeout=120)).message_id is not None:
        if message.message_id == MessageId.REQUEST:
            await asyncio.sleep(15)
            index, begin, length = message.numbers
            visit.peer.send(wire.encode_piece(index, begin, visit.block(index, begin, length)))


async def rejects_everything(visit: Visit) -> None:
    await visit.pose()
    while True:
        message = await visit.peer.expect(MessageId.REQUEST, timeout=60)
        visit.peer.send_message(MessageId.REJECT_REQUEST, message.payload)


async def chokes_at_every_request(visit: Visit) -> None:
    await visit.pose()
    while True:
        await visit.peer.expect(MessageId.REQUEST, timeout=60)
        visit.peer.send(wire.CHOKE + wire.UNCHOKE)


async def leaves_in_the_middle_of_blocks(visit: Visit) -> None:
    await visit.pose()
    message = await visit.peer.expect(MessageId.REQUEST, timeout=60)
    index, begin, length = message.numbers
    visit.peer.send(wire.encode_piece(index, begin, visit.block(index, begin, length))[:9_000])
    await asyncio.sleep(0.2)


async def sends_blocks_nobody_asked_for(visit: Visit) -> None:
    await visit.pose()
    for number in range(300):
        visit.peer.send(wire.encode_piece(number % visit.num_pieces, 0, bytes(BLOCK)))
    await visit.linger(20)


async def sends_blocks_of_a_false_length(visit: Visit) -> None:
    await visit.pose()
    message = await visit.peer.expect(MessageId.REQUEST, timeout=60)
    index, begin, length = message.numbers
    visit.peer.send(wire.encode_piece(index, begin, bytes(length - 1)))
    await visit.linger()


# --- fast and v2 messages --------------------------------------------------------------------


async def suggests_and_allows_without_end(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send(wire.HAVE_NONE)
    for index in range(600):
        for kind in (MessageId.SUGGEST_PIECE, MessageId.ALLOWED_FAST):
            visit.peer.send(wire.encode_index(kind, index % visit.num_pieces))
    await visit.linger(20)


async def wants_hashes_of_a_v1_torrent(visit: Visit) -> None:
    await visit.greet()
    visit.peer.send_message(MessageId.HASH_REQUEST, bytes(48))
    await visit.linger(20)


# --- extensions ------------------------------------------------------------------------------


async def sends_broken_bencode(visit: Visit) -> None:
    await visit.greet()
    visit.extended(0, visit.chance.choice([b"l" * 100_000, b"d1:a", b"i" + b"9" * 5_000 + b"e"]))
    await visit.linger(20)


async def repeats_its_extended_handshake(visit: Visit) -> None:
    await visit.greet()
    for number in range(200):
        visit.extended(0, encode({b"m": {b"ut_pex": number % 200 + 1}, b"reqq": 1 << 40}))
    await visit.linger(20)


async def asks_for_metadata_without_end(visit: Visit) -> None:
    await visit.greet()
    visit.extended(0, encode({b"m": {b"ut_metadata": 3}, b"metadata_size": 1 << 40}))
    for number in range(600):
        visit.extended(2, encode({b"msg_type": 0, b"piece": number}))
        visit.extended(1, encode({b"msg_type": 0, b"piece": number}))
    await visit.linger(20)


async def floods_with_peers(visit: Visit) -> None:
    await visit.greet()
    visit.extended(0, encode({b"m": {b"ut_pex": 1}}))
    for _ in range(20):
        added = visit.chance.randbytes(6 * 200)
        for number in (1, 2):
            visit.extended(number, encode({b"added": added, b"added.f": bytes(200)}))
    await visit.linger(20)


ATTACKS: tuple[Attack, ...] = (
    says_nothing, drips_its_handshake, speaks_another_protocol, wants_another_torrent,
    mirrors_the_victim, leaves_after_the_handshake, claims_an_id_that_others_have,
    announces_four_gigabytes, sends_false_lengths, sends_noise, sends_unknown_messages,
    sends_keep_alives_without_end, has_pieces_that_do_not_exist, sends_a_false_bitfield,
    says_again_and_again_what_it_has, changes_its_mind_about_what_it_has,
    requests_and_never_reads, requests_while_choked, requests_what_does_not_exist,
    cancels_without_end, flaps_its_interest, serves_garbage, serves_one_bad_block_in_ten,
    promises_and_never_serves, serves_a_block_now_and_then, rejects_everything,
    chokes_at_every_request, leaves_in_the_middle_of_blocks, sends_blocks_nobody_asked_for,
    sends_blocks_of_a_false_length, suggests_and_allows_without_end,
    wants_hashes_of_a_v1_torrent, sends_broken_bencode, repeats_its_extended_handshake,
    asks_for_metadata_without_end, floods_with_peers,
)  # fmt: skip
"""Every kind."""
LIARS = (serves_garbage, serves_one_bad_block_in_ten, sends_blocks_nobody_asked_for)
"""Those that send bad blocks, and may be banned."""
