"""
Swarms of real processes in which something goes wrong: kills, a seed that goes, peers that lie.

Reduced by default; ``make soak`` runs them whole. Every process has an address of its own, since
a ban is of an address.
"""

from __future__ import annotations

import asyncio
import mmap
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.metainfo import decode_metainfo
from bittern.net.tcp import TcpNetwork
from bittern.testing.peer import ExpectationFailed, ScriptedListener, ScriptedPeer
from tests.interop.content import MIB, Content, make_content
from tests.interop.member import Member
from tests.interop.place import Endpoint

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

PIECE_LENGTH = 256 << 10
TIMEOUT = 240.0

whole_and_reduced = pytest.mark.parametrize(
    "num_mib", [16, pytest.param(256, marks=pytest.mark.soak)]
)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def pieces_of(member: Member) -> set[int]:
    """Return the pieces that a bittern has verified in this run."""
    return {event["index"] for event in member.events("piece_verified")}


@whole_and_reduced
async def test_a_leecher_that_is_killed_goes_on_where_it_was(
    num_mib: int, tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Limit: F7. Of a piece that was complete, nothing is asked for again."""
    content = make_content(tmp_path, {"": num_mib * MIB + 777}, piece_length=PIECE_LENGTH)
    lengths = [PIECE_LENGTH] * (num_mib * 4) + [777]
    num_pieces = len(lengths)

    def member(number: int, *, is_seed: bool = False) -> Member:
        return Member(
            "bittern",
            content.torrent,
            f"127.0.0.{number}",
            tmp_path / f"state-{number}",
            content=content.folder if is_seed else tmp_path / f"out-{number}",
            is_seed=is_seed,
        )

    seed = await stack.enter_async_context(member(1, is_seed=True))
    await seed.start([], "--max-upload", f"{num_mib // 3}Mi")
    await seed.wait_ready()
    others = [await stack.enter_async_context(member(number)) for number in (2, 3)]
    victim = await stack.enter_async_context(member(4))
    for other in others:
        await other.start([seed])
    had: set[int] = set()
    for share in (0.1, 0.2, 0.3):
        # Killed three times, each time a bit further on, and long before it is complete: on a
        # busy machine it has gone on while we read how far it is.
        await victim.start([seed, *others])

        def is_far_enough(event: dict[str, Any], least: float = share * num_pieces) -> bool:
            return bool(event["num_have"] >= least)

        await victim.wait_for("piece_verified", timeout=TIMEOUT, is_wanted=is_far_enough)
        await victim.kill()
        again = pieces_of(victim) & had
        assert not again, "complete pieces were fetched again"
        had |= pieces_of(victim)
        assert len(had) < num_pieces
    await victim.start([seed, *others])
    for one in (victim, *others):
        await one.wait_complete(timeout=TIMEOUT)
    result = await victim.finish()
    assert not pieces_of(victim) & had
    left = sum(length for index, length in enumerate(lengths) if index not in had)
    # It may be less: what a process has verified when it is killed it need not have told.
    assert 0 < result["downloaded"] <= left
    for number in (2, 3, 4):
        assert content.differences(tmp_path / f"out-{number}") == []


@whole_and_reduced
async def test_a_seed_that_is_killed_when_one_copy_is_out_is_not_missed(
    num_mib: int, tmp_path: Path, stack: AsyncExitStack
) -> None:
    content = make_content(tmp_path, {"": num_mib * MIB + 777}, piece_length=PIECE_LENGTH)
    num_pieces = num_mib * 4 + 1
    leeches: list[Member] = []
    for number in range(2, 7):
        leech = Member(
            "bittern",
            content.torrent,
            f"127.0.0.{number}",
            tmp_path / f"state-{number}",
            content=tmp_path / f"out-{number}",
        )
        await stack.enter_async_context(leech)
        # So slow among themselves that nobody is near the end when the seed has given all.
        await leech.start(leeches, "--max-upload", f"{num_mib // 16}Mi")
        leeches.append(leech)
    seed = Member(
        "bittern",
        content.torrent,
        "127.0.0.1",
        tmp_path / "seed",
        content=content.folder,
        is_seed=True,
    )
    await stack.enter_async_context(seed)
    await seed.start(leeches, "--max-upload", f"{num_mib // 3}Mi")

    async def is_spread() -> bool | None:
        return len(set().union(*map(pieces_of, leeches))) == num_pieces or None

    await seed.program.poll(is_spread, what="one copy is out", timeout=TIMEOUT)
    await seed.kill()
    assert not any(leech.events("torrent_completed") for leech in leeches)
    for leech in leeches:
        await leech.wait_complete(timeout=TIMEOUT)
    for leech in leeches:
        await leech.finish()
        assert content.differences(leech.content) == []


class Liar:
    """
    A peer that has everything and serves some of it falsified.

    Args:
        share: of the blocks that it sends, those that are wrong.
    """

    def __init__(self, host: str, content: Content, *, share: float) -> None:
        self.host = host
        self.num_bad = 0
        self.num_sent = 0
        self._share = share
        self._chance = random.Random(host)
        # Mapped: a dozen of them would hold the whole a dozen times.
        with (content.folder / "content").open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._info = decode_metainfo(content.torrent.read_bytes()).info
        self._listener = ScriptedListener(TcpNetwork(source_hosts=(host,)), host)
        self.endpoint = (host, self._listener.endpoint.port)

    async def run(self) -> None:
        """Serve whoever connects, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._serve(await self._listener.accept(timeout=3600)))
        finally:
            self._listener.close()

    async def _serve(self, peer: ScriptedPeer) -> None:
        try:
            await peer.expect_handshake()
            peer.send_handshake(
                self._info.wire_hash, b"-LI0000-" + self.host.encode().rjust(12, b".")
            )
            num_pieces = self._info.geometry.num_pieces
            bits = ((1 << num_pieces) - 1) << (-num_pieces % 8)
            peer.send(wire.encode_bitfield(bits.to_bytes((num_pieces + 7) // 8, "big")))
            peer.send(wire.UNCHOKE)
            await peer.serve(self._read)
        except ExpectationFailed:
            pass
        finally:
            peer.close()

    def _read(self, index: int, begin: int, length: int) -> bytes:
        at = index * self._info.piece_length + begin
        block = self._data[at : at + length]
        self.num_sent += 1
        if self._chance.random() < self._share:
            self.num_bad += 1
            return bytes([block[0] ^ 1]) + block[1:]
        return block


@asynccontextmanager
async def running(liars: list[Liar]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(liar.run()) for liar in liars]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("num_mib", "shares"),
    [
        pytest.param(16, [0.02, 0.5, 1.0], id="reduced"),
        pytest.param(
            256, [0.01] * 3 + [0.1] * 3 + [0.5] * 3 + [1.0] * 3, id="whole", marks=pytest.mark.soak
        ),
    ],
)
async def test_peers_that_send_corrupt_blocks_are_found_and_dropped(
    num_mib: int, shares: list[float], tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Limit: H4; R7. Every liar, after at most two failed pieces each, and nobody else."""
    content = make_content(tmp_path, {"": num_mib * MIB + 777}, piece_length=PIECE_LENGTH)
    honest: list[Member] = []
    for number, program in ((1, "bittern"), (2, "libtorrent")):
        seed = Member(
            program,
            content.torrent,
            f"127.0.0.{number}",
            tmp_path / f"seed-{number}",
            content=content.folder,
            is_seed=True,
        )
        await stack.enter_async_context(seed)
        limit = ["--max-upload", f"{num_mib // 8}Mi"] if program == "bittern" else []
        await seed.start([], *limit)
        await seed.wait_ready()
        honest.append(seed)
    liars = [
        Liar(f"127.0.0.{number}", content, share=share) for number, share in enumerate(shares, 20)
    ]
    await stack.enter_async_context(running(liars))
    leech = await stack.enter_async_context(
        Member(
            "bittern",
            content.torrent,
            "127.0.0.10",
            tmp_path / "state",
            content=tmp_path / "out",
        )
    )
    everybody: list[Member | Endpoint] = [*honest, *(liar.endpoint for liar in liars)]
    # What a liar has brought before the first verdict is not held against us: on a busy machine
    # that takes a fifth of a second.
    await leech.start(everybody, "--max-download", f"{min(16, num_mib // 4)}Mi")
    await leech.wait_complete(timeout=TIMEOUT)
    await leech.finish()
    assert content.differences(tmp_path / "out") == []
    banned = {event["endpoint"].rpartition(":")[0] for event in leech.events("peer_banned")}
    assert banned == {liar.host for liar in liars if liar.num_bad}
    num_failed = len(leech.events("piece_failed"))
    assert num_failed <= 2 * len(liars)
    assert all(liar.num_sent for liar in liars)
